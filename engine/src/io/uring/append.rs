//! The durable append: a write linked to a flush, and what each pair of answers means.

use super::errors::{self, is_retry};
use crate::buffer::Slice;
use crate::error::IoError;
use crate::io::{FileId, Token};
use crate::limits::BLOCK_BYTES;

/// Which of the two operations answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    Write,
    Flush,
}

/// What to do after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Wait for the other answer.
    Wait,
    /// Submit [`Append::rest`] and, linked to it, a flush.
    WriteAndFlush,
    /// Submit a flush alone.
    Flush,
    /// Written and flushed, or failed.
    Over(Result<(), IoError>),
}

/// A durable append under way. The two answers of a round may come in either order; nothing is decided on one of them,
/// except that a whole write is announced as soon as it is known.
pub(super) struct Append {
    pub token: Token,
    pub file: FileId,
    at: u64,
    bytes: Slice,
    /// Bytes known to be written.
    written: usize,
    /// The answers of this round.
    write: Option<i32>,
    flush: Option<i32>,
}

impl Append {
    pub(super) fn new(token: Token, file: FileId, at: u64, bytes: Slice) -> Append {
        assert!(!bytes.is_empty(), "an append of nothing");
        assert!(
            at.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES),
            "a durable append is made of whole blocks"
        );
        Append { token, file, at, bytes, written: 0, write: None, flush: None }
    }

    /// Where to write what, still.
    pub(super) fn rest(&self) -> (u64, &[u8]) {
        let rest = self.bytes.get(self.written..).expect("no more is written than there was");
        (self.at + self.written as u64, rest)
    }

    /// Takes an answer. The flag is true when the write has just become whole.
    pub(super) fn answered(&mut self, half: Half, result: i32) -> (bool, Next) {
        match half {
            Half::Write => self.write = Some(result),
            Half::Flush => self.flush = Some(result),
        }
        let whole = half == Half::Write && result as usize == self.rest().1.len() && result > 0;
        if whole {
            self.written = self.bytes.len();
        }
        (whole, self.decide())
    }

    fn decide(&mut self) -> Next {
        // A round that flushes alone has nothing left to write.
        let (Some(write), Some(flush)) = (self.write.or(self.is_written().then_some(0)), self.flush) else {
            return Next::Wait;
        };
        self.write = None;
        self.flush = None;
        let must_flush_again = is_retry(flush) || flush == -libc::ECANCELED;
        if flush < 0 && !must_flush_again {
            return Next::Over(Err(errors::of(flush)));
        }
        if self.is_written() {
            return if must_flush_again { Next::Flush } else { Next::Over(Ok(())) };
        }
        // The link was severed. A flush that ran all the same did not cover the whole: there is another.
        if is_retry(write) {
            return Next::WriteAndFlush;
        }
        if write < 0 {
            return Next::Over(Err(errors::of(write)));
        }
        // O_DIRECT goes on at a block's start.
        let blocks = write as usize / BLOCK_BYTES * BLOCK_BYTES;
        if blocks == 0 {
            return Next::Over(Err(IoError::Os(libc::EIO)));
        }
        self.written += blocks;
        Next::WriteAndFlush
    }

    fn is_written(&self) -> bool {
        self.written == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Half::{Flush, Write};
    use super::*;

    const CANCELLED: i32 = -libc::ECANCELED;

    fn append(blocks: usize) -> Append {
        Append::new(Token(1), FileId(1), 8192, Slice::from(vec![7; blocks * BLOCK_BYTES]))
    }

    #[test]
    fn a_whole_write_is_announced_before_its_flush() {
        let mut append = append(2);
        assert_eq!(append.answered(Write, 8192), (true, Next::Wait));
        assert_eq!(append.answered(Flush, 0), (false, Next::Over(Ok(()))));
    }

    #[test]
    fn answers_may_come_in_either_order() {
        let mut append = append(2);
        assert_eq!(append.answered(Flush, 0), (false, Next::Wait));
        assert_eq!(append.answered(Write, 8192), (true, Next::Over(Ok(()))));
    }

    #[test]
    fn a_short_write_goes_on_at_a_block_and_announces_nothing() {
        for order in [[(Write, 5000), (Flush, CANCELLED)], [(Flush, CANCELLED), (Write, 5000)]] {
            let mut append = append(3);
            assert_eq!(append.answered(order[0].0, order[0].1), (false, Next::Wait));
            assert_eq!(append.answered(order[1].0, order[1].1), (false, Next::WriteAndFlush));
            assert_eq!((append.rest().0, append.rest().1.len()), (8192 + 4096, 8192));
            assert_eq!(append.answered(Write, 8192), (true, Next::Wait));
            assert_eq!(append.answered(Flush, 0), (false, Next::Over(Ok(()))));
        }
    }

    #[test]
    fn a_flush_that_ran_over_a_short_write_counts_for_nothing() {
        let mut append = append(2);
        append.answered(Write, 4096);
        assert_eq!(append.answered(Flush, 0), (false, Next::WriteAndFlush));
    }

    #[test]
    fn interruptions_are_retried() {
        let mut append = append(1);
        append.answered(Write, -libc::EINTR);
        assert_eq!(append.answered(Flush, CANCELLED), (false, Next::WriteAndFlush));
        append.answered(Write, 4096);
        assert_eq!(append.answered(Flush, -libc::EAGAIN), (false, Next::Flush));
        assert_eq!(append.answered(Flush, CANCELLED), (false, Next::Flush));
        assert_eq!(append.answered(Flush, 0), (false, Next::Over(Ok(()))));
    }

    #[test]
    fn a_flush_that_ran_and_failed_is_an_error() {
        let mut whole = append(1);
        assert_eq!(whole.answered(Write, 4096), (true, Next::Wait));
        assert_eq!(whole.answered(Flush, -libc::EIO), (false, Next::Over(Err(IoError::Os(libc::EIO)))));
        let mut short = append(2);
        short.answered(Write, 4096);
        assert_eq!(short.answered(Flush, -libc::EIO), (false, Next::Over(Err(IoError::Os(libc::EIO)))));
    }

    #[test]
    fn a_failed_write_is_an_error_once_the_flush_has_answered() {
        let mut append = append(1);
        assert_eq!(append.answered(Write, -libc::ENOSPC), (false, Next::Wait));
        assert_eq!(append.answered(Flush, CANCELLED), (false, Next::Over(Err(IoError::NoSpace))));
    }

    #[test]
    fn a_write_that_makes_no_progress_is_an_error() {
        let mut append = append(2);
        append.answered(Write, 100);
        assert_eq!(append.answered(Flush, CANCELLED), (false, Next::Over(Err(IoError::Os(libc::EIO)))));
    }
}
