//! The names of messages that came from queues of other shards: by them such a message is known when it is sent once more.
//!
//! A name is forgotten when the shard that the message came from says that it has left its old place, durably. That word may be
//! lost in a crash, or the message may have gone elsewhere in the end; so at the start, and now and then, the other shard is
//! asked about all that are remembered. Names of queues that are deleted are of no use. So there are about as many names as
//! messages on their way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Desk, Queues};
use crate::limits::{MOVED_NAMES_MAX, MOVED_NAMES_PER_QUESTION_MAX};
use crate::shard::Output;
use crate::time::Nanos;
use crate::types::{Lsn, QueueId, Seq, ShardId};

/// How often other shards are asked about names.
const ASKED_EVERY: Nanos = Nanos::from_millis(30_000);

/// Messages that have left, and which shards are to be told when that is durable.
struct Gone {
    /// The record that tells of it; [`UNKNOWN`] as long as it is not in the journal.
    lsn: Lsn,
    name: (QueueId, Seq),
    shards: Vec<ShardId>,
}

const UNKNOWN: Lsn = Lsn(u64::MAX);

/// See the module.
#[derive(Default)]
pub struct Names {
    known: BTreeSet<(QueueId, Seq)>,
    /// When others are asked next.
    ask_at: Nanos,
    gone: VecDeque<Gone>,
}

impl Names {
    /// A message with this name is here, or was.
    pub fn knows(&self, name: (QueueId, Seq)) -> bool {
        self.known.contains(&name)
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.known.len() < MOVED_NAMES_MAX
    }

    /// A message with this name has come.
    pub fn add(&mut self, name: (QueueId, Seq)) {
        self.known.insert(name);
    }

    /// Forgets what came from a queue that is gone.
    pub fn forget_queue(&mut self, queue: QueueId) {
        let range = (queue, Seq(0))..=(queue, Seq(u64::MAX));
        for name in self.known.range(range).copied().collect::<Vec<_>>() {
            self.known.remove(&name);
        }
    }

    /// Names to be kept over a restart.
    pub fn iter(&self) -> impl Iterator<Item = (QueueId, Seq)> {
        self.known.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no shard is still to be told that it may forget a name.
    pub fn are_told(&self) -> bool {
        self.gone.is_empty()
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Nanos> {
        (!self.known.is_empty()).then_some(self.ask_at)
    }

    /// Nobody will be told of anything any more.
    pub fn give_up(&mut self) {
        self.gone.clear();
    }
}

impl Queues {
    /// A message has left for these shards, by what is pending or in the journal: they are told when that is durable.
    pub(super) fn has_left(&mut self, name: (QueueId, Seq), shards: Vec<ShardId>) {
        if !shards.is_empty() {
            self.names.gone.push_back(Gone { lsn: UNKNOWN, name, shards });
        }
    }

    /// What was pending is in the journal up to this record.
    pub(super) fn noted_gone(&mut self, lsn: Lsn) {
        for gone in self.names.gone.iter_mut().rev().take_while(|gone| gone.lsn == UNKNOWN) {
            gone.lsn = lsn;
        }
    }

    /// The journal is durable up to this record: tells others what they may forget.
    pub(super) fn tell_gone(&mut self, lsn: Lsn, outputs: &mut VecDeque<Output>) {
        while let Some(Gone { name: (queue, seq), shards, .. }) =
            self.names.gone.pop_front_if(|gone| gone.lsn <= lsn)
        {
            outputs.extend(shards.into_iter().map(|shard| Output::Forget(shard, queue, seq)));
        }
    }

    /// Asks other shards which names may be forgotten, if it is time.
    pub(super) fn ask_about_names(&mut self, desk: &mut Desk<'_>) {
        if self.names.known.is_empty() || desk.now < self.names.ask_at {
            return;
        }
        self.names.ask_at = desk.now + ASKED_EVERY;
        let mut of: BTreeMap<ShardId, Vec<(QueueId, Seq)>> = BTreeMap::new();
        let metadata = desk.metadata;
        self.names.known.retain(|name| match metadata.shard_of_queue(name.0) {
            Some(shard) => {
                of.entry(shard).or_default().push(*name);
                true
            }
            None => false,
        });
        for (shard, names) in of {
            for names in names.chunks(MOVED_NAMES_PER_QUESTION_MAX) {
                desk.outputs.push_back(Output::Remembers(shard, names.to_vec()));
            }
        }
    }

    /// Another shard remembers these names of messages of this one.
    pub fn remembered(&mut self, desk: &mut Desk<'_>, shard: ShardId, names: Vec<(QueueId, Seq)>) {
        if desk.journal.is_poisoned() {
            return;
        }
        for (queue, seq) in names {
            let stored = self.find(queue).and_then(|index| self.stored(index, seq));
            if stored.is_none_or(|stored| stored.leaving.is_none()) {
                self.has_left((queue, seq), vec![shard]);
            }
        }
        if self.pending.is_empty() {
            let last = desk.journal.last_lsn();
            self.noted_gone(last);
            self.tell_gone(desk.journal.durable_lsn(), desk.outputs);
        }
    }

    /// A message that came in has left its old place: it will not come again.
    pub fn forget(&mut self, queue: QueueId, seq: Seq, now: Nanos) {
        if self.names.known.remove(&(queue, seq)) {
            self.pending.forgotten(queue, seq, now);
        }
    }
}
