//! What a start-up check finds out about the machine, before anything is opened: every refusal says what was refused
//! and what to do about it.

#![allow(clippy::disallowed_methods, reason = "looks at the machine before there is an `Io`")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use io_uring::{IoUring, opcode, register};

use crate::buffer::Pool;
use crate::error::{Fatal, IoError};
use crate::limits::BLOCK_BYTES;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The data directory's file system takes O_DIRECT.
    pub direct: bool,
    /// What an operator should know: the kernel's version, and what is done without.
    pub notes: Vec<String>,
}

/// What the backend cannot do without, by the names of io_uring's documentation. `SEND_ZC` is not used: it came with
/// Linux 6.0, as multishot receive did, which cannot be asked for by itself.
const REQUIRED: [(&str, u8); 13] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("RENAMEAT", opcode::RenameAt::CODE),
    ("UNLINKAT", opcode::UnlinkAt::CODE),
    ("MKDIRAT", opcode::MkDirAt::CODE),
    ("ACCEPT", opcode::AcceptMulti::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("MSG_RING", opcode::MsgRingData::CODE),
    ("SEND_ZC", opcode::SendZc::CODE),
];

/// Checks the kernel and the data directory, which is made if it is not there. [`Fatal::Refused`] says what is missing
/// and what to do; what can be done without is in the notes.
pub fn probe(root: &Path) -> Result<Probe, Fatal> {
    let mut notes = vec![format!("Linux {}", kernel())];
    let ring = IoUring::new(8).map_err(|error| refusal("setting up a ring (io_uring_setup)", &error))?;
    check_operations(&ring)?;
    fs::create_dir_all(root).map_err(|error| Fatal::Io {
        doing: "make the data directory",
        file: root.display().to_string(),
        error: io_error(&error),
    })?;
    let direct = takes_direct(root)?;
    if !direct {
        notes.push(format!(
            "the file system of {} refuses O_DIRECT: writing through the page cache instead, which is as safe but slower. \
             A data directory on ext4 or XFS avoids it",
            root.display()
        ));
    }
    Ok(Probe { direct, notes })
}

fn check_operations(ring: &IoUring) -> Result<(), Fatal> {
    let mut known = register::Probe::new();
    ring.submitter()
        .register_probe(&mut known)
        .map_err(|error| refusal("asking for the ring's operations (IORING_REGISTER_PROBE)", &error))?;
    let missing: Vec<&str> =
        REQUIRED.iter().filter(|(_, code)| !known.is_supported(*code)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fatal::Refused(format!(
        "io_uring of Linux {} lacks {}: a kernel of version 6.0 or newer is needed",
        kernel(),
        missing.join(", ")
    )))
}

/// Whether a ring knows an operation.
pub(super) fn supports(ring: &IoUring, code: u8) -> bool {
    let mut known = register::Probe::new();
    ring.submitter().register_probe(&mut known).is_ok() && known.is_supported(code)
}

/// Says why the kernel refused `what`, and what to do.
pub(super) fn refusal(what: &str, error: &io::Error) -> Fatal {
    let circumstances = Circumstances {
        kernel: kernel(),
        disabled: read_line("/proc/sys/kernel/io_uring_disabled").and_then(|text| text.parse().ok()),
        filtered: read_line("/proc/self/status").is_some_and(|text| is_filtered(&text)),
        memlock_bytes: read_line("/proc/self/limits")
            .and_then(|text| memlock_limit(&text))
            .unwrap_or(u64::MAX),
    };
    Fatal::Refused(explain(what, error, &circumstances))
}

/// What an errno must be read against.
struct Circumstances {
    kernel: String,
    /// The sysctl `kernel.io_uring_disabled`, where it exists (Linux 6.6).
    disabled: Option<u32>,
    /// A seccomp filter stands between us and the kernel.
    filtered: bool,
    memlock_bytes: u64,
}

