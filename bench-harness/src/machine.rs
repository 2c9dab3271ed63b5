//! What a run was made on: without it, a figure means nothing.

use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::footprint::Processes;
use crate::measure::Problem;
use crate::raw;

/// The machine, as far as figures depend on it. What cannot be found out is empty.
#[derive(Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The type of the file system that was measured.
    pub file_system: String,
    /// Its device.
    pub device: String,
}

impl Machine {
    /// This machine, and the file system that holds `dir`.
    pub fn of(dir: &Path) -> Machine {
        let (file_system, device) = mount_of(dir).unwrap_or_default();
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: raw::cpus().len(),
            memory_bytes: memory_kib("MemTotal").unwrap_or_default() * 1024,
            kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system,
            device,
        }
    }
}

/// A figure of `/proc/meminfo`, in KiB.
pub fn memory_kib(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)?.split_whitespace().next()?.parse().ok()
}

/// A process's resident memory, in KiB.
pub fn rss_kib(process: u32) -> Result<f64, Problem> {
    let rss = field(&format!("/proc/{process}/status"), "VmRSS");
    let kib = rss.as_deref().and_then(|rss| rss.split_whitespace().next()).ok_or("the child has no VmRSS")?;
    Ok(kib.parse()?)
}

/// A process's open descriptors.
pub fn descriptors(process: u32) -> Result<f64, Problem> {
    Ok(read_dir(format!("/proc/{process}/fd"))?.count() as f64)
}

/// A field of a `/proc` file of lines `name: value`.
pub fn field(file: &str, name: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Processor time that the whole machine has spent running, the kernel's threads included: to the nanosecond where the
/// root control group tells it, in ticks where not.
pub fn run_time() -> Result<Duration, Problem> {
    if let Ok(usage) = read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage") {
        return Ok(Duration::from_nanos(usage.trim().parse()?));
    }
    let ticks = busy_ticks(&read_to_string("/proc/stat")?).ok_or("/proc/stat is not understood")?;
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// The fields of the first line of `/proc/stat`, without `idle`, `iowait` and what guests and other guests took.
fn busy_ticks(stat: &str) -> Option<f64> {
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _, _, irq, softirq, ..] = fields[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

/// Type and device of the file system that holds `dir`.
fn mount_of(dir: &Path) -> Option<(String, String)> {
    let dir = dir.canonicalize().ok()?;
    mount_in(&read_to_string("/proc/self/mountinfo").ok()?, &dir)
}

/// The same, from the text of a `mountinfo`: the last of the deepest mounts above `dir` counts.
fn mount_in(mountinfo: &str, dir: &Path) -> Option<(String, String)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            let mut after = after.split(' ');
            let (kind, device) = (after.next()?, after.next()?);
            dir.starts_with(point).then(|| (point.len(), kind.to_owned(), device.to_owned()))
        })
        .max_by_key(|(depth, ..)| *depth)
        .map(|(_, kind, device)| (kind, device))
}

/// The commit that the working tree is at; ends in `-dirty` if something other than the results differs from it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    match git(&["status", "--porcelain", "--", ":/", ":!/results"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "-dirty",
    }
}

/// What the harness was told, as it can be told on another machine.
pub fn arguments() -> String {
    placeless(&std::env::args().skip(1).collect::<Vec<_>>().join(" "))
}

/// A text in which absolute paths are left with their last name: the others are true on this machine only.
pub fn placeless(text: &str) -> String {
    let begins = |before: Option<char>| before.is_none_or(|c| c.is_whitespace() || "=,'\"(`".contains(c));
    let ends = |c: char| c.is_whitespace() || ":,'\")`".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(ends).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        if first == '/' && begins(out.chars().next_back()) && word.len() > 1 {
            let name = word.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            out += ".../";
            out += name;
            rest = after;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// How much of the machine other processes took while something was measured. Figures from a busy machine are worth
/// little: the run says so.
pub struct Others {
    /// Processes that are measured, and so are no others.
    measured: Processes,
    started: Instant,
    ticks: f64,
}

/// Ticks per second in `/proc`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Others {
    /// Starts to look.
    pub fn start() -> Others {
        Others::besides(&Processes::default())
    }

    /// The same, besides processes that are measured and are not this one's children.
    pub fn besides(measured: &Processes) -> Others {
        let ticks = others_ticks(measured).unwrap_or_default();
        Others { measured: measured.clone(), started: Instant::now(), ticks }
    }

    /// The share of all processors' time that other processes spent outside the kernel since then.
    pub fn share(&self) -> f64 {
        let ticks = others_ticks(&self.measured).unwrap_or_default() - self.ticks;
        let seconds = self.started.elapsed().as_secs_f64() * raw::cpus().len() as f64;
        (ticks / TICKS_PER_SECOND / seconds).clamp(0.0, 1.0)
    }
}

/// User time of all processes but this one, its children, and those that are measured.
fn others_ticks(measured: &Processes) -> Option<f64> {
    let all = read_to_string("/proc/stat").ok()?;
    let of = |stat: &str| own_user_ticks(&read_to_string(stat).ok()?);
    let measured: f64 =
        measured.ids().iter().filter_map(|process| of(&format!("/proc/{process}/stat"))).sum();
    Some(user_ticks(&all)? - of("/proc/self/stat")? - measured)
}

/// Fields `user` and `nice` of the first line of `/proc/stat`.
fn user_ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.lines().next()?.split_whitespace().skip(1);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

/// Fields `utime` and `cutime`, the 14th and 16th, of `/proc/self/stat`; the second is a name that may hold spaces.
fn own_user_ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.nth(1)?.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_above_a_directory_is_its_file_system() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw shared:1 - xfs /dev/b rw\n";
        let found = |dir| mount_in(mounts, Path::new(dir)).map(|(kind, _)| kind);
        assert_eq!(found("/data/x").as_deref(), Some("xfs"));
        assert_eq!(found("/database").as_deref(), Some("ext4"));
    }

    #[test]
    fn absolute_paths_lose_what_is_true_here_only_and_nothing_else_changes() {
        for (text, left) in [
            ("compare --dir=/data/x/scratch --only a", "compare --dir=.../scratch --only a"),
            ("--results /a/runs.jsonl", "--results .../runs.jsonl"),
            ("/a/b/c: no such file (/d/e)", ".../c: no such file (.../e)"),
            ("queue --uri amqp://guest@localhost:5672/%2f", "queue --uri amqp://guest@localhost:5672/%2f"),
            ("7 records/s / 2, --dir results/scratch", "7 records/s / 2, --dir results/scratch"),
        ] {
            assert_eq!(placeless(text), left);
        }
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 1"), Some(31.0));
        assert_eq!(busy_ticks("cpu  1 2"), None);
        let before = run_time().unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(30) {}
        assert!(run_time().unwrap() > before);
    }

    #[test]
    fn user_time_is_read_past_a_name_with_spaces_and_brackets() {
        let own = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 40 50 2 60 0";
        assert_eq!(own_user_ticks(own), Some(42.0));
        assert_eq!(user_ticks("cpu  100 20 3 4\ncpu0 1 2 3 4"), Some(120.0));
    }
}
