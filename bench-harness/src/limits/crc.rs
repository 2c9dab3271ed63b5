//! Checksums: the engine's CRC32C over bytes that the processor has at hand.

use std::hint::black_box;
use std::time::{Duration, Instant};

use millstream_engine::checksum::crc32c;

use crate::measure::{Case, Outcome, Problem, mb_per_second};

/// CRC32C over pieces of this many bytes.
pub struct Crc(pub usize);

impl Case for Crc {
    fn name(&self) -> String {
        format!("CRC32C, {}", super::size(self.0))
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let bytes = vec![0x5a; self.0];
        let started = Instant::now();
        let mut done = 0;
        while started.elapsed() < span {
            // The clock is looked at once per MiB: it would cost as much as the checksum of a small piece.
            for _ in 0..(1 << 20) / self.0 {
                black_box(crc32c(black_box(&bytes)));
                done += self.0 as u64;
            }
        }
        Ok(Outcome::default().with("MB/s", mb_per_second(done, started.elapsed())))
    }
}
