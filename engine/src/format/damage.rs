//! What a decoder says of bytes that it cannot take.

use std::fmt;

/// What is wrong with stored bytes, and where it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The byte, counted from the structure's start.
    pub position: u64,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.what, self.position)
    }
}

impl std::error::Error for Damage {}
