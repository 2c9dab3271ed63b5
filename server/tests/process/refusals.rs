//! Starts that are refused: each says why, and fails.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use millstream_engine::format::manifest::{FORMAT_VERSION, Manifest};

use crate::broker::{ANY_PORT, Broker, TempDir, run, serve, serve_at};

/// The start fails, and its message holds all of these.
fn check(command: &mut Command, expected: &[&str]) {
    let (code, stdout, stderr) = run(command);
    assert_ne!(code, 0, "{stderr}");
    assert_eq!(stdout, "", "it says that it serves");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for text in expected {
        assert!(stderr.contains(text), "{text:?} is not in {stderr}");
    }
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    check(&mut serve(&dir), &[dir.data().to_str().unwrap(), "another"]);
    assert_eq!(broker.terminate().code(), Some(0), "the first is not hurt");
    Broker::start(&mut serve(&dir));
}

#[test]
fn a_port_in_use_is_named() {
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    check(&mut serve_at(&dir, &taken, ANY_PORT), &[&taken, "in use"]);
    check(&mut serve_at(&dir, ANY_PORT, &taken), &["HTTP", &taken, "in use"]);
    // The directory is as good as before.
    Broker::start(&mut serve(&dir));
}

#[test]
fn an_unknown_setting_is_named() {
    let dir = TempDir::new();
    let config = dir.config("no.such.key = 1\n");
    check(serve(&dir).arg("--config").arg(&config), &["no.such.key", config.to_str().unwrap()]);
    assert!(!dir.data().exists(), "it has not begun");
}

#[test]
fn a_wrong_flag_is_named() {
    let dir = TempDir::new();
    check(serve(&dir).arg("--no-such-flag"), &["--no-such-flag"]);
}

#[test]
fn a_directory_of_a_newer_format_is_refused_and_left_alone() {
    let dir = TempDir::new();
    assert_eq!(Broker::start(&mut serve(&dir)).terminate().code(), Some(0));
    let path = dir.data().join("manifest");
    let manifest = Manifest::decode(&fs::read(&path).unwrap()).unwrap();
    let newer = Manifest { format_version: FORMAT_VERSION + 1, ..manifest }.encode();
    fs::write(&path, &newer).unwrap();
    let version = format!("version {}", FORMAT_VERSION + 1);
    check(&mut serve(&dir), &["needs a newer version", &version]);
    assert_eq!(fs::read(&path).unwrap(), newer);
}
