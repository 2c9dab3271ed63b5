//! What can be asked of a queue, drawn from bytes.

use millstream_engine::config::{Overflow, QueueSettings};
use millstream_engine::queue::{Credit, Verdict};

/// Something to be done. Messages and keepers are meant by a number, of which a remainder says which of those there are.
#[derive(Clone, Debug)]
pub enum Operation {
    Publish { messages: usize, priority: u8, size: u32, persistent: bool, ttl_ms: Option<i64> },
    Consume { no_ack: bool, exclusive: bool, priority: i32, timeout_ms: Option<u64>, credit: Credit },
    Credit { keeper: usize, credit: Credit },
    Cancel { keeper: usize },
    Get { keep: bool },
    Settle { keeper: usize, first: usize, last: usize, verdict: Verdict },
    Run { most: usize },
    Wait { ms: i64 },
    TellLeaving { most: usize },
    Left { which: usize },
    TellAgain { which: usize, most: usize },
    Lose { which: usize },
    Purge,
    Touch,
    Configure(QueueSettings),
    Relocate { which: usize },
    PageOut { most: usize },
    Restart,
}

/// Bytes that are read as operations.
pub struct Script<'a> {
    bytes: &'a [u8],
}

impl<'a> Script<'a> {
    pub fn new(bytes: &'a [u8]) -> Script<'a> {
        Script { bytes }
    }

    /// The next byte; 0 at the end.
    fn byte(&mut self) -> u8 {
        self.bytes.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Something of a byte's size, one time in two.
    fn perhaps(&mut self) -> Option<u8> {
        let byte = self.byte();
        (byte % 2 == 1).then_some(byte / 2)
    }

    /// What holds for a queue: not too much at a time.
    pub fn settings(&mut self) -> QueueSettings {
        let mut settings = QueueSettings { dead_letter: self.byte() % 2 == 1, ..QueueSettings::default() };
        for _ in 0..self.below(4) {
            match self.below(9) {
                0 => settings.max_messages = Some(self.byte().into()),
                1 => settings.max_bytes = Some(u64::from(self.byte()) * 16),
                2 => settings.overflow = Overflow::RejectPublish,
                3 => settings.overflow = Overflow::RejectPublishDeadLetter,
                4 => settings.message_ttl_ms = Some(self.byte().into()),
                5 => settings.expires_ms = Some(u64::from(self.byte()) * 4 + 1),
                6 => settings.max_priority = Some(self.byte()),
                7 => settings.single_active_consumer = true,
                _ => settings.delivery_limit = Some(self.below(4).into()),
            }
        }
        settings.consumer_timeout_ms = self.perhaps().map(|ms| u64::from(ms) * 8 + 1);
        settings
    }

    fn credit(&mut self) -> Credit {
        Credit { messages: self.below(120).into(), bytes: u32::from(self.byte()) * 20 }
    }

    /// The next operation, if there are bytes left.
    pub fn next(&mut self) -> Option<Operation> {
        if self.bytes.is_empty() {
            return None;
        }
        Some(match self.below(32) {
            0..6 => Operation::Publish {
                messages: self.below(100).into(),
                priority: self.byte(),
                size: self.below(40).into(),
                persistent: self.below(4) > 0,
                ttl_ms: self.perhaps().map(i64::from),
            },
            6 | 7 => Operation::Consume {
                no_ack: self.below(4) == 0,
                exclusive: self.below(8) == 0,
                priority: i32::from(self.below(3)) - 1,
                timeout_ms: self.perhaps().map(|ms| u64::from(ms) + 1),
                credit: self.credit(),
            },
            8..11 => Operation::Credit { keeper: self.number(), credit: self.credit() },
            11 => Operation::Cancel { keeper: self.number() },
            12 | 13 => Operation::Get { keep: self.byte() % 2 == 1 },
            14..20 => Operation::Settle {
                keeper: self.number(),
                first: self.number(),
                last: self.number(),
                verdict: match self.below(6) {
                    0..3 => Verdict::Ack,
                    3 => Verdict::Requeue { failed: false },
                    4 => Verdict::Requeue { failed: true },
                    _ => Verdict::Reject,
                },
            },
            20..24 => Operation::Run { most: self.number() + 1 },
            24 | 25 => Operation::Wait { ms: self.byte().into() },
            26 => Operation::TellLeaving { most: self.below(8).into() },
            27 => Operation::Left { which: self.number() },
            28 => match self.below(4) {
                0 => Operation::Purge,
                1 => Operation::Touch,
                2 => Operation::TellAgain { which: self.number(), most: self.below(5).into() },
                _ => Operation::Lose { which: self.number() },
            },
            29 => Operation::Configure(self.settings()),
            30 => match self.below(2) {
                0 => Operation::Relocate { which: self.number() },
                _ => Operation::PageOut { most: self.below(8).into() },
            },
            _ => Operation::Restart,
        })
    }
}
