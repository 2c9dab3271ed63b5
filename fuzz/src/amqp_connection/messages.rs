//! What was published, where it went, and what may become of it.

use std::collections::BTreeMap;
use std::fmt;

/// A queue of a client's; under its name there may have been others before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct QueueId {
    /// Whose.
    pub client: u64,
    /// Which of those.
    pub slot: usize,
    /// Which time it was made. The name tells it, too: nobody declares a name anew whose queue may not be gone yet.
    pub time: u32,
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}.{}", self.client, self.slot, self.time)
    }
}

/// Who published a message: a channel, and how often that was opened before. `None` for what was held by a transaction.
pub type Publisher = Option<(u64, u16, u32)>;

/// A message.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Message {
    queue: Option<QueueId>,
    publisher: Publisher,
    persistent: bool,
    /// Confirmed or committed.
    promised: bool,
    /// Delivered to somebody.
    seen: bool,
    /// Delivered to somebody who need not settle it.
    gone: bool,
    /// Settled, or purged, as far as anybody knows.
    dropped: bool,
    /// Found after the crash.
    found: bool,
}

#[derive(Debug)]
struct Queue {
    durable: bool,
    /// Its client has not deleted it.
    is_there: bool,
    /// The client was told that it is there.
    is_told: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Messages {
    all: BTreeMap<u64, Message>,
    queues: BTreeMap<QueueId, Queue>,
    last: u64,
}

impl Messages {
    /// A new message's number.
    pub fn add(&mut self, publisher: Publisher, persistent: bool) -> u64 {
        self.last += 1;
        self.all.insert(self.last, Message { publisher, persistent, ..Message::default() });
        self.last
    }

    fn get(&mut self, id: u64) -> &mut Message {
        self.all.get_mut(&id).unwrap_or_else(|| panic!("nobody has published message {id}"))
    }

    /// It goes to this queue, or to none.
    pub fn routed(&mut self, id: u64, queue: Option<QueueId>) {
        self.get(id).queue = queue;
    }

    /// It was confirmed, or committed.
    pub fn promised(&mut self, id: u64) {
        self.get(id).promised = true;
    }

    /// It is settled: it may come again, or not.
    pub fn dropped(&mut self, id: u64) {
        self.get(id).dropped = true;
    }

    /// A queue is declared.
    pub fn declared(&mut self, queue: QueueId, durable: bool) {
        self.queues.insert(queue, Queue { durable, is_there: true, is_told: false });
    }

    /// Its declaration was answered.
    pub fn told(&mut self, queue: QueueId) {
        self.queues.get_mut(&queue).expect("it was declared").is_told = true;
    }

    /// What is in a queue goes.
    pub fn purged(&mut self, queue: QueueId) {
        self.all
            .values_mut()
            .filter(|message| message.queue == Some(queue))
            .for_each(|message| message.dropped = true);
    }

    /// A queue goes.
    pub fn deleted(&mut self, queue: QueueId) {
        self.queues.get_mut(&queue).expect("it was declared").is_there = false;
    }

    /// A message is delivered from a queue. Gives who published it.
    pub fn delivered(&mut self, id: u64, queue: QueueId, redelivered: bool, no_ack: bool) -> Publisher {
        let message = self.get(id);
        assert_eq!(message.queue, Some(queue), "message {id} is another queue's");
        assert!(!message.gone, "message {id} comes to two who need not settle it");
        assert!(redelivered || !message.seen, "message {id} comes again and does not say so");
        message.seen = true;
        message.gone = no_ack;
        message.publisher
    }

    /// All queues that were ever declared.
    pub fn queues(&self) -> Vec<QueueId> {
        self.queues.keys().copied().collect()
    }

    /// There is no such queue after the crash.
    pub fn is_gone(&self, queue: QueueId) {
        let known = &self.queues[&queue];
        assert!(!(known.durable && known.is_there && known.is_told), "{queue} is gone");
    }

    /// There is such a queue after the crash.
    pub fn is_there(&self, queue: QueueId) {
        assert!(self.queues[&queue].durable, "{queue} is there");
    }

    /// A message was in a queue after the crash.
    pub fn found(&mut self, queue: QueueId, body: &[u8], redelivered: bool) {
        let id = number(body);
        let message = self.get(id);
        assert_eq!(message.queue, Some(queue), "message {id} is another queue's");
        assert!(message.persistent, "message {id} was not to be kept");
        assert!(redelivered || !message.seen, "message {id} comes again and does not say so");
        assert!(!std::mem::replace(&mut message.found, true), "message {id} is there twice");
    }

    /// That was all that a queue had.
    pub fn is_empty(&self, queue: QueueId) {
        for (id, message) in self.all.iter().filter(|(_, message)| message.queue == Some(queue)) {
            let lost = message.promised
                && message.persistent
                && !(message.gone || message.dropped || message.found)
                && self.queues[&queue].is_there;
            assert!(!lost, "message {id} was confirmed, and is gone from {queue}");
        }
    }
}

/// A body of so many bytes, which tells its message's number.
pub fn body(id: u64, len: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.resize(len.max(8), id as u8);
    body
}

/// The number of the message with this body, which must be all there.
pub fn number(bytes: &[u8]) -> u64 {
    let id = u64::from_be_bytes(*bytes.first_chunk().expect("a body tells its number"));
    assert!(bytes == body(id, bytes.len()), "the body of message {id} is another");
    id
}
