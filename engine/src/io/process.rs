//! What the kernel tells of this process, for an operator. Read from `/proc`; what cannot be read is left out.

use std::fs;

use crate::time::Nanos;

/// The kernel counts a process's time in hundredths of a second for its users, whatever it ticks by itself.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4096;

/// What a process takes of its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Time on a core, over all threads.
    pub cpu: Nanos,
    /// When it was started, in nanoseconds since 1970.
    pub started: Nanos,
    /// How long ago that was.
    pub uptime: Nanos,
    /// Memory that it has, in bytes.
    pub resident_bytes: u64,
    /// Addresses that it has, in bytes.
    pub virtual_bytes: u64,
    /// Files and sockets that are open.
    pub open_files: u64,
    /// How many may be.
    pub open_files_max: u64,
    /// Its threads, the kernel's workers for it included.
    pub threads: u64,
}

/// What this process takes.
pub fn usage() -> Usage {
    let mut usage = Usage::default();
    let ticks = |ticks: u64| Nanos(ticks * (1_000_000_000 / TICKS_PER_SECOND));
    if let Some(stat) = read("self/stat") {
        let field = |number| stat_field(&stat, number).unwrap_or(0);
        usage.cpu = ticks(field(14) + field(15));
        usage.threads = field(20);
        usage.virtual_bytes = field(23);
        usage.resident_bytes = field(24) * PAGE_BYTES;
        let up = read("uptime").and_then(|text| text.split(' ').next()?.replace('.', "").parse().ok());
        usage.uptime = ticks(up.unwrap_or(0_u64).saturating_sub(field(22)));
        let boot = read("stat")
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()));
        usage.started = Nanos(boot.unwrap_or(0_u64) * 1_000_000_000) + ticks(field(22));
    }
    usage.open_files = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    usage.open_files_max = read("self/limits").and_then(|text| open_files_max(&text)).unwrap_or(0);
    usage
}

/// The time on a core of every thread of this process that has a name which begins with `prefix`: what follows it in
/// the name, and the time.
pub fn thread_times(prefix: &str) -> Vec<(String, Nanos)> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let time = |thread: fs::DirEntry| {
        let id = thread.file_name();
        let id = id.to_str()?;
        let name = read(&format!("self/task/{id}/comm"))?.trim_end().strip_prefix(prefix)?.to_owned();
        let nanos = read(&format!("self/task/{id}/schedstat"))?.split(' ').next()?.parse().ok()?;
        Some((name, Nanos(nanos)))
    };
    threads.flatten().filter_map(time).collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{path}")).ok()
}

/// A field of a `stat` file, counted from 1 as proc(5) does. The second one is a name that may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn open_files_max(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 0 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_files > 0 && usage.open_files <= usage.open_files_max);
        assert!(usage.threads > 0 && usage.started > Nanos::ZERO);
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let find = || thread_times("find-me-").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let found = std::thread::Builder::new().name("find-me-7".to_owned()).spawn(find).unwrap().join();
        assert_eq!(found.unwrap(), ["7"]);
    }

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "12 (a) b (c) S 1 2 3";
        assert_eq!((stat_field(stat, 4), stat_field(stat, 6), stat_field(stat, 7)), (Some(1), Some(3), None));
        assert_eq!(stat_field(stat, 0), None);
    }
}
