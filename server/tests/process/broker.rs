//! A broker in a process and a directory of its own, both gone when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, process, thread};

/// The binary that is tested.
pub const BINARY: &str = env!("CARGO_BIN_EXE_millstream");

/// How long a start or a stop may take before the test gives up. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A directory that nobody else uses, removed when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("millstream-process-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the broker's data is.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A configuration file with this text.
    pub fn config(&self, text: &str) -> PathBuf {
        let path = self.0.join("millstream.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A free port of this machine.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// The command that serves `dir` on free ports.
pub fn serve(dir: &TempDir) -> Command {
    serve_at(dir, ANY_PORT, ANY_PORT)
}

/// The command that serves `dir` at these addresses.
pub fn serve_at(dir: &TempDir, kafka: &str, http: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("--data").arg(dir.data()).args(["--kafka", kafka, "--amqp", "127.0.0.1:0", "--http", http]);
    command
}

/// The addresses of a ready line: Kafka's, AMQP's, HTTP's.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr, SocketAddr)> {
    let (kafka, rest) = line.strip_prefix("ready kafka=")?.split_once(" amqp=")?;
    let (amqp, http) = rest.split_once(" http=")?;
    Some((kafka.parse().ok()?, amqp.parse().ok()?, http.parse().ok()?))
}

/// A broker that serves, killed when it is dropped.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    pub amqp: SocketAddr,
    pub http: SocketAddr,
}

impl Broker {
    /// Starts the command and waits until it says that it serves.
    pub fn start(command: &mut Command) -> Broker {
        Broker::until_ready(command.stderr(Stdio::inherit()).env("MILLSTREAM_LOG", "warn"))
    }

    /// The same; its log goes elsewhere.
    pub fn start_with_log(command: &mut Command, log: impl Into<Stdio>) -> Broker {
        Broker::until_ready(command.stderr(log).env("MILLSTREAM_LOG", "warn"))
    }

    /// The same, with everything that an operator would be told in a file.
    pub fn start_logged(command: &mut Command, log: &Path) -> Broker {
        let file = fs::File::create(log).unwrap();
        Broker::until_ready(command.stderr(file).env("MILLSTREAM_LOG", "info"))
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn until_ready(command: &mut Command) -> Broker {
        let child = command.stdout(Stdio::piped()).spawn();
        // Owned from here on, so that it is killed whatever comes.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut broker = Broker { child: child.unwrap(), address: nowhere, amqp: nowhere, http: nowhere };
        let stdout = broker.child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = lines.recv_timeout(PATIENCE).expect("a line on stdout");
        (broker.address, broker.amqp, broker.http) =
            addresses(line.trim_end()).unwrap_or_else(|| panic!("this is not the ready line: {line:?}"));
        broker
    }

    /// Kills it as the kernel would: it learns nothing of it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits for the end.
    pub fn terminate(self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// Waits for the end, which it was asked for.
    pub fn wait(mut self) -> ExitStatus {
        end(&mut self.child)
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        // The standard library sends no signal but SIGKILL, and a shell is everywhere.
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process, which must come by itself.
fn end(child: &mut Child) -> ExitStatus {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("the process did not end by itself");
}

/// Runs a command that must end by itself: its exit code, and what it wrote to stdout and to stderr.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What is written here is short: the pipes hold it until the end.
    let status = end(&mut child);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}
