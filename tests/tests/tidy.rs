//! The house is in order; and each rule that says so finds what it is there to find.

use millstream_tests::tidy::{self, Rule};
use millstream_tests::tree::Tree;

/// Checks a rule on this repository, and on a tree that breaks it in one file, at the places expected.
fn check(rule: Rule, broken: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(rule(&Tree::of(broken)), expected, "the rule does not find what it forbids");
    let wrong = rule(&Tree::of_this_repository());
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_engines_layers_point_down() {
    check(
        tidy::layers_point_down,
        &[
            ("engine/src/io/uring/ring.rs", "use crate::{\n    buffer::Slice,\n    log::{plan::Range},\n};"),
            (
                "engine/src/journal.rs",
                "// crate::reactor\nfn f() -> crate::shard::Post { super::super::g() }",
            ),
            ("engine/src/config.rs", "use crate::limits;"),
            ("engine/src/extra.rs", ""),
        ],
        &[
            "engine/src/io/uring/ring.rs:1: io imports log, which lies above it",
            "engine/src/journal.rs: name a layer by `crate::`, so that this test sees it",
            "engine/src/journal.rs:2: journal imports shard, which lies above it",
            "engine/src/extra.rs: `extra` is no layer; give it a place in LAYERS",
        ],
    );
}

#[test]
fn unsafe_stands_in_few_files() {
    check(
        tidy::unsafe_is_fenced_in,
        &[
            ("engine/src/buffer/block.rs", "unsafe {}"),
            ("engine/src/log/mod.rs", "// unsafe\n#![forbid(unsafe_code)]\nunsafe { \"unsafe\" }"),
        ],
        &["engine/src/log/mod.rs:3: unsafe"],
    );
}

#[test]
fn the_server_forbids_unsafe() {
    check(
        tidy::server_forbids_unsafe,
        &[("server/src/main.rs", "// #![forbid(unsafe_code)]")],
        &["server/src/main.rs: does not say #![forbid(unsafe_code)]"],
    );
}

#[test]
fn the_server_names_no_file() {
    check(
        tidy::server_names_no_file,
        &[
            ("server/src/kafka/fetch.rs", "use std::fs;\n\nfn f() { fs::read(x) }"),
            ("server/src/cli.rs", "use std::fs;"),
        ],
        &[
            "server/src/kafka/fetch.rs:1: the server reads a file",
            "server/src/kafka/fetch.rs:3: the server reads a file",
        ],
    );
}

#[test]
fn the_engine_knows_no_protocol() {
    let manifest =
        "[dependencies]\nlibc = \"0.2\"\nkafka-protocol = \"0.18\"\n\n[dev-dependencies]\nlapin = \"3\"";
    check(
        tidy::engine_knows_no_protocol,
        &[("engine/Cargo.toml", manifest)],
        &["engine/Cargo.toml: depends on kafka-protocol"],
    );
}

#[test]
fn no_file_is_long() {
    let long = "\n".repeat(801);
    check(tidy::files_are_short, &[("server/src/a.rs", &long)], &["server/src/a.rs: 801 lines, 800 at most"]);
}

#[test]
fn nothing_is_left_over_from_writing() {
    check(
        tidy::nothing_is_left_over,
        &[(
            "server/src/a.rs",
            "// todo!\nfn f() { todo!() }\n#[ignore]\n#[should_panic(expected = \"x\")]\ndbg!(1)",
        )],
        &[
            "server/src/a.rs:2: todo!",
            "server/src/a.rs:3: #[ignore",
            "server/src/a.rs:4: #[should_panic",
            "server/src/a.rs:5: dbg!",
        ],
    );
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let named = concat!("see /ho", "me/someone/x");
    let harmless = concat!("https://example.org/ho", "me/x");
    let expected = format!("a.md:1: names a path under {}", concat!("/ho", "me/"));
    check(tidy::no_path_of_a_machine, &[("a.md", &format!("{named}\n{harmless}"))], &[&expected]);
}

#[test]
fn paths_that_documents_name_exist() {
    check(
        tidy::paths_in_documents_exist,
        &[
            (
                "docs/a.md",
                "`engine/src/log/` `log/plan.rs` `b.md` `acks=1` [b](b.md#x) [c](c.md)\n```\nx/y\n```\n`log/gone.rs`",
            ),
            ("docs/b.md", "[web](https://example.org/x)"),
            ("engine/src/log/plan.rs", ""),
        ],
        &["docs/a.md:1: there is no c.md", "docs/a.md:5: there is no log/gone.rs"],
    );
}

#[test]
fn the_readme_has_both_commands() {
    check(
        tidy::readme_has_both_commands,
        &[("README.md", "    cargo run --release\n")],
        &["README.md: does not show `cargo test --workspace` on a line of its own"],
    );
}

#[test]
fn every_limit_is_used_somewhere() {
    check(
        tidy::every_limit_is_used,
        &[
            (
                "engine/src/limits.rs",
                "pub const A: u8 = 1;\npub const B: u8 = 2;\nconst _: () = assert!(B > A);",
            ),
            ("engine/src/log/mod.rs", "// B\nuse crate::limits::A;"),
        ],
        &["engine/src/limits.rs: nothing uses B"],
    );
}

#[test]
fn every_crate_inherits_the_lints() {
    check(
        tidy::lints_are_inherited,
        &[
            ("Cargo.toml", "members = [\"a\", \"b\"]"),
            ("a/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"),
            ("b/Cargo.toml", "[package]\n"),
        ],
        &["b/Cargo.toml: does not inherit the workspace's lints"],
    );
}
