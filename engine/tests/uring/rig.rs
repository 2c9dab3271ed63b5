//! A backend in a directory of its own, and what tests do with it.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use millstream_engine::buffer::Pool;
use millstream_engine::error::IoError;
use millstream_engine::io::uring::{Peers, Uring, UringOptions};
use millstream_engine::io::{ConnId, DiskDone, Event, FileId, Io, OpenMode, Token, Wait, probe};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

pub const TOKEN: Token = Token(7);
/// How long a test waits for what must happen.
pub const PATIENCE: Nanos = Nanos::from_millis(20_000);

/// A directory that goes with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("millstream-uring-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A backend, and the events that nobody has asked for yet.
pub struct Rig {
    pub io: Uring,
    pub events: VecDeque<Event>,
}

impl Rig {
    pub fn new(root: &Path) -> Rig {
        Rig::of(root, 0, &Arc::new(Peers::new(1)), Pool::new(16 << 20))
    }

    pub fn of(root: &Path, shard: u16, peers: &Arc<Peers>, receive_pool: Pool) -> Rig {
        let direct = probe::probe(root).unwrap().direct;
        let (shard, root, peers) = (ShardId(shard), root.to_owned(), Arc::clone(peers));
        let io = Uring::new(UringOptions { shard, root, peers, direct, receive_pool }).unwrap();
        Rig { io, events: VecDeque::new() }
    }

    pub fn poll(&mut self, wait: Wait) {
        let mut events = Vec::new();
        self.io.poll(wait, &mut events);
        self.events.extend(events);
    }

    /// The next event.
    pub fn next(&mut self) -> Event {
        let deadline = self.io.now() + PATIENCE;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(self.io.now() < deadline, "nothing happened");
            self.poll(Wait::Until(deadline));
        }
    }

    /// The next event, and what has happened besides.
    pub fn some(&mut self) -> Vec<Event> {
        let first = self.next();
        std::iter::once(first).chain(self.events.drain(..)).collect()
    }

    /// Whether nothing happens for a while.
    pub fn is_quiet(&mut self) -> bool {
        let deadline = self.io.now() + Nanos::from_millis(30);
        while self.events.is_empty() && self.io.now() < deadline {
            self.poll(Wait::Until(deadline));
        }
        self.events.is_empty()
    }

    pub fn disk(&mut self) -> Result<DiskDone, IoError> {
        match self.next() {
            Event::Disk(TOKEN, outcome) => outcome,
            other => panic!("a disk operation was answered by {other:?}"),
        }
    }

    pub fn done(&mut self) {
        let outcome = self.disk();
        assert!(matches!(outcome, Ok(DiskDone::Done)), "{outcome:?}");
    }

    pub fn open(&mut self, path: &str, mode: OpenMode) -> (FileId, u64) {
        self.io.open(TOKEN, path, mode);
        match self.disk() {
            Ok(DiskDone::Opened(file, len)) => (file, len),
            other => panic!("open answered {other:?}"),
        }
    }

    pub fn read(&mut self, file: FileId, at: u64, len: usize) -> Vec<u8> {
        let block = Pool::new(64 << 20).block(len).unwrap();
        self.io.read(TOKEN, file, at, block, len);
        match self.disk() {
            Ok(DiskDone::Read(block)) => block.filled().to_vec(),
            other => panic!("read answered {other:?}"),
        }
    }

    /// A directory's names, with a slash behind those of directories.
    pub fn names(&mut self, path: &str) -> Vec<String> {
        self.io.list(TOKEN, path);
        match self.disk() {
            Ok(DiskDone::Names(entries)) => {
                let slash = |is_dir| if is_dir { "/" } else { "" };
                entries.into_iter().map(|entry| format!("{}{}", entry.name, slash(entry.is_dir))).collect()
            }
            other => panic!("list answered {other:?}"),
        }
    }

    pub fn listen(&mut self) -> SocketAddr {
        self.io.listen(TOKEN, "127.0.0.1:0".parse().unwrap());
        match self.next() {
            Event::Listening(TOKEN, Ok(address)) => address,
            other => panic!("listen answered {other:?}"),
        }
    }

    /// A connection and its other end.
    pub fn connect(&mut self, address: SocketAddr) -> (ConnId, TcpStream) {
        let peer = TcpStream::connect(address).unwrap();
        match self.next() {
            Event::Accepted(TOKEN, socket) => {
                assert_eq!((socket.peer, socket.local), (peer.local_addr().unwrap(), address));
                (self.io.adopt(socket), peer)
            }
            other => panic!("a connection was answered by {other:?}"),
        }
    }

    /// Receives `len` bytes on one connection.
    pub fn received(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.next() {
                Event::Received(from, slice) if from == conn => bytes.extend_from_slice(&slice),
                other => panic!("bytes were expected, not {other:?}"),
            }
        }
        assert_eq!(bytes.len(), len);
        bytes
    }
}

/// Bytes of which no short piece equals the next.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i) as u8).collect()
}
