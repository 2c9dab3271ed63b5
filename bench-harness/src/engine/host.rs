//! The harness's side of an embedded node: a data directory, the node, and a line to every shard's load generator.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millstream_engine::config::TopicConfig;
use millstream_engine::types::ShardId;

use super::load::app::{Answer, Command, LoadApp};
use super::load::{Load, Report, Serve};
use super::node::{Node, Spec};
use crate::measure::Problem;

/// A shard that says nothing for this long has failed: the longest thing it does is to fill a history of tens of GB.
const PATIENCE: Duration = Duration::from_mins(10);

/// A node that takes loads. When this is dropped, the node is stopped and its data directory removed.
pub struct Host {
    node: Option<Node>,
    commands: Vec<Sender<Command>>,
    answers: Receiver<(ShardId, Answer)>,
    dir: PathBuf,
}

impl Host {
    /// Starts a node on `dir`, and waits until every shard serves.
    pub fn start(spec: Spec, dir: &Path) -> Result<Host, Problem> {
        fs::create_dir_all(dir)?;
        let shards = spec.config.shards;
        let (answer, answers) = channel();
        let (commands, commanded): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel()).unzip();
        let commanded = Mutex::new(commanded.into_iter().map(Some).collect::<Vec<_>>());
        let make_app = Box::new(move |shard: ShardId| {
            let mut commanded = commanded.lock().unwrap_or_else(PoisonError::into_inner);
            let commanded = commanded.get_mut(usize::from(shard.0)).and_then(Option::take);
            let commanded = commanded.expect("the engine makes one app for each of its shards");
            Box::new(LoadApp::new(commanded, answer.clone())) as Box<_>
        });
        let mut host = Host { node: None, commands, answers, dir: dir.to_owned() };
        host.node = Some(Node::start(spec, dir, make_app)?);
        for _ in 0..shards {
            match host.answer()? {
                (_, Answer::Started) => {}
                (shard, other) => return Err(format!("{shard:?} started with {other:?}").into()),
            }
        }
        Ok(host)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the node listens.
    pub fn address(&self) -> Result<SocketAddr, Problem> {
        let address = self.node.as_ref().and_then(Node::address);
        address.ok_or_else(|| "the node was not asked to listen".into())
    }

    fn answer(&self) -> Result<(ShardId, Answer), Problem> {
        self.answers.recv_timeout(PATIENCE).map_err(|_| "a shard has stopped answering".into())
    }

    fn tell(&self, shard: ShardId, command: Command) -> Result<(), Problem> {
        let to = self.commands.get(usize::from(shard.0)).ok_or("no such shard")?;
        to.send(command).map_err(|_| "a shard has ended".into())
    }

    /// Creates a topic.
    pub fn create(&self, name: &str, partitions: u32, config: TopicConfig) -> Result<(), Problem> {
        self.change(Command::Create(name.to_owned(), partitions, config))
            .map_err(|why| format!("creating {name}: {why}").into())
    }

    /// Deletes a topic.
    pub fn delete(&self, name: &str) -> Result<(), Problem> {
        self.change(Command::Delete(name.to_owned())).map_err(|why| format!("deleting {name}: {why}").into())
    }

    fn change(&self, command: Command) -> Result<(), Problem> {
        self.tell(ShardId(0), command)?;
        match self.answer()? {
            (_, Answer::Changed(changed)) => Ok(changed?),
            (_, other) => Err(format!("the answer was {other:?}").into()),
        }
    }

    /// Serves every connection to shard 0 with a topic's bytes from now on.
    pub fn serve(&self, serve: Serve) -> Result<(), Problem> {
        self.tell(ShardId(0), Command::Serve(serve))?;
        match self.answer()? {
            (_, Answer::Serving) => Ok(()),
            (_, other) => Err(format!("serving was answered by {other:?}").into()),
        }
    }

    /// Runs loads on several shards at the same time; gives the reports shard by shard, in the order given. A load that
    /// was refused is an error.
    pub fn run(&self, loads: Vec<(ShardId, Vec<Load>)>) -> Result<Vec<Report>, Problem> {
        let shards: Vec<ShardId> = loads.iter().map(|(shard, _)| *shard).collect();
        for (shard, loads) in loads {
            self.tell(shard, Command::Run(loads))?;
        }
        let mut answers = Vec::new();
        for _ in &shards {
            match self.answer()? {
                (shard, Answer::Ran(reports)) => answers.push((shard, reports)),
                (_, other) => return Err(format!("a load was answered by {other:?}").into()),
            }
        }
        answers.sort_by_key(|(shard, _)| shards.iter().position(|asked| asked == shard));
        let reports: Vec<Report> = answers.into_iter().flat_map(|(_, reports)| reports).collect();
        match reports.iter().find_map(|report| report.failure.as_ref()) {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(reports),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(node) = self.node.take()
            && let Err(problem) = node.stop()
        {
            eprintln!("the node on {} did not stop in good order: {problem}", self.dir.display());
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left behind: {error}", self.dir.display());
        }
    }
}
