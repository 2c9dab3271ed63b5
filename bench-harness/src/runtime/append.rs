//! Durable appends without the engine: with glommio's files, and with calls that wait.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use glommio::io::DmaFile;
use glommio::{LocalExecutorBuilder, Placement};

use crate::engine::case::CPU_PER_OPERATION;
use crate::limits::pinned;
use crate::measure::{Case, Outcome, Problem, histogram};
use crate::raw::{self, Clock, CpuTimer, Memory};

/// The file: written before, and started over when it is full.
const FILE_BYTES: u64 = 64 << 20;
const FILL_BYTES: usize = 1 << 20;

/// Appends by glommio: a write past the page cache, then a flush.
pub struct GlommioAppend {
    /// Where.
    pub dir: PathBuf,
    /// Bytes of an append.
    pub bytes: usize,
}

impl Case for GlommioAppend {
    fn name(&self) -> String {
        "durable append 4 KiB, glommio".to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let path = self.dir.join(format!("glommio-{}", std::process::id()));
        let (bytes, file) = (self.bytes, path.clone());
        let cpu = *raw::cpus().first().ok_or("no processor is allowed")?;
        let measured = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .spawn(move || async move {
                let file = DmaFile::create(file).await.map_err(|error| error.to_string())?;
                let appended = appends(&file, bytes, span).await;
                file.close().await.map_err(|error| error.to_string())?;
                appended
            })
            .map_err(|error| error.to_string())?
            .join();
        std::fs::remove_file(path)?;
        measured.map_err(|error| error.to_string())?
    }
}

async fn appends(file: &DmaFile, bytes: usize, span: Duration) -> Result<Outcome, Problem> {
    let buffer = |len: usize| {
        let mut buffer = file.alloc_dma_buffer(len);
        buffer.as_bytes_mut().fill(7);
        buffer
    };
    for at in (0..FILE_BYTES).step_by(FILL_BYTES) {
        file.write_at(buffer(FILL_BYTES), at).await.map_err(|error| error.to_string())?;
    }
    file.fdatasync().await.map_err(|error| error.to_string())?;
    let mut latency = histogram();
    let cpu = CpuTimer::start(Clock::Process);
    let started = Instant::now();
    let (mut before, mut at) = (started, 0);
    while before - started < span {
        file.write_at(buffer(bytes), at).await.map_err(|error| error.to_string())?;
        file.fdatasync().await.map_err(|error| error.to_string())?;
        at = (at + bytes as u64) % FILE_BYTES;
        let now = Instant::now();
        latency.saturating_record((now - before).as_nanos() as u64);
        before = now;
    }
    let cpu = cpu.elapsed().as_secs_f64() * 1e6 / latency.len().max(1) as f64;
    Ok(Outcome::default().with_latency(latency).with(CPU_PER_OPERATION, cpu))
}

/// Appends by a thread that waits for each call.
pub struct PlainAppend {
    /// Where.
    pub dir: PathBuf,
    /// Bytes of an append.
    pub bytes: usize,
    /// Past the page cache.
    pub direct: bool,
}

impl Case for PlainAppend {
    fn name(&self) -> String {
        "durable append 4 KiB, pwrite and fdatasync".to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let append = || -> Result<Outcome, Problem> {
            pinned(0)?;
            let file = raw::scratch_file(&self.dir, self.direct)?;
            let zeros = Memory::zeroed(FILL_BYTES)?;
            for at in (0..FILE_BYTES).step_by(FILL_BYTES) {
                file.write_all_at(&zeros, at)?;
            }
            file.sync_data()?;
            let mut latency = histogram();
            let cpu = CpuTimer::start(Clock::Process);
            let started = Instant::now();
            let (mut before, mut at) = (started, 0);
            while before - started < span {
                file.write_all_at(&zeros[..self.bytes], at)?;
                file.sync_data()?;
                at = (at + self.bytes as u64) % FILE_BYTES;
                let now = Instant::now();
                latency.saturating_record((now - before).as_nanos() as u64);
                before = now;
            }
            let cpu = cpu.elapsed().as_secs_f64() * 1e6 / latency.len().max(1) as f64;
            Ok(Outcome::default().with_latency(latency).with(CPU_PER_OPERATION, cpu))
        };
        std::thread::scope(|scope| scope.spawn(append).join()).map_err(|_| "the thread panicked")?
    }
}
