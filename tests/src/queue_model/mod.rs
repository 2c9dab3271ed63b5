//! A queue beside a model of it that is too simple to be wrong: whatever is asked of both, they have to agree.
//!
//! [`run`] takes any bytes for a list of operations, so it serves random tests and the fuzzer alike.

mod model;
mod operation;

use std::collections::BTreeMap;

use millstream_engine::config::{Overflow, QueueSettings};
use millstream_engine::queue::{
    Admission, Consume, Incoming, Keeper, Locator, Output, PageId, Queue, QueueCounts, QueueStats, Recovered,
    Stored, Token,
};
use millstream_engine::time::WallMs;
use millstream_engine::types::Seq;

use model::Model;
use operation::{Operation, Script};

/// Carries out what the bytes say on a queue and on the model. Panics where they differ.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut pair = Pair::new(script.settings());
    while let Some(operation) = script.next() {
        pair.carry_out(operation);
        pair.compare();
    }
    pair.finish();
}

/// Both of them, and what the queue's caller has to remember.
struct Pair {
    queue: Queue,
    model: Model,
    now: WallMs,
    keepers: Vec<(Token, Keeper)>,
    tokens: u64,
    locators: u64,
    /// What of the queue is elsewhere.
    pages: BTreeMap<PageId, Vec<u8>>,
}

impl Pair {
    fn new(settings: QueueSettings) -> Pair {
        // Close to where half of a clock's bits begin again.
        let now = WallMs((1 << 40) - 500);
        Pair {
            queue: new_queue(settings.clone(), now),
            model: Model::new(settings, now),
            now,
            keepers: Vec::new(),
            tokens: 0,
            locators: 0,
            pages: BTreeMap::new(),
        }
    }

    fn carry_out(&mut self, operation: Operation) {
        let now = self.now;
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        // These answer at once, and differently when a page is elsewhere.
        let waits_for_no_page = match &operation {
            Operation::Publish { .. } => self.queue.settings().overflow != Overflow::DropHead,
            operation => matches!(
                operation,
                Operation::Get { .. }
                    | Operation::Relocate { .. }
                    | Operation::Lose { .. }
                    | Operation::Restart
            ),
        };
        if waits_for_no_page {
            self.page_in_all();
        }
        match operation {
            Operation::Publish { messages, priority, size, persistent, ttl_ms } => {
                for _ in 0..messages {
                    let expires_at = ttl_ms.map(|ttl| WallMs(now.0 + ttl));
                    self.publish(
                        Incoming { locator: Locator(0), size, persistent, priority, expires_at },
                        &mut out,
                        &mut expected,
                    );
                }
            }
            Operation::Consume { no_ack, exclusive, priority, timeout_ms, credit } => {
                let token = self.token();
                let consume = Consume { token, no_ack, exclusive, priority, timeout_ms, credit };
                let keeper = self.queue.consume(consume, now, &mut out);
                assert_eq!(keeper.is_ok(), self.model.consume(consume, now, &mut expected));
                self.keepers.extend(keeper.ok().map(|keeper| (token, keeper)));
            }
            Operation::Credit { keeper, credit } => {
                if let Some((token, keeper)) = self.keeper(keeper) {
                    self.queue.credit(keeper, credit);
                    self.model.credit(token, credit);
                }
            }
            Operation::Cancel { keeper } => {
                if let Some((token, keeper)) = self.keeper(keeper) {
                    self.queue.cancel(keeper, now, &mut out);
                    self.model.cancel(token, now, &mut expected);
                }
            }
            Operation::Get { keep } => {
                let token = self.token();
                let keeper = keep.then(|| self.queue.add_keeper(token));
                self.keepers.extend(keeper.map(|keeper| (token, keeper)));
                let got = self.queue.get(keeper, now, &mut out);
                assert_eq!(got, self.model.get(keep.then_some(token), now, &mut expected));
            }
            Operation::Settle { keeper, first, last, verdict } => {
                if let Some((token, keeper)) = self.keeper(keeper) {
                    let (first, last) = (self.model.live(first), self.model.live(last));
                    let settled = self.queue.settle(keeper, first, last, verdict, &mut out);
                    assert_eq!(settled, self.model.settle(token, first, last, verdict, &mut expected));
                }
            }
            Operation::Run { most } => {
                while self.queue.run(now, most, &mut out) || self.page_in(&mut out) {}
                self.model.run(now, &mut expected);
            }
            Operation::Wait { ms } => self.now.0 += ms,
            Operation::TellLeaving { most } => {
                self.queue.tell_leaving(most, &mut out);
                self.model.tell_leaving(most, &mut expected);
            }
            Operation::Left { which } => {
                let seq = self.model.live(which);
                assert_eq!(self.queue.left(seq, &mut out), self.model.left(seq, &mut expected));
            }
            Operation::TellAgain { which, most } => {
                // Of 64 at a time: as many are told again as lie in as many of those as it takes.
                let (from, busy) = (self.model.live(which), |seq: Seq| seq.0 % 7 == 3);
                let again = self.queue.tell_again(from, most, busy);
                assert_eq!(again, self.model.tell_again(from, most, busy));
            }
            Operation::Lose { which } => {
                let seq = self.model.live(which);
                assert_eq!(self.queue.lose(seq, &mut out), self.model.lose(seq, &mut expected));
            }
            Operation::Purge => assert_eq!(self.queue.purge(), self.model.purge()),
            Operation::Touch => {
                self.queue.touch(now);
                self.model.touch(now);
            }
            Operation::Configure(settings) => {
                self.queue.configure(settings.clone(), now, &mut out);
                self.model.configure(settings, &mut expected);
            }
            Operation::Relocate { which } => {
                let (seq, locator) = (self.model.live(which), self.locator());
                assert_eq!(self.queue.relocate(seq, locator), self.model.relocate(seq, locator));
            }
            Operation::PageOut { most } => {
                for _ in 0..most {
                    let mut bytes = Vec::new();
                    let stays = |locator: Locator| !locator.0.is_multiple_of(128);
                    let Some(page) = self.queue.page_out(stays, &mut bytes) else { break };
                    assert!(self.pages.insert(page, bytes).is_none(), "the page is paged out");
                }
            }
            Operation::Restart => self.restart(),
        }
        self.page_in(&mut out);
        for output in &out {
            if let Output::Released(token) = output {
                self.keepers.retain(|(other, _)| other != token);
            }
        }
        assert_same(&out, &expected);
    }

