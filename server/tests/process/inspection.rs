//! `millstream log verify` on what a killed broker left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::{BINARY, Broker, TempDir, run, serve};
use crate::kill::{CONFIG, write_and_kill};

fn verify(dir: &TempDir) -> (i32, String, String) {
    run(Command::new(BINARY).args(["log", "verify"]).arg(dir.data()))
}

/// The largest segment below a directory.
fn largest_segment(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let segments = entries.filter_map(|path| {
        if path.is_dir() {
            return largest_segment(&path);
        }
        path.extension().is_some_and(|ending| ending == "log").then_some(path)
    });
    segments.max_by_key(|path| fs::metadata(path).unwrap().len())
}

#[test]
fn a_killed_broker_leaves_sound_files_and_a_rotten_byte_is_found() {
    let dir = TempDir::new();
    let config = dir.config(CONFIG);
    let start = |shards| Broker::start(serve(&dir).arg("--config").arg(&config).args(["--shards", shards]));
    write_and_kill(start("2"), 0);
    let (code, stdout, stderr) = verify(&dir);
    assert_eq!(code, 0, "{stdout}{stderr}");

    // Another number of shards moves everything from the journals to the segments.
    assert_eq!(start("1").terminate().code(), Some(0));
    let (code, stdout, stderr) = verify(&dir);
    assert_eq!(code, 0, "{stdout}{stderr}");

    let segment = largest_segment(&dir.data().join("logs")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // In the first batch's values, which its CRC covers.
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, stdout, stderr) = verify(&dir);
    assert_eq!(code, 1, "{stdout}{stderr}");
    let name = segment.strip_prefix(dir.data()).unwrap().to_str().unwrap();
    let damaged: Vec<_> = stdout.lines().filter(|line| !line.starts_with("ok")).collect();
    assert!(damaged.iter().any(|line| line.contains(name) && line.contains("byte")), "{damaged:?}");
}
