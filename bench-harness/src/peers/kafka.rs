//! Apache Kafka: its artifacts from Maven, one node that is broker and controller.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::child::{Child, free_port, local};
use super::{Peer, Setup, directory, text};
use crate::kafka::client::Client;
use crate::log::wire;
use crate::measure::Problem;
use crate::raw;

/// Which artifacts; its version is the pinned one.
const POM: &str = include_str!("../../../tests/clients/kafka/pom.xml");
/// What `config/server.properties` of its distribution recommends, one node's worth of replication, and that deleted topics
/// free their space soon, as in every peer. The last one is because peers stand still while others are measured: a node that
/// did is not to be taken for a lost one.
const PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.retention.hours=168
log.segment.bytes=1073741824
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.segment.delete.delay.ms=200
broker.session.timeout.ms=3600000
";
/// What `kafka-server-start.sh` gives to Java, beside the heap.
const JAVA: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// Gets it, and starts it; with `flush`, every batch is flushed before it is acknowledged.
pub fn start(setup: &Setup, flush: bool) -> Result<Peer, Problem> {
    let jars = format!("{}/*", text(&install(&setup.cache)?)?);
    let dir = directory(setup, if flush { "kafka-flush" } else { "kafka" })?;
    let (port, controller) = (free_port()?, free_port()?);
    let config = dir.join("server.properties");
    let mut properties = PROPERTIES.to_owned();
    if flush {
        properties += "log.flush.interval.messages=1\n";
    }
    let own = format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         log.dirs={}\n",
        text(&dir.join("data"))?
    );
    std::fs::write(&config, properties.clone() + &own)?;
    let formatted = Command::new("java")
        .args(["-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &jars])
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config"])
        .arg(&config)
        .output()?;
    if !formatted.status.success() {
        return Err(String::from_utf8_lossy(&formatted.stderr).trim().to_owned().into());
    }
    let mut command = Command::new("java");
    command.arg(format!("-Xmx{}", setup.heap)).arg(format!("-Xms{}", setup.heap)).args(JAVA);
    command.args(["-cp", &jars, "kafka.Kafka"]).arg(&config).current_dir(&dir);
    let mut child = Child::start(&mut command, &dir)?;
    let address = local(port);
    child.until(|_| serves(address).ok())?;
    let mut settings =
        format!("config/server.properties, heap {}, log.segment.delete.delay.ms=200", setup.heap);
    if flush {
        settings += ", log.flush.interval.messages=1";
    }
    Ok(Peer {
        version: version().to_owned(),
        settings,
        address,
        amqp: None,
        dialect: None,
        child,
        _helper: None,
    })
}

/// Whether it answers.
fn serves(address: std::net::SocketAddr) -> Result<(), Problem> {
    let mut client = Client::connect(address)?;
    client.send(&wire::metadata("none"))?;
    wire::described(&mut client.receive()?).map(drop)
}

/// The version that is pinned.
pub fn version() -> &'static str {
    let version = POM.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    version.map_or("unknown", |(version, _)| version)
}

/// The folder of jars; got from Maven once, and again when the pinned version changes.
fn install(cache: &Path) -> Result<PathBuf, Problem> {
    installed("java", "-version")?;
    let folder = cache.join("kafka");
    let (lib, complete, pom) = (folder.join("lib"), folder.join("complete"), folder.join("pom.xml"));
    if std::fs::read_to_string(&complete).is_ok_and(|made_of| made_of == POM) {
        return Ok(lib.canonicalize()?);
    }
    installed("mvn", "-v")?;
    eprintln!("getting Apache Kafka {} from Maven", version());
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&lib)?;
    std::fs::write(&pom, POM)?;
    let lib = lib.canonicalize()?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", text(&lib)?));
    let got = raw::die_with_parent(&mut maven).output()?;
    if !got.status.success() {
        let told = String::from_utf8_lossy(&got.stdout);
        let why = told.lines().find(|line| line.contains("ERROR")).unwrap_or("no reason given");
        return Err(format!("Maven did not get its artifacts: {why}").into());
    }
    std::fs::write(complete, POM)?;
    Ok(lib)
}

/// Whether a program is there; it is asked for its version.
fn installed(program: &str, version: &str) -> Result<(), Problem> {
    let asked = Command::new(program).arg(version).output();
    if asked.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err(format!("{program} is not installed").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_pinned_one() {
        assert!(version().starts_with("4."), "{}", version());
    }
}
