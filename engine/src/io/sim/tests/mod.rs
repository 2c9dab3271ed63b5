//! The model's own tests. What several of them share stands here.

mod crash;
mod faults;
mod network;
mod time;

use super::{Crash, SimIo, Survivors, World};
use crate::buffer::{Pool, Slice};
use crate::error::IoError;
use crate::io::fault::{Faults, Injection, OpKind, Outcome};
use crate::io::{DiskDone, Event, FileId, Io, OpenMode, Token, Wait};
use crate::limits::BLOCK_BYTES;
use crate::types::ShardId;

const EIO: IoError = IoError::Os(libc::EIO);

fn world() -> World {
    World::new(1, Faults::default())
}

fn io(world: &World) -> SimIo {
    world.io(ShardId(0))
}

fn pool() -> Pool {
    Pool::new(64 << 20)
}

/// Whole blocks, each filled with the byte given for it.
fn blocks(content: &[u8]) -> Slice {
    let mut block = pool().block(content.len() * BLOCK_BYTES).unwrap();
    for byte in content {
        block.push(&[*byte; BLOCK_BYTES]);
    }
    block.freeze()
}

/// The first byte of each block of a file.
fn fills(world: &World, path: &str) -> Option<Vec<u8>> {
    world.read_file(path).map(|bytes| bytes.chunks(BLOCK_BYTES).map(|block| block[0]).collect())
}

/// Polls until an operation on the disk is over.
fn outcome(io: &mut SimIo, token: Token) -> Result<DiskDone, IoError> {
    let mut events = Vec::new();
    loop {
        io.poll(Wait::Forever, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Disk(of, outcome) if of == token => return outcome,
                _ => {}
            }
        }
    }
}

fn open(io: &mut SimIo, path: &str) -> FileId {
    io.open(Token(0), path, OpenMode::Direct);
    match outcome(io, Token(0)) {
        Ok(DiskDone::Opened(file, _)) => file,
        other => panic!("open answered {other:?}"),
    }
}

/// An open file `f` of as many durable blocks as are given here, durable in name, too.
fn durable_file(world: &World, content: &[u8]) -> (SimIo, FileId) {
    world.write_file("f", &blocks(content));
    let mut io = io(world);
    let file = open(&mut io, "f");
    (io, file)
}

fn write(io: &mut SimIo, file: FileId, block: u64, content: &[u8]) -> Result<DiskDone, IoError> {
    io.write(Token(1), file, block * BLOCK_BYTES as u64, blocks(content));
    outcome(io, Token(1))
}

fn flush(io: &mut SimIo, file: FileId) -> Result<DiskDone, IoError> {
    io.flush(Token(2), file);
    outcome(io, Token(2))
}

fn inject(world: &World, op: OpKind, outcome: Outcome) {
    world.inject(Injection { op, path: "f".to_owned(), skip: 0, outcome });
}

fn lose_power(world: &World) {
    world.crash(Crash::Power(Survivors::None));
}
