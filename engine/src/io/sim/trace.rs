//! What happened lately, as text, and a digest of everything that ever did.

use std::collections::VecDeque;
use std::fmt;

use crate::checksum::crc32c_append;
use crate::time::Nanos;

/// Lines kept.
const LINES_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Trace {
    lines: VecDeque<String>,
    digest: u32,
}

impl Trace {
    pub(super) fn note(&mut self, now: Nanos, what: fmt::Arguments<'_>) {
        let line = format!("{:>10} us  {what}", now.0 / 1_000);
        self.digest = crc32c_append(self.digest, line.as_bytes());
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    pub(super) fn digest(&self) -> u32 {
        self.digest
    }
}
