//! A server in a process of its own.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::load::footprint::Processes;
use crate::machine;
use crate::measure::Problem;
use crate::raw::{self, Signal};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(90);
/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(5);
/// What is told of the output of a server that failed.
const TOLD_BYTES: u64 = 2000;

/// The process. When this is dropped, it and whatever it started are gone, and so is its directory.
pub struct Child {
    process: process::Child,
    dir: PathBuf,
    output: PathBuf,
    /// It and what it had started, if it was asked to end.
    asked: Option<Processes>,
}

impl Child {
    /// Starts a command whose data is in `dir`; what it prints goes into a file there.
    pub fn start(command: &mut Command, dir: &Path) -> Result<Child, Problem> {
        let output = dir.join("output");
        let file = File::create(&output)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let process = raw::die_with_parent(command)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        Ok(Child { process, dir: dir.to_owned(), output, asked: None })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has printed last.
    pub fn told(&self) -> String {
        let last = || -> std::io::Result<String> {
            let mut file = File::open(&self.output)?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(TOLD_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        last().unwrap_or_default()
    }

    /// Why it is over, if it is.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        Some(format!("it ended ({status}): {}", self.told()))
    }

    /// Waits until `ready` gives something.
    pub fn until<T>(&mut self, mut ready: impl FnMut(&Child) -> Option<T>) -> Result<T, Problem> {
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(ready) = ready(self) {
                return Ok(ready);
            }
            if let Some(why) = self.ended() {
                return Err(why.into());
            }
            if raw::interrupted() {
                return Err("interrupted".into());
            }
            sleep(raw::LOOK);
        }
        Err(format!("it did not serve within {} s: {}", START.as_secs(), self.told()).into())
    }

    /// Has it, and what it started, stand still.
    pub fn pause(&self) {
        self.tell(Signal::Pause);
    }

    /// Has them go on.
    pub fn resume(&self) {
        self.tell(Signal::Resume);
    }

    /// Asks it to end, without waiting for that.
    pub fn ask_to_end(&mut self) -> Processes {
        if let Some(all) = &self.asked {
            return all.clone();
        }
        let all = Processes::of(self.id());
        self.resume();
        let _ = raw::signal(self.id(), Signal::End);
        self.asked.insert(all).clone()
    }

    fn tell(&self, signal: Signal) {
        for &process in Processes::of(self.id()).ids() {
            // One that has just ended needs no telling.
            let _ = raw::signal(process, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let all = self.ask_to_end();
        let asked = Instant::now();
        while asked.elapsed() < END && matches!(self.process.try_wait(), Ok(None)) {
            sleep(raw::LOOK);
        }
        for &process in all.ids() {
            // One that has ended by itself needs no more.
            let _ = raw::signal(process, Signal::Kill);
        }
        let _ = self.process.wait();
        let killed = Instant::now();
        while killed.elapsed() < END && all.ids().iter().any(|&process| runs(process)) {
            sleep(raw::LOOK);
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left behind: {error}", self.dir.display());
        }
    }
}

/// Whether a process is there, and not only its entry for a parent that has not asked yet.
fn runs(process: u32) -> bool {
    let state = machine::field(&format!("/proc/{process}/status"), "State");
    state.is_some_and(|state| !state.starts_with('Z'))
}

/// A port of the loopback address that nobody listens on.
pub fn free_port() -> Result<u16, Problem> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A port of the loopback address.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("millbench-{}-{name}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_server_that_fails_says_why() {
        let dir = dir("fails");
        let mut child =
            Child::start(Command::new("sh").args(["-c", "echo no such port; exit 3"]), &dir).unwrap();
        let why = child.until(|_| None::<()>).unwrap_err().to_string();
        assert!(why.contains("no such port") && why.contains('3'), "{why}");
    }

    #[test]
    fn nothing_is_left_of_a_server_and_its_children() {
        let dir = dir("left");
        // The shell ignores the request to end, and so does what it starts.
        let script = "trap '' TERM; sleep 100 & echo ready; wait; wait";
        let mut child = Child::start(Command::new("sh").args(["-c", script]), &dir).unwrap();
        child.until(|child| child.told().contains("ready").then_some(())).unwrap();
        let processes = Processes::of(child.id());
        assert_eq!(processes.ids().len(), 2);
        child.pause();
        drop(child);
        assert!(!dir.exists());
        for process in processes.ids() {
            assert!(!runs(*process), "{process} runs");
        }
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let dir = dir("none");
        let why = Child::start(&mut Command::new("no-such-server"), &dir).err().unwrap().to_string();
        assert!(why.contains("no-such-server"), "{why}");
        fs::remove_dir_all(dir).unwrap();
    }
}
