//! Sends that take long. What they keep in memory is copied, so that a slow reader never holds the journal's slabs.

use std::collections::VecDeque;

use crate::buffer::{Slice, tight_bytes};
use crate::io::ConnId;
use crate::limits::SLOW_SEND;
use crate::time::Nanos;

/// A connection's send, as far as it matters here.
#[derive(Default)]
pub struct Sending {
    began: Nanos,
    /// It is under way.
    under_way: bool,
    /// It is under way, and nothing has been done about it yet.
    open: bool,
    /// Room that a copy of it needs.
    tight_bytes: usize,
    /// It is to be looked at.
    watched: bool,
}

/// The connections that are to be looked at, at most once each, by when. A send is looked at once it has been under way
/// for [`SLOW_SEND`], and before it has been for twice as long: a look that comes too early for a send that has begun
/// meanwhile is repeated after the whole span, so that the queue stays in order.
#[derive(Default)]
pub struct SlowSends {
    looks: VecDeque<(Nanos, ConnId)>,
}

impl SlowSends {
    /// A send has begun.
    pub fn began(&mut self, conn: ConnId, sending: &mut Sending, slices: &[Slice], now: Nanos) {
        sending.began = now;
        sending.open = true;
        sending.under_way = true;
        sending.tight_bytes = tight_bytes(slices);
        if !sending.watched {
            self.watch(conn, sending, now);
        }
    }

    fn watch(&mut self, conn: ConnId, sending: &mut Sending, now: Nanos) {
        sending.watched = true;
        self.looks.push_back((now + SLOW_SEND, conn));
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Nanos> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// A connection whose send is to be looked at now. It may be gone.
    pub fn due(&mut self, now: Nanos) -> Option<ConnId> {
        self.looks.pop_front_if(|(at, _)| *at <= now).map(|(_, conn)| conn)
    }

    /// Looks at a send: gives the room that a copy of it needs if it is slow. It is looked at again later unless
    /// [`Sending::settle`] is called.
    pub fn look(&mut self, conn: ConnId, sending: &mut Sending, now: Nanos) -> Option<usize> {
        sending.watched = false;
        if !sending.open {
            return None;
        }
        self.watch(conn, sending, now);
        (now.since(sending.began) >= SLOW_SEND).then_some(sending.tight_bytes)
    }
}

impl Sending {
    /// The send is over.
    pub fn ended(&mut self) {
        self.under_way = false;
        self.settle();
    }

    /// Since when a send has been under way; `None` if none is.
    pub fn since(&self) -> Option<Nanos> {
        self.under_way.then_some(self.began)
    }

    /// The send is over, or keeps no memory any more that it need not keep.
    pub fn settle(&mut self) {
        self.open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use crate::limits::JOURNAL_SLAB_BYTES;

    const CONN: ConnId = ConnId(1);

    fn tight() -> Vec<Slice> {
        let mut slab = Pool::new(16 << 20).block(JOURNAL_SLAB_BYTES).unwrap();
        slab.push(&[1; 10]);
        vec![slab.freeze()]
    }

    #[test]
    fn a_send_is_slow_after_a_while_and_stays_so_until_it_is_copied() {
        let (mut slow, mut sending) = (SlowSends::default(), Sending::default());
        slow.began(CONN, &mut sending, &tight(), Nanos(5));
        assert_eq!(slow.due(SLOW_SEND), None);
        let mut now = Nanos(5) + SLOW_SEND;
        for _ in 0..2 {
            assert_eq!(slow.due(now), Some(CONN));
            assert_eq!(slow.look(CONN, &mut sending, now), Some(10));
            now = now + SLOW_SEND;
        }
        sending.settle();
        assert_eq!(slow.due(now), Some(CONN));
        assert_eq!(slow.look(CONN, &mut sending, now), None);
        assert_eq!(slow.next(), None, "nothing is watched any more");
    }

    #[test]
    fn many_quick_sends_are_one_entry_and_none_of_them_is_slow() {
        let (mut slow, mut sending) = (SlowSends::default(), Sending::default());
        for turn in 0..1000 {
            let now = Nanos::from_millis(turn);
            slow.began(CONN, &mut sending, &tight(), now);
            while let Some(conn) = slow.due(now) {
                assert_eq!(slow.look(conn, &mut sending, now), None);
            }
            assert_eq!(slow.looks.len(), 1);
            sending.settle();
        }
    }
}
