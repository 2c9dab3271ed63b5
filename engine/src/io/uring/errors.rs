//! Errno, as far as the engine tells failures apart.

use crate::error::IoError;

/// The error that a negative result stands for.
pub(super) fn of(result: i32) -> IoError {
    assert!(result < 0, "a result that is no error was taken for one");
    of_errno(-result)
}

pub(super) fn of_errno(errno: i32) -> IoError {
    match errno {
        libc::ENOENT => IoError::NotFound,
        libc::EEXIST => IoError::Exists,
        libc::ENOSPC | libc::EDQUOT => IoError::NoSpace,
        libc::ECANCELED => IoError::Cancelled,
        errno => IoError::Os(errno),
    }
}

/// The same, from the standard library.
pub(super) fn of_std(error: &std::io::Error) -> IoError {
    of_errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Whether the operation did not run, and may be submitted again as it was.
pub(super) fn is_retry(result: i32) -> bool {
    result == -libc::EINTR || result == -libc::EAGAIN
}
