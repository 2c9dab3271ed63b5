//! What a run keeps on the disk while it lasts: directories whose names hold its process, `compare-PID`, `node-PID-2`. Each is
//! removed at its end; of a run that was killed without a word the next one removes what is left.

use std::fs;
use std::path::Path;

use crate::measure::Problem;

/// What such names begin with.
const NAMES: [&str; 4] = ["append-", "compare-", "echo-", "node-"];

/// Makes the directory that holds them, and removes what runs have left behind that were killed.
pub fn prepare(dir: &Path) -> Result<(), Problem> {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in fs::read_dir(dir)?.flatten() {
        let runs = |process: u32| Path::new("/proc").join(process.to_string()).exists();
        if entry.file_name().to_str().and_then(process).is_some_and(|process| !runs(process)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The process in a directory's name.
fn process(name: &str) -> Option<u32> {
    let rest = NAMES.iter().find_map(|begin| name.strip_prefix(begin))?;
    rest.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_behind_is_removed_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("millbench-{}-clean", std::process::id()));
        let own = format!("compare-{}", std::process::id());
        let names =
            ["compare-999999999", "node-999999999-2", "echo-999999999-glommio", "compare-x", &own, "other"];
        for name in names {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        prepare(&dir).unwrap();
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [own.as_str(), "compare-x", "other"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let why = prepare(Path::new("/proc/none")).unwrap_err().to_string();
        assert!(why.contains("/proc/none"), "{why}");
    }
}