    fn publish(&mut self, mut message: Incoming, out: &mut Vec<Output>, expected: &mut Vec<Output>) {
        message.locator = self.locator();
        let now = self.now;
        let admission = self.queue.admit(message.size, now, out);
        assert_eq!(admission, self.model.admit(message.size, now, expected));
        let next = self.queue.next_seq(message.priority);
        let seq = match admission {
            Admission::Take => self.queue.publish(message, now),
            Admission::RefuseAndLeave => self.queue.publish_refused(message, now, out),
            Admission::Refuse => return,
        };
        assert_eq!(seq, next);
        self.model.publish(seq, message, admission == Admission::RefuseAndLeave, now, expected);
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn locator(&mut self) -> Locator {
        self.locators += 1;
        Locator(self.locators)
    }

    fn keeper(&self, which: usize) -> Option<(Token, Keeper)> {
        let count = self.keepers.len();
        (count > 0).then(|| self.keepers[which % count])
    }

    /// Brings back the pages that are asked for, and says whether there were any.
    fn page_in(&mut self, out: &mut Vec<Output>) -> bool {
        let mut asked = false;
        out.retain(|output| {
            let Output::PageIn(page) = output else { return true };
            let bytes = self.pages.remove(page).expect("a page is asked for that is elsewhere, once");
            self.queue.page_in(*page, &bytes).expect("the page is sound");
            asked = true;
            false
        });
        asked
    }

    fn page_in_all(&mut self) {
        for (page, bytes) in std::mem::take(&mut self.pages) {
            self.queue.page_in(page, &bytes).expect("the page is sound");
        }
    }

    /// As after a crash: what was to be kept over a restart is there, and nobody consumes.
    fn restart(&mut self) {
        let settings = self.queue.settings().clone();
        let mut queue = new_queue(settings, self.now);
        for message in self.queue.stored(Seq(0)).filter(|message| message.persistent) {
            assert_eq!(queue.recover(message), Recovered::New);
        }
        for &next in self.queue.next_seqs() {
            queue.recover_next(next);
        }
        self.queue = queue;
        self.keepers.clear();
        self.model.restart(self.now);
    }

    fn compare(&self) {
        let stats = QueueStats { counts: QueueCounts::default(), ..self.queue.stats() };
        assert_eq!(stats, self.model.stats());
        assert!(self.queue.persistent().eq(self.model.persistent()));
        let (deadline, needed) = (self.queue.next_deadline(), self.model.next_deadline());
        assert!(
            needed.is_none_or(|needed| deadline.is_some_and(|deadline| deadline <= needed.max(self.now))),
            "looks again at {deadline:?}, but something happens at {needed:?}"
        );
    }

    /// Everything that is known of each message is the same, and when all are gone, nothing is left to be done.
    fn finish(&mut self) {
        self.page_in_all();
        let stored: Vec<Stored> = self.queue.stored(Seq(0)).collect();
        assert_eq!(stored, self.model.stored());
        assert_eq!(self.queue.consumers(), self.model.consumers());
        self.carry_out(Operation::Run { most: usize::MAX });
        let deadline = self.queue.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "it is {:?} and {deadline:?} is to come", self.now);
    }
}

/// A queue with pages so small that there are some.
fn new_queue(settings: QueueSettings, now: WallMs) -> Queue {
    let mut queue = Queue::new(settings, now);
    queue.page_by(2, 2);
    queue
}

/// The same is to be done: deliveries and what concerns consumers in the same order, and so what concerns any one message.
fn assert_same(out: &[Output], expected: &[Output]) {
    let deliveries = |outputs: &[Output]| -> Vec<Output> {
        let consumers = |output: &&Output| seq_of(output).is_none() || matches!(output, Output::Deliver(..));
        outputs.iter().filter(consumers).copied().collect()
    };
    assert_eq!(deliveries(out), deliveries(expected));
    let by_message = |outputs: &[Output]| {
        let mut by_message: BTreeMap<Seq, Vec<Output>> = BTreeMap::new();
        for output in outputs {
            if let Some(seq) = seq_of(output) {
                by_message.entry(seq).or_default().push(*output);
            }
        }
        by_message
    };
    assert_eq!(by_message(out), by_message(expected));
}

fn seq_of(output: &Output) -> Option<Seq> {
    match output {
        Output::Deliver(_, delivery) => Some(delivery.seq),
        Output::Settled { seq, .. }
        | Output::Failed { seq, .. }
        | Output::Leaving { seq, .. }
        | Output::Leave { seq, .. } => Some(*seq),
        Output::TimedOut(_)
        | Output::Released(_)
        | Output::Activated(_)
        | Output::PageIn(_)
        | Output::Unused
        | Output::Expired => None,
    }
}
