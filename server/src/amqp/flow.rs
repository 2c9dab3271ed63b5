//! Publishers that wait for consumers. The engine says whose queues have so much waiting that it is better for everybody if no
//! more comes for a moment; from a connection that publishes to one of them nothing is read meanwhile. What it has sent is
//! confirmed as ever. RabbitMQ calls that flow, and so does the state of such a connection.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::io::ConnId;
use millstream_engine::shard::message::Flow;
use millstream_engine::types::QueueId;

use super::link::Link;
use super::routing::router::Route;

/// The queues of all shards that are not to be published to for the moment, and which connections of this shard wait for each.
#[derive(Debug, Default)]
pub struct Held {
    queues: BTreeMap<QueueId, BTreeSet<ConnId>>,
}

impl Held {
    /// Takes note of what the engine says. Gives the connections that need not wait for this queue any more.
    pub fn heed(&mut self, flow: Flow) -> BTreeSet<ConnId> {
        if !flow.is_held {
            return self.queues.remove(&flow.queue).unwrap_or_default();
        }
        self.queues.entry(flow.queue).or_default();
        BTreeSet::new()
    }

    /// A connection has published to these queues: it waits for those of them that are held.
    pub fn published(&mut self, route: &Route, link: &mut Link) {
        if self.queues.is_empty() {
            return;
        }
        for queue in route.shards.iter().flat_map(|(_, queues)| queues.iter()) {
            if let Some(waiting) = self.queues.get_mut(queue) {
                waiting.insert(link.id);
                link.held_by.insert(*queue);
            }
        }
    }

    /// A connection waits for nothing any more.
    pub fn forget(&mut self, link: &mut Link) {
        for queue in std::mem::take(&mut link.held_by) {
            if let Some(waiting) = self.queues.get_mut(&queue) {
                waiting.remove(&link.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::types::ShardId;

    use super::*;
    use crate::amqp::topology::entries::Owner;

    const QUEUE: QueueId = QueueId([7; 16]);

    fn link(id: u64) -> Link {
        Link::new(ConnId(id), Owner { shard: 0, conn: id }, 4096)
    }

    #[test]
    fn a_connection_that_has_gone_is_not_remembered() {
        let mut held = Held::default();
        let route = Route::of(&BTreeSet::from([(ShardId(0), QUEUE)]));
        let (mut stays, mut goes) = (link(1), link(2));
        held.heed(Flow { queue: QUEUE, is_held: true });
        held.published(&route, &mut stays);
        held.published(&route, &mut goes);
        held.forget(&mut goes);
        assert!(goes.held_by.is_empty() && stays.held_by.contains(&QUEUE));
        assert_eq!(held.heed(Flow { queue: QUEUE, is_held: false }), BTreeSet::from([stays.id]));
    }
}
