//! Runs every target over its corpus and the golden files of its structure, without libFuzzer.
#![allow(clippy::disallowed_methods, reason = "a test reads the files of its own repository")]

use std::fs;
use std::path::{Path, PathBuf};

use millstream_fuzz::TARGETS;

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under `dir`; none if it does not exist.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the directory is readable").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_holds_on_its_corpus_and_on_the_golden_files() {
    for target in TARGETS {
        let corpus = files(&crate_dir().join("corpus").join(target.name));
        assert!(!corpus.is_empty(), "fuzz/corpus/{} is empty", target.name);
        let golden = files(&crate_dir().join("../tests/golden/format/v1").join(target.name));
        for path in corpus.iter().chain(&golden) {
            let bytes = fs::read(path).expect("the file is readable");
            println!("{} {}", target.name, path.display());
            (target.run)(&bytes);
        }
    }
}

#[test]
fn every_target_has_a_binary_and_a_row_in_the_readme_and_every_binary_a_target() {
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).expect("the manifest is readable");
    let binaries: Vec<_> =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")).collect();
    let expected: Vec<_> = TARGETS.iter().map(|target| format!("{}.rs\"", target.name)).collect();
    assert_eq!(binaries, expected);
    let readme = fs::read_to_string(crate_dir().join("README.md")).expect("the readme is readable");
    for target in TARGETS {
        assert!(readme.contains(&format!("\n| `{}` |", target.name)), "{} has no row", target.name);
        let path = crate_dir().join("targets").join(target.name).with_extension("rs");
        let entry = fs::read_to_string(&path).expect("every target has its file");
        assert!(entry.contains(&format!("millstream_fuzz::{}::run", target.name)), "{}", path.display());
    }
}
