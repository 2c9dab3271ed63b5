//! What the server uses while it is under load.
//!
//! Its processor time is that of the whole machine less the client's, so that what the kernel does on its behalf counts:
//! workers that flush, write back and receive. That is the truth on a machine that does nothing else; what the server's
//! processes used themselves stands beside it.

use std::fs::{read_dir, read_to_string};
use std::time::Duration;

use crate::machine;
use crate::measure::Problem;
use crate::raw::{self, Clock, CpuTimer};

/// The server's processes, if it runs on this machine and is known: whoever listens, and all of its children.
#[derive(Clone, Debug, Default)]
pub struct Processes(Vec<u32>);

impl Processes {
    /// A process and what it has started.
    pub fn of(root: u32) -> Processes {
        let parents: Vec<(u32, u32)> =
            processes().filter_map(|process| Some((process, parent(process)?))).collect();
        let mut tree = vec![root];
        let mut at = 0;
        while let Some(&process) = tree.get(at) {
            tree.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child));
            at += 1;
        }
        Processes(tree)
    }

    /// Their ids.
    pub fn ids(&self) -> &[u32] {
        &self.0
    }

    /// Whoever listens on a port of this machine; nobody if that cannot be found out.
    pub fn listening(port: u16) -> Processes {
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .into_iter()
            .filter_map(|table| read_to_string(table).ok())
            .flat_map(|table| listeners(&table, port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let holds = |process: &u32| {
            let Ok(files) = read_dir(format!("/proc/{process}/fd")) else { return false };
            files.flatten().any(|file| {
                let target = std::fs::read_link(file.path()).unwrap_or_default();
                sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
            })
        };
        processes().find(holds).map(Processes::of).unwrap_or_default()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> Option<f64> {
        let rss: Vec<f64> = self.0.iter().filter_map(|&process| machine::rss_kib(process).ok()).collect();
        (!rss.is_empty()).then(|| rss.iter().sum())
    }

    fn cpu(&self) -> Option<Duration> {
        let cpu: Vec<Duration> =
            self.0.iter().filter_map(|&process| raw::process_cpu(process).ok()).collect();
        (!cpu.is_empty()).then(|| cpu.iter().sum())
    }

    /// Bytes that they have caused to be written. What goes through the page cache counts when it is put there.
    fn written(&self) -> Option<u64> {
        let written =
            |process| machine::field(&format!("/proc/{process}/io"), "write_bytes")?.parse::<u64>().ok();
        let written: Vec<u64> = self.0.iter().filter_map(written).collect();
        (!written.is_empty()).then(|| written.iter().sum())
    }
}

fn processes() -> impl Iterator<Item = u32> {
    read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Field `ppid`, the fourth, behind a name that may hold spaces.
fn parent(process: u32) -> Option<u32> {
    let stat = read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The inodes of sockets that listen on a port, from the text of `/proc/net/tcp`.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&port) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

/// What was used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// The machine's processor time less the client's.
    pub server: Duration,
    /// The processor time of the server's processes.
    pub process: Option<Duration>,
    /// The client's.
    pub client: Duration,
    /// The largest resident memory of the server that was seen.
    pub rss_kib_max: Option<f64>,
    /// Bytes that the server's processes wrote.
    pub disk_bytes: Option<u64>,
}

/// Looks on while the server is under load.
pub struct Watch<'a> {
    server: &'a Processes,
    machine: Duration,
    client: CpuTimer,
    process: Option<Duration>,
    written: Option<u64>,
    rss_kib_max: Option<f64>,
}

impl Watch<'_> {
    /// Starts to look.
    pub fn start(server: &Processes) -> Result<Watch<'_>, Problem> {
        Ok(Watch {
            server,
            machine: machine::run_time()?,
            client: CpuTimer::start(Clock::Process),
            process: server.cpu(),
            written: server.written(),
            rss_kib_max: server.rss_kib(),
        })
    }

    /// Looks at the memory.
    pub fn look(&mut self) {
        let rss = self.server.rss_kib();
        self.rss_kib_max = self.rss_kib_max.zip(rss).map(|(max, rss)| max.max(rss)).or(rss);
    }

    /// What was used since the start.
    pub fn end(mut self) -> Result<Footprint, Problem> {
        let client = self.client.elapsed();
        let machine = machine::run_time()?.saturating_sub(self.machine);
        self.look();
        Ok(Footprint {
            server: machine.saturating_sub(client),
            process: self.process.zip(self.server.cpu()).map(|(before, now)| now.saturating_sub(before)),
            client,
            rss_kib_max: self.rss_kib_max,
            disk_bytes: self
                .written
                .zip(self.server.written())
                .map(|(before, now)| now.saturating_sub(before)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn whoever_listens_on_a_port_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let found = Processes::listening(listener.local_addr().unwrap().port());
        assert_eq!(found.ids().first(), Some(&std::process::id()));
        assert!(found.rss_kib().unwrap() > 0.0);
    }

    #[test]
    fn a_connection_on_the_port_is_no_listener() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1\n\
            1: 0100007F:2384 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 42 1\n";
        assert_eq!(listeners(table, 0x2384), ["41"]);
    }

    #[test]
    fn children_belong_to_their_parent() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        assert!(Processes::of(std::process::id()).ids().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
