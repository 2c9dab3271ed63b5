//! Listening and accepting.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};

use io_uring::{opcode, types};

use super::errors;
use super::ring::{Completion, Owner, Ring};
use super::slab::Slab;
use crate::error::IoError;
use crate::io::{Event, Socket, Token};
use crate::limits::{LISTEN_BACKLOG, PEER_MISSED, PEER_PROBED, PEER_PROBED_AGAIN};
use crate::time::Nanos;

/// How long accepting pauses when there are no descriptors or no memory left: the connection stays in the backlog, and
/// another attempt at once would fail the same way.
const PAUSE: Nanos = Nanos::from_millis(20);

struct Listener {
    token: Token,
    socket: TcpListener,
    /// An accept is in flight.
    armed: bool,
    /// No accept until then.
    paused: Option<Nanos>,
    closing: bool,
}

/// The listeners of one shard.
pub(super) struct Listeners {
    listeners: Slab<Listener>,
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), IoError> {
    // Sets SO_REUSEADDR, and a small backlog.
    let socket = TcpListener::bind(address).map_err(|error| errors::of_std(&error))?;
    // SAFETY: no memory is involved. Listening again only changes the backlog.
    let outcome = unsafe { libc::listen(socket.as_raw_fd(), LISTEN_BACKLOG) };
    if outcome != 0 {
        return Err(errors::of_std(&std::io::Error::last_os_error()));
    }
    miss_peers(&socket).map_err(|error| errors::of_std(&error))?;
    let local = socket.local_addr().map_err(|error| errors::of_std(&error))?;
    Ok((socket, local))
}

/// Has the kernel end connections whose peers have vanished, or take nothing. Those that are accepted inherit it.
fn miss_peers(socket: &TcpListener) -> std::io::Result<()> {
    let s = |span: Nanos| (span.0 / 1_000_000_000) as libc::c_int;
    let options: [(_, _, libc::c_int); 4] = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, s(PEER_PROBED)),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, s(PEER_PROBED_AGAIN)),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, s(PEER_MISSED) * 1000),
    ];
    for (level, name, value) in options {
        let (at, len) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
        // SAFETY: `at` points to `len` bytes that outlive the call.
        let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, len) };
        if outcome != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Listeners {
    pub(super) fn new() -> Listeners {
        Listeners { listeners: Slab::new() }
    }

    pub(super) fn listen(&mut self, ring: &mut Ring, token: Token, address: SocketAddr) -> Event {
        match bind(address) {
            Err(error) => Event::Listening(token, Err(error)),
            Ok((socket, local)) => {
                let listener = Listener { token, socket, armed: false, paused: None, closing: false };
                let index = self.listeners.insert(|_, _| listener);
                self.arm(ring, index);
                Event::Listening(token, Ok(local))
            }
        }
    }

    pub(super) fn unlisten(&mut self, ring: &mut Ring, token: Token) {
        let indexes: Vec<u32> = self.listeners.indexes().collect();
        for index in indexes {
            let Some(listener) = self.listeners.get_mut(index) else { continue };
            if listener.token != token {
                continue;
            }
            if listener.armed {
                listener.closing = true;
                ring.push_quiet(opcode::AsyncCancel::new(Owner::Accept(index).pack()).build());
            } else {
                self.listeners.remove(index);
            }
        }
    }

    fn arm(&mut self, ring: &mut Ring, index: u32) {
        let listener = self.listeners.get_mut(index).expect("a listener that is armed is there");
        listener.armed = true;
        listener.paused = None;
        let accept = opcode::AcceptMulti::new(types::Fd(listener.socket.as_raw_fd()));
        // SAFETY: a multishot accept points to no memory.
        unsafe { ring.push(Owner::Accept(index), accept.flags(libc::SOCK_CLOEXEC).build()) }
    }

    pub(super) fn accepted(
        &mut self,
        ring: &mut Ring,
        index: u32,
        completion: Completion,
        now: Nanos,
        events: &mut Vec<Event>,
    ) {
        let listener = self.listeners.get_mut(index).expect("a listener stays until its last completion");
        let result = completion.result;
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us.
            let stream = unsafe { TcpStream::from_raw_fd(result) };
            // A connection that is over already has no addresses; nobody needs to hear of it.
            if !listener.closing
                && let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr())
            {
                let handle = stream.into_raw_fd() as u64;
                events.push(Event::Accepted(listener.token, Socket { handle, peer, local }));
            }
        }
        if completion.more() {
            return;
        }
        listener.armed = false;
        if listener.closing {
            self.listeners.remove(index);
        } else if [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS].contains(&-result) {
            listener.paused = Some(now + PAUSE);
        } else {
            self.arm(ring, index);
        }
    }

    /// Accepts again where the pause is over; tells when the next one will be.
    pub(super) fn resume(&mut self, ring: &mut Ring, now: impl Fn() -> Nanos) -> Option<Nanos> {
        let mut next = None;
        let paused: Vec<(u32, Nanos)> = self
            .listeners
            .indexes()
            .filter_map(|index| Some((index, self.listeners.get(index)?.paused?)))
            .collect();
        for (index, until) in paused {
            if until <= now() {
                self.arm(ring, index);
            } else {
                next = Some(next.map_or(until, |at: Nanos| at.min(until)));
            }
        }
        next
    }
}

/// Closes a connection that was accepted when nobody wants one any more.
pub(super) fn close_accepted(completion: Completion) {
    if matches!(completion.owner, Owner::Accept(_)) && completion.result >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        drop(unsafe { TcpStream::from_raw_fd(completion.result) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(socket: &TcpStream, level: libc::c_int, name: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = -1;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: both point to what outlives the call, and `len` is the length of `value`.
        let outcome = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
        };
        assert_eq!(outcome, 0);
        value
    }

    #[test]
    fn peers_of_accepted_connections_are_missed() {
        let (listener, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("every port is free");
        let _peer = TcpStream::connect(address).expect("it listens");
        let (socket, _) = listener.accept().expect("one has connected");
        assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 300);
        assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 60);
        assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 1_800_000);
    }
}
