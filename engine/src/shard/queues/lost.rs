//! Messages whose bytes cannot be had any more: their group cannot be read, or fails its checksum, however often it is tried.
//!
//! They are set aside: settled, so that nobody waits for them and no round of trimming does, and counted and named in the log.
//! When too many groups are lost it is not they but the disk that is sick, and the shard is to be poisoned before it gives up
//! more.

use std::collections::{BTreeSet, VecDeque};

use super::groups::{GroupKey, Site, pieces_of};
use super::{Desk, Index, Queues};
use crate::limits::{QUEUE_GROUPS_LOST_MAX, QUEUE_WORK_PER_TURN};
use crate::queue::Stored;
use crate::types::Seq;

/// Groups that were lost, and what was in them.
#[derive(Default)]
pub struct Losses {
    /// Those whose messages are to be set aside, the first of them being looked for.
    searches: VecDeque<Search>,
    /// How many there were.
    count: usize,
    /// Messages that were set aside since somebody last asked.
    messages: u64,
}

/// A group whose messages are looked for in all queues, some in each turn. No message comes to be in it any more.
struct Search {
    key: GroupKey,
    site: Site,
    /// Messages in pieces of which some were in it.
    names: BTreeSet<u64>,
    /// The queue and the message from which on they are looked for.
    from: (Index, Seq),
    /// How many there were in that queue, the first and the last.
    found: Option<(u64, Seq, Seq)>,
}

impl Losses {
    /// Groups whose messages are being looked for.
    pub fn len(&self) -> usize {
        self.searches.len()
    }

    /// Looks for no more messages.
    pub fn give_up(&mut self) {
        self.searches.clear();
    }
}

impl Queues {
    /// Messages that were set aside since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.losses.messages)
    }

    /// Whether so many groups were lost that the disk must be sick.
    pub fn is_sick(&self) -> bool {
        self.losses.count > QUEUE_GROUPS_LOST_MAX
    }

    /// A group cannot be read any more: nobody waits for it from now on, and its messages are looked for.
    pub(super) fn lose_group(&mut self, key: GroupKey, site: Site) {
        self.groups.lose(key);
        self.losses.count += 1;
        let names = self.groups.large_in(key);
        let search = Search { key, site, names, from: (Index(0), Seq(0)), found: None };
        self.losses.searches.push_back(search);
    }

    /// Sets aside what is in groups that were lost: looks at so many messages, and goes on in the next turn.
    pub(super) fn set_lost_aside(&mut self, desk: &mut Desk<'_>) {
        let mut budget = QUEUE_WORK_PER_TURN;
        while budget > 0 {
            let Some(mut search) = self.losses.searches.pop_front() else { return };
            let (index, from) = search.from;
            match self.entries.get(index.0 as usize) {
                None => {
                    self.groups.drop_unwanted(search.key);
                    continue;
                }
                Some(Some(entry)) if !entry.gone => {
                    let mut lost = Vec::new();
                    let mut next = None;
                    for stored in entry.machine.stored(from) {
                        if budget == 0 {
                            next = Some(stored.seq);
                            break;
                        }
                        budget -= 1;
                        if search.has(&stored) {
                            lost.push(stored.seq);
                        }
                    }
                    for seq in &lost {
                        self.lose(desk, index, *seq);
                    }
                    search.note(&lost);
                    search.from.1 = next.unwrap_or(Seq(u64::MAX));
                    if next.is_none() {
                        self.tell_lost(desk, &mut search);
                    }
                }
                // Nobody is given anything of a queue that is gone.
                _ => search.from.1 = Seq(u64::MAX),
            }
            if search.from.1 == Seq(u64::MAX) {
                search.from = (Index(index.0 + 1), Seq(0));
                budget = budget.saturating_sub(1);
            }
            self.losses.searches.push_front(search);
        }
    }

    /// A queue has been looked through.
    fn tell_lost(&mut self, desk: &Desk<'_>, search: &mut Search) {
        let Some((messages, first, last)) = search.found.take() else { return };
        let queue = self.entry(search.from.0).id;
        tracing::error!(
            shard = desk.shard.0, %queue, site = ?search.site, messages, first = first.0, last = last.0,
            "messages cannot be read any more and are set aside"
        );
    }

    /// Sets one message aside, if it is still there.
    pub(super) fn lose(&mut self, desk: &mut Desk<'_>, index: Index, seq: Seq) {
        let id = self.entry(index).id;
        if self.with(desk, index, |machine, wants| machine.lose(seq, wants)) {
            self.letters.left(id, seq);
            self.losses.messages += 1;
        }
    }

    /// The same of one that was given to somebody; if that is settled when it is decided, nothing else knows of it any more.
    pub(super) fn lose_given(&mut self, desk: &mut Desk<'_>, index: Index, seq: Seq, no_ack: bool) {
        if no_ack {
            let queue = self.entry(index).id;
            tracing::error!(shard = desk.shard.0, %queue, seq = seq.0, "a message on its way to somebody cannot be read any more");
            self.losses.messages += 1;
        } else {
            self.lose(desk, index, seq);
        }
    }
}

impl Search {
    fn has(&self, stored: &Stored) -> bool {
        match pieces_of(stored.locator) {
            Some(name) => self.names.contains(&name),
            None => GroupKey::of(stored.locator) == self.key,
        }
    }

    fn note(&mut self, lost: &[Seq]) {
        let Some((first, last)) = lost.first().zip(lost.last()) else { return };
        let (before, first) = self.found.map_or((0, *first), |(before, first, _)| (before, first));
        self.found = Some((before + lost.len() as u64, first, *last));
    }
}
