//! The names of messages that came from queues of other shards, and which queues here have them: by that such a message is known
//! when it is sent once more.
//!
//! A name is forgotten when the shard that the message came from says that it has left its old place, durably. That word may be
//! lost in a crash, or the message may have gone elsewhere in the end; so at the start, and now and then, the other shard is
//! asked about all that are remembered. Names of queues that are deleted are of no use. So there are about as many names as
//! messages on their way.

use std::collections::{BTreeMap, VecDeque};

use super::{Desk, Queues};
use crate::few::Few;
use crate::format::checkpoint::MovedState;
use crate::limits::{MOVED_NAMES_MAX, MOVED_NAMES_PER_QUESTION_MAX, MOVED_PLACES_MAX};
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

/// Which queues of this shard have a message, in order; `None` if all that it was for: versions before did not say.
type Places = Option<Few<QueueId>>;

/// See the module.
#[derive(Default)]
pub struct Names {
    known: BTreeMap<(QueueId, Seq), Places>,
    /// How many queues stand there in all.
    places: usize,
    /// When others are asked next.
    ask_at: Nanos,
    gone: VecDeque<Gone>,
}

impl Names {
    /// A message with this name is here, or was.
    pub fn knows(&self, name: (QueueId, Seq)) -> bool {
        self.known.contains_key(&name)
    }

    /// A message with this name has come to this queue.
    pub fn has(&self, name: (QueueId, Seq), queue: QueueId) -> bool {
        match self.known.get(&name) {
            Some(Some(places)) => places.binary_search(&queue).is_ok(),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.known.len() < MOVED_NAMES_MAX && self.places < MOVED_PLACES_MAX
    }

    /// A message with this name has come to these queues.
    pub fn add(&mut self, name: (QueueId, Seq), queues: impl Iterator<Item = QueueId>) {
        let places = self.known.entry(name).or_insert_with(|| Some(Few::default()));
        if let Some(places) = places {
            let before = places.len();
            let mut all: Vec<QueueId> = places.iter().copied().chain(queues).collect();
            all.sort_unstable();
            all.dedup();
            self.places += all.len() - before;
            *places = all.into();
        }
    }

    fn remove(&mut self, name: (QueueId, Seq)) -> bool {
        let known = self.known.remove(&name);
        self.places -= known.iter().flatten().map(|places| places.len()).sum::<usize>();
        known.is_some()
    }

    /// Forgets what came from a queue that is gone.
    pub fn forget_queue(&mut self, queue: QueueId) {
        let range = (queue, Seq(0))..=(queue, Seq(u64::MAX));
        for name in self.known.range(range).map(|(name, _)| *name).collect::<Vec<_>>() {
            self.remove(name);
        }
    }

    /// Names that were kept over a restart.
    pub fn recover(&mut self, everywhere: Vec<(QueueId, Seq)>, moved: Vec<MovedState>) {
        self.known.extend(everywhere.into_iter().map(|name| (name, None)));
        for MovedState { queue, seq, targets } in moved {
            self.add((queue, seq), targets.into_iter());
        }
    }

    /// Forgets all others.
    pub fn retain(&mut self, mut stays: impl FnMut((QueueId, Seq)) -> bool) {
        let gone: Vec<_> = self.known.keys().copied().filter(|name| !stays(*name)).collect();
        for name in gone {
            self.remove(name);
        }
    }

    /// Names to be kept over a restart of which it is not known which queues have them; and the others.
    pub fn state(&self) -> (Vec<(QueueId, Seq)>, Vec<MovedState>) {
        let everywhere = self.known.iter().filter(|(_, places)| places.is_none()).map(|(name, _)| *name);
        let moved = self.known.iter().filter_map(|((queue, seq), places)| {
            let kept = places.as_ref()?.iter().copied().filter(|target| !target.is_transient());
            let targets: Vec<QueueId> = kept.collect();
            (!targets.is_empty()).then_some(MovedState { queue: *queue, seq: *seq, targets })
        });
        (everywhere.collect(), moved.collect())
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
        self.names.retain(|name| match metadata.shard_of_queue(name.0) {
            Some(shard) => {
                of.entry(shard).or_default().push(name);
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
        if self.names.remove((queue, seq)) {
            self.pending.forgotten(queue, seq, now);
        }
    }
}