fn explain(what: &str, error: &io::Error, found: &Circumstances) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::ENOSYS) if !found.filtered => format!(
            "Linux {} was built without io_uring, or is older than it. Use a kernel of version 6.0 or newer with CONFIG_IO_URING",
            found.kernel
        ),
        Some(libc::EPERM | libc::EACCES) if found.disabled == Some(2) => {
            "the sysctl kernel.io_uring_disabled is 2, which turns io_uring off. Set it to 0: sysctl -w kernel.io_uring_disabled=0"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES) if found.disabled == Some(1) => {
            "the sysctl kernel.io_uring_disabled is 1, which leaves io_uring to one group. Set it to 0, or let the \
             broker's user join the group that kernel.io_uring_group names"
                .to_owned()
        }
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => format!(
            "{}. Allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile \
             (Docker: --security-opt seccomp=<profile>), or in systemd's SystemCallFilter",
            if found.filtered { "a seccomp filter blocks it" } else { "a security policy blocks it" }
        ),
        Some(libc::ENOMEM) => format!(
            "no memory may be locked for it; the limit is {} KiB, and a shard needs 256. Allow 8 MiB: ulimit -l 8192, systemd's \
             LimitMEMLOCK=8M, Docker's --ulimit memlock=8388608",
            found.memlock_bytes >> 10
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            "no file descriptors are left. Raise the limit: ulimit -n 65536, or systemd's LimitNOFILE=65536".to_owned()
        }
        Some(libc::EINVAL) => {
            format!("Linux {} does not know it. Use a kernel of version 6.0 or newer", found.kernel)
        }
        _ => "this was not expected; the kernel's log may say more".to_owned(),
    };
    format!("the kernel refuses {what}: {error}: {cause}")
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether a process's status speaks of a seccomp filter.
fn is_filtered(status: &str) -> bool {
    status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]))
}

fn kernel() -> String {
    read_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "of unknown version".to_owned())
}

/// The soft limit of lockable memory in a process's limits; `None` if there is none.
fn memlock_limit(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next()?.parse().ok())
}

fn io_error(error: &io::Error) -> IoError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => IoError::NoSpace,
        errno => IoError::Os(errno.unwrap_or(libc::EIO)),
    }
}

/// Tries O_DIRECT in the data directory, with a write: some file systems open and then refuse.
fn takes_direct(root: &Path) -> Result<bool, Fatal> {
    const NAME: &str = ".probe";
    let path = root.join(NAME);
    let failed =
        |doing| move |error: io::Error| Fatal::Io { doing, file: NAME.to_owned(), error: io_error(&error) };
    // Made through the page cache first, so that a directory that cannot be written is not taken for one without
    // O_DIRECT.
    File::create(&path).map_err(failed("make a file in the data directory:"))?;
    let tried = write_directly(&path);
    fs::remove_file(&path).map_err(failed("remove a file from the data directory:"))?;
    match tried {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(failed("write a file in the data directory:")(error)),
    }
}

fn write_directly(path: &Path) -> io::Result<()> {
    let mut block = Pool::new(BLOCK_BYTES).block(BLOCK_BYTES).expect("an empty pool has a block");
    block.push_zeros(BLOCK_BYTES);
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    file.write_all_at(block.filled(), 0)
}

/// The machine's memory in bytes, or what this process's control group leaves of it; 4 GiB if nobody says.
pub fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.unwrap_or(4 << 30).min(group.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, disabled: Option<u32>, filtered: bool) -> String {
        let found = Circumstances { kernel: "6.18".to_owned(), disabled, filtered, memlock_bytes: 65536 };
        explain("setting up a ring", &io::Error::from_raw_os_error(errno), &found)
    }

    #[test]
    fn a_refusal_names_what_to_do_about_it() {
        for (text, remedy) in [
            (explained(libc::ENOSYS, None, false), "CONFIG_IO_URING"),
            (explained(libc::ENOSYS, None, true), "seccomp profile"),
            (explained(libc::EPERM, Some(2), true), "kernel.io_uring_disabled=0"),
            (explained(libc::EPERM, Some(1), false), "kernel.io_uring_group"),
            (explained(libc::EPERM, Some(0), true), "seccomp profile"),
            (explained(libc::EACCES, None, false), "a security policy"),
            (explained(libc::ENOMEM, None, false), "limit is 64 KiB"),
            (explained(libc::EMFILE, None, false), "ulimit -n"),
            (explained(libc::EINVAL, None, false), "6.0 or newer"),
        ] {
            assert!(text.starts_with("the kernel refuses setting up a ring"), "{text}");
            assert!(text.contains(remedy), "{remedy:?} is missing in {text:?}");
        }
    }

    #[test]
    fn a_seccomp_filter_is_seen_in_a_process_status() {
        assert!(is_filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1"));
        assert!(!is_filtered("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t2"));
    }

    #[test]
    fn the_limit_of_lockable_memory_is_read_from_the_process_limits() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max locked memory         65536                8388608              bytes\n";
        assert_eq!(memlock_limit(limits), Some(65536));
        assert_eq!(
            memlock_limit("Max locked memory         unlimited            unlimited            bytes"),
            None
        );
    }
}
