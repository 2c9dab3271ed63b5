//! The rules that keep the house in order. Each looks at a tree and says what it found wrong, one line per place.

use std::collections::BTreeSet;

use crate::source::{code, crate_paths, words};
use crate::tree::Tree;

/// A rule: what is wrong with a tree.
pub type Rule = fn(&Tree) -> Vec<String>;

/// The engine's layers, topmost first. What shares a line may import each other.
const LAYERS: &[&[&str]] = &[
    &["reactor"],
    &["shard"],
    &["inspect"],
    &["journal"],
    &["log"],
    &["queue"],
    &["cache"],
    &["format"],
    &["io"],
    &["buffer"],
    &["types", "limits", "config", "error", "few", "time", "checksum", "metrics", "sync"],
];

/// Where `unsafe` may stand: a file, or whatever begins like this.
const UNSAFE_ALLOWED: &[&str] = &[
    "engine/src/buffer/",
    "engine/src/io/uring",
    "engine/src/io/probe.rs",
    "engine/src/shard/mailbox/ring.rs",
    "bench-harness/src/raw.rs",
    "fuzz/src/alloc.rs",
];

/// The files of the server that may read files: the configuration's.
const SERVER_FILES_ALLOWED: &[&str] = &["server/src/cli.rs", "server/src/config.rs"];

/// Limits that were laid down before the mechanism that they bound. The list is to be empty when those stand.
const LIMITS_AHEAD: &[&str] = &["GROUPS_IN_FLIGHT", "PRODUCERS_PER_SHARD_MAX", "PARTITIONS_PER_TOPIC_MAX"];

/// What the names of crates have in them that speak a protocol, or run what does.
const PROTOCOLS: &[&str] =
    &["kafka", "amq", "rabbit", "lapin", "http", "hyper", "axum", "tokio", "rustls", "millstream"];

/// A file that is longer is more than one mechanism.
const LINES_MAX: usize = 800;

fn layer_rank(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// The engine's imports point down only.
pub fn layers_point_down(tree: &Tree) -> Vec<String> {
    const ROOT: &str = "engine/src/";
    let mut wrong = Vec::new();
    for file in tree.within(ROOT, ".rs").filter(|file| !file.path.ends_with("/lib.rs")) {
        let inner = file.path.strip_prefix(ROOT).expect("the filter says so");
        let own = inner.split('/').next().expect("a path has a first part").trim_end_matches(".rs");
        let Some(rank) = layer_rank(own) else {
            wrong.push(format!("{}: `{own}` is no layer; give it a place in LAYERS", file.path));
            continue;
        };
        let code = code(&file.text);
        if code.contains("super::super::") {
            wrong.push(format!("{}: name a layer by `crate::`, so that this test sees it", file.path));
        }
        for (line, layer) in crate_paths(&code) {
            match layer_rank(layer) {
                Some(other) if layer == own || other > rank => {}
                Some(other) if other == rank && rank == LAYERS.len() - 1 => {}
                Some(_) => {
                    wrong.push(format!("{}:{line}: {own} imports {layer}, which lies above it", file.path));
                }
                None => wrong.push(format!("{}:{line}: `crate::{layer}` is no layer", file.path)),
            }
        }
    }
    wrong
}

/// `unsafe` stands in few files.
pub fn unsafe_is_fenced_in(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.within("", ".rs") {
        if UNSAFE_ALLOWED.iter().any(|allowed| file.path.starts_with(allowed)) {
            continue;
        }
        let code = code(&file.text);
        let lines: BTreeSet<_> =
            words(&code).filter(|(_, word)| *word == "unsafe").map(|(line, _)| line).collect();
        wrong.extend(lines.iter().map(|line| format!("{}:{line}: unsafe", file.path)));
    }
    wrong
}

/// The server's crate forbids `unsafe` by itself, at its root.
pub fn server_forbids_unsafe(tree: &Tree) -> Vec<String> {
    let root = if tree.holds("server/src/lib.rs") { "server/src/lib.rs" } else { "server/src/main.rs" };
    let forbids = code(tree.text(root)).contains("#![forbid(unsafe_code)]");
    if forbids { Vec::new() } else { vec![format!("{root}: does not say #![forbid(unsafe_code)]")] }
}

/// The server knows no file but its configuration.
pub fn server_names_no_file(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.within("server/src/", ".rs") {
        if SERVER_FILES_ALLOWED.contains(&file.path.as_str()) {
            continue;
        }
        for (number, line) in code(&file.text).lines().enumerate() {
            if line.contains("std::fs") || line.contains("fs::") {
                wrong.push(format!("{}:{}: the server reads a file", file.path, number + 1));
            }
        }
    }
    wrong
}

/// The engine knows no protocol: it depends on no crate that does. (Its formats are Kafka's on disk, and may say so.)
pub fn engine_knows_no_protocol(tree: &Tree) -> Vec<String> {
    dependencies(tree.text("engine/Cargo.toml"))
        .into_iter()
        .filter(|name| PROTOCOLS.iter().any(|word| name.contains(word)))
        .map(|name| format!("engine/Cargo.toml: depends on {name}"))
        .collect()
}

/// The names under `[dependencies]` and its variants for targets; not those of tests.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.ends_with("dependencies]") && !section.contains("dev-");
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            names.push(name.trim());
        }
    }
    names
}

