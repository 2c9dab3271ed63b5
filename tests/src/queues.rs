//! Asking a node of one shard about queues.

use millstream_engine::config::QueueSettings;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, Credit, DeadLetter, Delivery, Message, Outcome, Publish, QueueStats, Settlement,
    Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{QueueId, Seq};

use crate::solo::Solo;

/// As much credit as anybody needs.
pub const PLENTY: Credit = Credit { messages: u32::MAX, bytes: u32::MAX };

/// A message with a short header.
pub fn message(body: &[u8], persistent: bool) -> Message {
    Message {
        header: b"head".to_vec().into(),
        body: body.chunks(1_000).map(|piece| piece.to_vec().into()).collect(),
        persistent,
        priority: 0,
        expires_at: None,
    }
}

/// Makes a queue.
pub fn create(node: &mut Solo, name: &str, durable: bool, settings: QueueSettings) -> QueueId {
    let edits = vec![Edit::CreateQueue(NewQueue { name: name.into(), durable, settings })];
    match node.ask(Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits })) {
        Reply::Changed(ids) => ids[0],
        other => panic!("{other:?}"),
    }
}

/// Deletes a queue.
pub fn delete(node: &mut Solo, queue: QueueId) {
    let edits = vec![Edit::DeleteQueue(queue)];
    let reply = node.ask(Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits }));
    assert!(matches!(&reply, Reply::Changed(ids) if ids.is_empty()), "{reply:?}");
}

/// Publishes messages; `None` if the machine dies before they are confirmed.
pub fn try_publish(node: &mut Solo, queues: &[QueueId], messages: Vec<Message>) -> Option<Vec<Outcome>> {
    let publish = |message| Publish { queues: queues.to_vec().into(), message };
    match node.try_ask(Request::Publish(messages.into_iter().map(publish).collect()))? {
        Reply::Published(outcomes) => Some(outcomes),
        other => panic!("{other:?}"),
    }
}

/// Publishes messages that every queue takes.
pub fn publish(node: &mut Solo, queues: &[QueueId], messages: Vec<Message>) {
    let outcomes = try_publish(node, queues, messages).expect("the machine runs");
    assert!(outcomes.iter().all(|outcome| outcome.refused.is_empty()), "{outcomes:?}");
}

/// Starts a consumer that acknowledges.
pub fn consume(node: &mut Solo, queue: QueueId, consumer: u64, credit: Credit) {
    let reply = node.ask(Request::Consume(Consume {
        queue,
        consumer: ConsumerId(consumer),
        no_ack: false,
        exclusive: false,
        priority: 0,
        timeout_ms: None,
        credit,
    }));
    assert!(matches!(reply, Reply::Consuming { .. }), "{reply:?}");
}

/// Settles one message.
pub fn settle(node: &mut Solo, queue: QueueId, consumer: u64, seq: Seq, verdict: Verdict, durable: bool) {
    let settlement = Settlement { queue, consumer: ConsumerId(consumer), first: seq, last: seq, verdict };
    let reply = node.try_ask(Request::Settle { settlements: vec![settlement], durable });
    assert!(matches!(reply, None | Some(Reply::Done)), "{reply:?}");
}

/// What was delivered since the last time.
pub fn delivered(node: &mut Solo) -> Vec<Delivery> {
    let mut all = Vec::new();
    node.events(|event| match event {
        AppEvent::Delivered(deliveries) => {
            all.extend(deliveries);
            None
        }
        other => Some(other),
    });
    all
}

/// The dead letters since the last time.
pub fn dead_letters(node: &mut Solo) -> Vec<DeadLetter> {
    let mut all = Vec::new();
    node.events(|event| match event {
        AppEvent::DeadLettered(letter) => {
            all.push(letter);
            None
        }
        other => Some(other),
    });
    all
}

/// How a queue stands.
pub fn stats(node: &mut Solo, queue: QueueId) -> QueueStats {
    match node.ask(Request::QueueStats { queues: vec![queue], touch: false }) {
        Reply::QueueStats(stats) => stats[0].1,
        other => panic!("{other:?}"),
    }
}
