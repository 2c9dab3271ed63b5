//! RabbitMQ, from Debian's packages: a node of its own, with its own port mapper, so that nothing of it is found by others or
//! left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::child::{Child, free_port, local};
use super::debian::{beginning, root};
use super::{Kind, Peer, Setup, directory, text};
use crate::measure::Problem;
use crate::queue;

/// Where the server is, below the root of the packages.
const SERVERS: &str = "usr/lib/rabbitmq/lib";
const ERLANG: &str = "usr/lib/erlang";
/// What differs from the defaults: it takes what publishers send as long as there is any memory or disk to speak of.
const CONFIG: &str =
    "vm_memory_high_watermark.relative = 0.4\ndisk_free_limit.absolute = 1GB\nlog.console.level = warning\n";

/// Gets it, and starts it.
pub fn start(setup: &Setup, kind: Kind) -> Result<Peer, Problem> {
    let root = root(setup, "rabbitmq-server", SERVERS)?;
    let server = beginning(&root.join(SERVERS), "rabbitmq_server-")?;
    let erlang = if root.join(ERLANG).exists() { root.join(ERLANG) } else { Path::new("/").join(ERLANG) };
    let runtime = beginning(&erlang, "erts-")?.join("bin");
    let name = if kind == Kind::RabbitMq { "rabbitmq" } else { "rabbitmq-quorum" };
    let dir = directory(setup, name)?;
    let (port, mapper, distribution) = (free_port()?, free_port()?, free_port()?);
    // The port mapper is a child like the server: the Erlang machine finds it and starts none that would outlive us.
    let mapper_dir = directory(setup, &format!("{name}-mapper"))?;
    let mut command = Command::new(runtime.join("epmd"));
    command.args(["-address", "127.0.0.1", "-port", &mapper.to_string()]);
    let helper = Child::start(&mut command, &mapper_dir)?;
    let config = dir.join("rabbitmq.conf");
    std::fs::write(&config, CONFIG)?;
    let programs = dir.join("bin");
    std::fs::create_dir(&programs)?;
    write_erl(&programs.join("erl"), text(&erlang)?, text(&runtime)?)?;
    let inside = |name: &str| dir.join(name);
    let mut command = Command::new(server.join("sbin/rabbitmq-server"));
    command
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", text(&programs)?))
        .env("HOME", &dir)
        .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
        // The script then becomes the server instead of waiting for it.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", mapper.to_string())
        .env("RABBITMQ_NODENAME", format!("millbench-{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", inside("data"))
        .env("RABBITMQ_LOG_BASE", inside("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", &config)
        .env("RABBITMQ_CONF_ENV_FILE", inside("environment"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", inside("plugins"))
        .current_dir(&dir);
    let mut child = Child::start(&mut command, &dir)?;
    let address = local(port);
    child.until(|_| queue::serves(&queue::Broker::at(address)).ok())?;
    let version = server.to_string_lossy().rsplit('-').next().unwrap_or("unknown").to_owned();
    let settings = match kind {
        Kind::RabbitMq => "defaults of Debian's package, classic queues",
        _ => "defaults of Debian's package, quorum queues of one node",
    };
    Ok(Peer {
        version,
        settings: settings.to_owned(),
        address,
        amqp: None,
        dialect: None,
        child,
        _helper: Some(helper),
    })
}

/// The command that starts the Erlang machine, wherever its packages were unpacked.
fn write_erl(path: &Path, root: &str, runtime: &str) -> Result<(), Problem> {
    let script = format!(
        "#!/bin/sh\nexport ROOTDIR='{root}' BINDIR='{runtime}' EMU=beam PROGNAME=erl\nexec '{runtime}/erlexec' \"$@\"\n"
    );
    std::fs::write(path, script)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
