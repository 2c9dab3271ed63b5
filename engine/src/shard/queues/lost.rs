//! Messages whose bytes cannot be had any more: their group cannot be read, or fails its checksum, however often it is tried.
//!
//! They are set aside: settled, so that nobody waits for them and no round of trimming does, and counted and named in the log.
//! When too many groups are lost it is not they but the disk that is sick, and the shard is to be poisoned before it gives up
//! more.

use super::groups::{GroupKey, Site, pieces_of};
use super::{Desk, Index, Queues};
use crate::limits::QUEUE_GROUPS_LOST_MAX;
use crate::queue::{Locator, Stored};
use crate::types::Seq;

/// Groups that were lost, and what was in them.
#[derive(Default)]
pub struct Losses {
    /// Those whose messages are to be set aside.
    pub groups: Vec<(GroupKey, Site)>,
    /// How many there were.
    pub count: usize,
    /// Messages that were set aside since somebody last asked.
    messages: u64,
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

    /// Sets aside what is in groups that were lost.
    pub(super) fn set_lost_aside(&mut self, desk: &mut Desk<'_>) {
        for (key, site) in std::mem::take(&mut self.losses.groups) {
            let names = self.groups.large_in(key);
            let is_lost = |locator: Locator| match pieces_of(locator) {
                Some(name) => names.contains(&name),
                None => GroupKey::of(locator) == key,
            };
            for (id, index) in self.all() {
                let stored = self.entry(index).machine.stored(Seq(0));
                let lost: Vec<Stored> = stored.filter(|stored| is_lost(stored.locator)).collect();
                let Some((first, last)) = lost.first().zip(lost.last()) else { continue };
                tracing::error!(
                    shard = desk.shard.0, queue = %id, ?site, messages = lost.len(), first = first.seq.0, last = last.seq.0,
                    "messages cannot be read any more and are set aside"
                );
                for stored in lost {
                    self.lose(desk, index, stored.seq);
                }
            }
            self.groups.drop_unwanted(key);
        }
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
