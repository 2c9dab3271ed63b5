//! Definitions: everything that there is but messages, as one JSON object in RabbitMQ's form. Read and checked as a whole before any of
//! it is made; what is there already stays as it is, so that the same file can be taken at each start.

mod apply;
mod export;
mod read;

use std::time::Duration;

use millstream_engine::shard::change::EntryKey;
use serde_json::Map;
use tokio::time::timeout;

use super::api::{Answer, Api, Asked};
use super::problem::Problem;
use super::session::Role;
use crate::amqp::topology::entries::{Binding, ExchangeValue, QueueValue};
use crate::limits::MANAGEMENT_WAIT;

/// How often it is looked whether a fresh node has its first vhost.
const FOUNDING_LOOK: Duration = Duration::from_millis(1);

/// What a definitions file holds, checked as far as it can be without a node.
#[derive(Debug, Default)]
pub struct Definitions {
    users: Vec<Vec<u8>>,
    vhosts: Vec<Vec<u8>>,
    /// Users, vhosts, permissions, policies and parameters, as they are kept.
    entries: Vec<Plain>,
    exchanges: Vec<In<ExchangeValue>>,
    queues: Vec<In<QueueValue>>,
    bindings: Vec<(Vec<u8>, Binding)>,
}

/// Something that is an entry and nothing else.
#[derive(Debug)]
struct Plain {
    /// How it is called in what is wrong.
    about: String,
    key: EntryKey,
    value: Vec<u8>,
    /// The vhost and the user that have to be there.
    vhost: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
}

/// Something in a vhost.
#[derive(Debug)]
struct In<V> {
    vhost: Vec<u8>,
    name: Vec<u8>,
    value: V,
}

impl Definitions {
    /// Reads a file's text. An error names the object that is wrong, and says why.
    pub fn parse(text: &str) -> Result<Definitions, String> {
        let object =
            serde_json::from_str(text).map_err(|error| format!("this is no JSON object: {error}"))?;
        Definitions::read(&object, None).map_err(|problem| problem.to_string())
    }

    /// Whether it has users: then nobody needs to be made up.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }
}

impl Api {
    /// Waits until the node has its first vhost and user: at its first start they are made when it serves already.
    pub async fn founded(&self) -> Result<(), String> {
        let founded = async {
            while !self.look(crate::amqp::topology::Topology::is_founded) {
                self.node.refresh().await?;
                tokio::time::sleep(FOUNDING_LOOK).await;
            }
            Ok(())
        };
        match timeout(MANAGEMENT_WAIT, founded).await {
            Ok(founded) => founded.map_err(|problem: Problem| problem.to_string()),
            Err(_) => Err("the node does not get its first vhost".to_owned()),
        }
    }

    /// Makes what the definitions say. An error names the object that cannot be made, before anything has changed; or says what
    /// has kept the node from doing it.
    pub async fn load(&self, definitions: &Definitions) -> Result<(), String> {
        self.node.refresh().await.map_err(|problem| problem.to_string())?;
        definitions.apply(&self.node).await.map_err(|problem| problem.to_string())
    }
}

pub async fn post(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    if let Some(vhost) = vhost {
        asked.look(|topology| asked.session.enter(topology, vhost).map(|_| ()))?;
    }
    let empty = Map::new();
    let body = if asked.body.is_empty() { &empty } else { asked.body };
    Definitions::read(body, vhost)?.apply(&asked.api.node).await?;
    Ok(Answer::Done)
}

pub fn get(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    if let Some(vhost) = vhost {
        asked.session.needs(Role::PolicyMaker)?;
        asked.look(|topology| asked.session.view(topology, vhost).map(|_| ()))?;
    }
    Ok(Answer::Text(export::text(asked, vhost)?))
}
