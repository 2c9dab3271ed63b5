//! Loopback: what a connection to the same machine can do, one thread on either side, each on its own processor.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use super::pinned;
use crate::measure::{Case, Outcome, Problem, cpu_ms_per_gb, histogram, mb_per_second};
use crate::raw::{self, Clock, CpuTimer, Map, Memory};

/// Bytes of a request and of its answer.
const PING_BYTES: usize = 128;
/// Bytes that one send hands over: a chunk of the engine's reads.
const SEND_BYTES: usize = millstream_engine::limits::READ_CHUNK_BYTES;
/// Bytes that are sent over and over: more than the processor's caches hold.
const SOURCE_BYTES: usize = 256 << 20;

/// Runs `serve` at one end of a connection on the second processor and `drive` at the other on the first.
fn connected(
    serve: impl FnOnce(TcpStream) -> Result<(), Problem> + Send,
    drive: impl FnOnce(TcpStream) -> Result<Outcome, Problem> + Send,
) -> Result<Outcome, Problem> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (peer, _) = listener.accept()?;
    peer.set_nodelay(true)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(move || pinned(1).and_then(|()| serve(peer)));
        let driver = scope.spawn(move || pinned(0).and_then(|()| drive(stream)));
        let outcome = driver.join().map_err(|_| "the driving thread panicked")?;
        server.join().map_err(|_| "the serving thread panicked")??;
        outcome
    })
}

/// A small request, a small answer, one at a time.
pub struct RoundTrip;

impl Case for RoundTrip {
    fn name(&self) -> String {
        format!("loopback round trip, {PING_BYTES} B")
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let echo = |mut peer: TcpStream| -> Result<(), Problem> {
            let mut bytes = [0; PING_BYTES];
            loop {
                match peer.read_exact(&mut bytes) {
                    Ok(()) => peer.write_all(&bytes)?,
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        connected(echo, |mut stream| {
            let mut latency = histogram();
            let mut bytes = [0; PING_BYTES];
            let started = Instant::now();
            let mut before = started;
            while before - started < span {
                stream.write_all(&bytes)?;
                stream.read_exact(&mut bytes)?;
                let after = Instant::now();
                latency.saturating_record((after - before).as_nanos() as u64);
                before = after;
            }
            Ok(Outcome::default().with_latency(latency))
        })
    }
}

/// Plain sends in chunks of [`SEND_BYTES`], as fast as the other side takes them.
pub struct BareSend<S> {
    what: &'static str,
    source: S,
}

/// Sends from the process's own memory.
pub fn from_memory() -> Result<BareSend<Memory>, Problem> {
    let mut source = Memory::zeroed(SOURCE_BYTES)?;
    source.fill(0x5a);
    Ok(BareSend { what: "memory", source })
}

/// Sends from a file that is mapped and in the page cache.
pub fn from_mapped_file(dir: &Path) -> Result<BareSend<Map>, Problem> {
    let mut file = raw::scratch_file(dir, false)?;
    let chunk = vec![0x5a; SEND_BYTES];
    for _ in 0..SOURCE_BYTES / SEND_BYTES {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(BareSend { what: "a mapped file", source: Map::of(&file, SOURCE_BYTES)? })
}

impl<S: Deref<Target = [u8]> + Sync> Case for BareSend<S> {
    fn name(&self) -> String {
        format!("loopback bandwidth, bare send of {} from {}", super::size(SEND_BYTES), self.what)
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        connected(sink, |mut stream| {
            let cpu = CpuTimer::start(Clock::Thread);
            let started = Instant::now();
            let mut sent = 0;
            for chunk in self.source.chunks_exact(SEND_BYTES).cycle() {
                stream.write_all(chunk)?;
                sent += chunk.len() as u64;
                if started.elapsed() >= span {
                    break;
                }
            }
            let took = started.elapsed();
            let cpu = cpu.elapsed();
            Ok(Outcome::default()
                .with("MB/s", mb_per_second(sent, took))
                .with("CPU ms/GB", cpu_ms_per_gb(cpu, sent)))
        })
    }
}

/// Reads and forgets until the other side closes.
fn sink(mut peer: TcpStream) -> Result<(), Problem> {
    let mut bytes = vec![0; SEND_BYTES];
    while peer.read(&mut bytes)? > 0 {}
    Ok(())
}
