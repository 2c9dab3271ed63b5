//! The other end of a connection, in the test's hands.

use std::cell::RefCell;
use std::rc::Rc;

use super::state::State;

/// A client. Its calls take effect at once on its side, and a while later on the other.
pub struct SimPeer {
    state: Rc<RefCell<State>>,
    connection: u64,
}

impl SimPeer {
    pub(super) fn new(state: Rc<RefCell<State>>, connection: u64) -> SimPeer {
        SimPeer { state, connection }
    }

    /// Sends bytes. Never waits: what the shard does not read piles up, see [`SimPeer::unread`].
    pub fn send(&self, bytes: &[u8]) {
        self.state.borrow_mut().peer_sends(self.connection, bytes);
    }

    /// Takes what has arrived since the last call.
    pub fn received(&self) -> Vec<u8> {
        self.state.borrow_mut().peer_received(self.connection)
    }

    /// Bytes sent that the shard has not received.
    pub fn unread(&self) -> usize {
        self.state.borrow_mut().peer_unread(self.connection)
    }

    /// Closes in good order: what was sent before still gets through.
    pub fn close(&self) {
        self.state.borrow_mut().peer_closes(self.connection);
    }

    /// Breaks the connection; what was sent and not yet received is lost.
    pub fn reset(&self) {
        self.state.borrow_mut().peer_resets(self.connection);
    }

    /// Falls silent without a word, as a machine does that loses its power: no byte and no end gets through any more,
    /// either way.
    pub fn vanish(&self) {
        self.state.borrow_mut().peer_vanishes(self.connection);
    }

    /// Stops reading, or goes on. While it does not read, the other side's sends fill the window and then wait.
    pub fn pause_reading(&self, pause: bool) {
        self.state.borrow_mut().peer_reads(self.connection, !pause);
    }

    /// Whether either side has ended the connection, and everything sent before has arrived; or nobody listened.
    pub fn is_closed(&self) -> bool {
        self.state.borrow_mut().peer_is_closed(self.connection)
    }
}
