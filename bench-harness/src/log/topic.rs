//! The topic that a turn loads: made, waited for, and deleted.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use super::wire;
use crate::kafka::client::Client;
use crate::kafka::wire::{check, created};
use crate::measure::Problem;

/// How often a topic that is not there yet is asked for, and how many times.
const RETRY: Duration = Duration::from_millis(50);
const RETRIES_MAX: u32 = 400;

/// A topic on a broker that is one node.
pub struct Topic {
    client: Client,
    name: String,
    partitions: u32,
}

impl Topic {
    /// Makes it, and waits until every partition can be used.
    pub fn create(
        broker: SocketAddr,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<Topic, Problem> {
        let mut client =
            Client::connect(broker).map_err(|problem| format!("connecting to {broker}: {problem}"))?;
        client.send(&wire::create(name, partitions, settings))?;
        check(created(&mut client.receive()?)?).map_err(|problem| format!("creating {name}: {problem}"))?;
        let mut topic = Topic { client, name: name.to_owned(), partitions };
        for _ in 0..RETRIES_MAX {
            if topic.is_ready()? {
                return Ok(topic);
            }
            sleep(RETRY);
        }
        Err(format!("topic {name} did not get ready").into())
    }

    fn is_ready(&mut self) -> Result<bool, Problem> {
        self.client.send(&wire::metadata(&self.name))?;
        let topic = wire::described(&mut self.client.receive()?)?;
        if topic.error != 0 || topic.leaders.len() != self.partitions as usize || topic.leaders.contains(&-1)
        {
            return Ok(false);
        }
        if topic.leaders.iter().any(|leader| Some(leader) != topic.leaders.first()) {
            return Err("the partitions have several leaders: this load drives one node only".into());
        }
        Ok(self.offsets()?.iter().all(|(error, _)| *error == 0))
    }

    fn offsets(&mut self) -> Result<Vec<(i16, i64)>, Problem> {
        self.client.send(&wire::list_offsets(&self.name, self.partitions, wire::LATEST))?;
        wire::listed(&mut self.client.receive()?)
    }

    /// Where each partition ends.
    pub fn ends(&mut self) -> Result<Vec<i64>, Problem> {
        let offsets = self.offsets()?;
        for (error, _) in &offsets {
            check(*error)?;
        }
        Ok(offsets.into_iter().map(|(_, offset)| offset).collect())
    }

    /// Deletes it.
    pub fn delete(mut self) -> Result<(), Problem> {
        self.client.send(&wire::delete(&self.name))?;
        check(wire::deleted(&mut self.client.receive()?)?)
            .map_err(|problem| format!("deleting {}: {problem}", self.name).into())
    }
}