/// No file is longer than one can hold in mind.
pub fn files_are_short(tree: &Tree) -> Vec<String> {
    tree.within("", ".rs")
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines, {LINES_MAX} at most", file.path))
        .collect()
}

/// Nothing is left over from writing, and no test is switched off or content with any panic.
pub fn nothing_is_left_over(tree: &Tree) -> Vec<String> {
    const LEFTOVERS: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore", "#[should_panic"];
    let mut wrong = Vec::new();
    for file in tree.within("", ".rs") {
        for (number, line) in code(&file.text).lines().enumerate() {
            for leftover in LEFTOVERS.iter().filter(|leftover| line.contains(**leftover)) {
                wrong.push(format!("{}:{}: {leftover}", file.path, number + 1));
            }
        }
    }
    wrong
}

/// Nothing names a path that only one machine has.
pub fn no_path_of_a_machine(tree: &Tree) -> Vec<String> {
    // In two parts, so that this file does not name them.
    const HOMES: &[&str] =
        &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    let mut wrong = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            let named = |home: &&&str| {
                line.match_indices(**home).any(|(at, _)| {
                    !line[..at]
                        .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}'))
                })
            };
            if let Some(home) = HOMES.iter().find(named) {
                wrong.push(format!("{}:{}: names a path under {home}", file.path, number + 1));
            }
        }
    }
    wrong
}

/// What the documents call a path is there. A path is written in backquotes or as a link's target, and has a slash
/// or the ending of a file of ours; it starts at the repository, at the document's folder, or at a crate's `src`.
pub fn paths_in_documents_exist(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.within("", ".md") {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, path) in document_paths(&file.text) {
            let starts =
                ["", folder, "engine/src", "server/src", "bench-harness/src", "tests/src", "tests/tests"];
            let exists = |start: &str| {
                tree.holds(&if start.is_empty() { path.to_owned() } else { format!("{start}/{path}") })
            };
            if !starts.into_iter().any(exists) {
                wrong.push(format!("{}:{line}: there is no {path}", file.path));
            }
        }
    }
    wrong
}

fn document_paths(text: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2).filter(|word| is_path(word));
        let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let linked = linked.filter(|target| !target.is_empty() && !target.contains(':'));
        paths.extend(quoted.chain(linked).map(|path| (number + 1, path)));
    }
    paths
}

fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
    let ending = [".rs", ".md", ".toml"].iter().any(|ending| word.ends_with(ending));
    plain && !word.starts_with('/') && (word.contains('/') || ending)
}

/// The front page has the two commands that a newcomer types.
pub fn readme_has_both_commands(tree: &Tree) -> Vec<String> {
    let readme = tree.text("README.md");
    ["cargo run --release", "cargo test --workspace"]
        .iter()
        .filter(|command| !readme.lines().any(|line| line.trim() == **command))
        .map(|command| format!("README.md: does not show `{command}` on a line of its own"))
        .collect()
}

/// Every limit, in whatever crate, holds something back.
pub fn every_limit_is_used(tree: &Tree) -> Vec<String> {
    let sources: Vec<_> = tree.within("", ".rs").map(|file| (&file.path, code(&file.text))).collect();
    let mut wrong = Vec::new();
    for (limits, limits_code) in sources.iter().filter(|(path, _)| path.ends_with("/src/limits.rs")) {
        let used: BTreeSet<&str> = sources
            .iter()
            .filter(|(path, _)| path != limits)
            .flat_map(|(_, code)| words(code).map(|(_, word)| word))
            .collect();
        let names = limits_code.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
        wrong.extend(
            names
                .filter(|name| !used.contains(name) && !LIMITS_AHEAD.contains(name))
                .map(|name| format!("{limits}: nothing uses {name}")),
        );
    }
    wrong
}

/// Every crate of the workspace has the workspace's lints.
pub fn lints_are_inherited(tree: &Tree) -> Vec<String> {
    let members = tree.text("Cargo.toml").lines().find_map(|line| line.strip_prefix("members = ["));
    let Some(members) = members else { return vec!["Cargo.toml: lists no members".to_owned()] };
    members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|member| format!("{member}/Cargo.toml"))
        .filter(|manifest| !tree.text(manifest).contains("\n[lints]\nworkspace = true\n"))
        .map(|manifest| format!("{manifest}: does not inherit the workspace's lints"))
        .collect()
}
