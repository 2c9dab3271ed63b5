//! What a client may say.

use super::client::SLOTS;

/// Bytes of bodies: one frame, and several.
const BODY_BYTES: [usize; 4] = [8, 100, 3_000, 9_000];

/// What a client may say.
#[derive(Clone, Copy, Debug)]
pub enum Say {
    OpenChannel,
    CloseChannel,
    Declare { slot: usize, durable: bool, exclusive: bool, passive: bool },
    Bind { slot: usize, wrong: usize },
    Unbind(usize),
    Purge(usize),
    Delete(usize),
    DeclareExchange { topic: bool },
    DeleteExchange,
    Qos { count: u16, all: bool, size: bool },
    Consume { slot: usize, no_ack: bool, again: bool },
    Cancel(usize),
    Publish { slot: usize, way: usize, len: usize, persistent: bool, whole: bool },
    Continue,
    Get { slot: usize, no_ack: bool },
    Settle { nth: usize, multiple: bool, how: usize },
    SettleUnknown(usize),
    Recover { requeue: bool },
    Confirm,
    Begin,
    Commit,
    RollBack,
    Flow { active: bool },
    Heartbeat,
    CloseConnection,
    Misplaced(usize),
    Immediate,
    Garbage(usize),
}

impl Say {
    /// Number `what` of all that may be said, in detail as `more` says.
    pub fn of(what: u8, more: usize) -> Option<Say> {
        let slot = more % SLOTS;
        let publish = |whole| Say::Publish {
            slot,
            way: more / 4 % 8,
            len: BODY_BYTES[more / 32 % 4],
            persistent: more >= 64,
            whole,
        };
        Some(match what {
            0 => Say::OpenChannel,
            1 => Say::CloseChannel,
            2 | 3 => Say::Declare {
                slot,
                durable: more & 4 == 0,
                exclusive: more & 0x18 == 8,
                passive: more & 0x60 == 0x20,
            },
            4 => Say::Bind { slot, wrong: more / 4 % 16 },
            5 => Say::Unbind(slot),
            6 => Say::Purge(slot),
            7 => Say::Delete(slot),
            8 => Say::DeclareExchange { topic: more.is_multiple_of(8) },
            9 => Say::DeleteExchange,
            10 => Say::Qos { count: more as u16 % 8, all: more & 8 == 0, size: more >= 240 },
            11 | 12 => Say::Consume { slot, no_ack: more & 4 == 0, again: more >= 224 },
            13 => Say::Cancel(more),
            14..=18 => publish(true),
            19 => publish(false),
            20 | 21 => Say::Continue,
            22 => Say::Get { slot, no_ack: more & 4 == 0 },
            23..=25 => Say::Settle { nth: more % 8, multiple: more & 8 == 0, how: more / 16 % 5 },
            26 => Say::SettleUnknown(more % 5),
            27 => Say::Recover { requeue: more < 240 },
            28 => Say::Confirm,
            29 => Say::Begin,
            30 => Say::Commit,
            31 => Say::RollBack,
            32 => Say::Flow { active: more < 240 },
            33 if more >= 192 => Say::CloseConnection,
            34 => Say::Misplaced(more % 9),
            35 if more >= 192 => Say::Immediate,
            36 if more >= 192 => Say::Garbage(more - 191),
            33 | 35 | 36 => Say::Heartbeat,
            _ => return None,
        })
    }
}
