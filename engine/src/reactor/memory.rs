//! Memory that readers keep comes back, however slow they are: from sends that take long, and from what waits to be sent while
//! others wait for memory to be read into.

use std::collections::VecDeque;

use super::app::{App, AppEvent};
use super::{Ask, Connection, Reactor};
use crate::io::Io;
use crate::limits::{LET_GO_EVERY, SLOW_SEND, STUCK_SEND};
use crate::types::ShardId;

impl<I: Io, A: App> Reactor<I, A> {
    /// Sends home the memory that slow readers keep. Without room for the copy it is tried again later.
    pub(super) fn loosen_slow_sends(&mut self) {
        while let Some(conn) = self.slow_sends.due(self.outbox.now) {
            let Some(Connection { sending, .. }) = self.connections.get_mut(&conn) else { continue };
            let Some(len) = self.slow_sends.look(conn, sending, self.outbox.now) else { continue };
            if len == 0 {
                sending.settle();
            } else if let Some(room) = self.shard.room_for_slow(len) {
                sending.settle();
                self.io.loosen(conn, room);
            }
            self.step(AppEvent::Slow(conn));
        }
    }

    /// Has reads that wait for memory get some. That of what waits to be sent comes back when hosts are asked for it, here and on
    /// other shards: else answers could wait for each other's memory for good, with nothing on its way that ever ends. That
    /// of sends comes back with their end, and whoever takes nothing is closed: here, or, if nobody is and the reads have waited
    /// for as long, on other shards.
    pub(super) fn seek_memory(&mut self) {
        if !self.shard.is_starved() {
            self.starved_since = None;
            return;
        }
        let since = *self.starved_since.get_or_insert(self.outbox.now);
        if self.let_go() {
            self.tell_starved(false);
        }
        if self.outbox.now < self.next_stuck || self.give_up_stuck() {
            return;
        }
        if self.outbox.now.since(since) >= STUCK_SEND {
            self.next_stuck = self.outbox.now + SLOW_SEND;
            self.tell_starved(true);
        }
    }

    fn tell_starved(&mut self, for_long: bool) {
        let own = self.shard.id();
        for peer in (0..self.outbox.metadata.shards).map(ShardId).filter(|peer| *peer != own) {
            // One that does not listen need not be told again.
            if self.parked.get(&peer).is_none_or(VecDeque::is_empty) {
                self.send(peer, Ask::Starved { for_long }, None);
            }
        }
    }

    /// Has the host let go of what waits to be sent. Gives whether it was time for that.
    pub(super) fn let_go(&mut self) -> bool {
        let due = self.outbox.now >= self.next_let_go;
        if due {
            self.next_let_go = self.outbox.now + LET_GO_EVERY;
            self.step(AppEvent::LetGo);
        }
        due
    }

    /// Has the host close the connection whose send is under way for longest, if that is long. Gives whether there was one.
    pub(super) fn give_up_stuck(&mut self) -> bool {
        let sends = self.connections.iter();
        let stuck = sends.filter_map(|(conn, connection)| Some((connection.sending.since()?, *conn))).min();
        let Some((_, conn)) = stuck.filter(|(since, _)| self.outbox.now.since(*since) >= STUCK_SEND) else {
            return false;
        };
        self.next_stuck = self.outbox.now + SLOW_SEND;
        self.step(AppEvent::Stuck(conn));
        true
    }
}
