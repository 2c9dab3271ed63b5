//! Changes of the metadata that a host asks for: several at a time, all of them or none.

use super::metadata::Metadata;
use crate::config::QueueSettings;
use crate::types::{MetadataEpoch, QueueId};

/// Names one of the host's entries: what sort of thing it is, and which one. The engine understands neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryKey {
    /// The sort of thing.
    pub kind: u16,
    /// Which one: at most [`crate::limits::ENTRY_KEY_BYTES_MAX`].
    pub key: Vec<u8>,
}

/// Edits that are made together, if all that they rely on still holds. At most
/// [`crate::limits::EDITS_PER_CHANGE_MAX`] guards and edits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataChange {
    /// What must hold, else the change is refused as a whole: [`crate::error::Refusal::Conflict`].
    pub guards: Vec<Guard>,
    /// What is changed, in this order.
    pub edits: Vec<Edit>,
}

/// What a change relies on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The entry is as it was at this version ([`super::metadata::Entry::version`]); `None`: it does not exist.
    Entry(EntryKey, Option<MetadataEpoch>),
    /// The queue exists.
    Queue(QueueId),
    /// The entry exists, whatever it is.
    Exists(EntryKey),
    /// There is no entry of this kind whose key begins like this.
    NoneUnder(EntryKey),
}

impl Guard {
    /// Whether it holds.
    pub fn holds(&self, metadata: &Metadata) -> bool {
        match self {
            Guard::Entry(key, version) => metadata.entry(key).map(|entry| entry.version) == *version,
            Guard::Queue(id) => metadata.queue(*id).is_some(),
            Guard::Exists(key) => metadata.entry(key).is_some(),
            Guard::NoneUnder(first) => {
                let next = metadata.entries.range(first.clone()..).next();
                next.is_none_or(|(key, _)| key.kind != first.kind || !key.key.starts_with(&first.key))
            }
        }
    }
}

/// One edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// There is a new queue. Its id is in the answer.
    CreateQueue(NewQueue),
    /// A queue is no more, nor anything in it. Refused if there is none of that id.
    DeleteQueue(QueueId),
    /// Other settings hold for a queue. Refused if there is none of that id.
    ConfigureQueue {
        /// Which.
        queue: QueueId,
        /// What holds from now on.
        settings: QueueSettings,
    },
    /// An entry has this value from now on.
    SetEntry {
        /// Which.
        key: EntryKey,
        /// At most [`crate::limits::ENTRY_VALUE_BYTES_MAX`].
        value: Vec<u8>,
        /// Whether it is known as long as the node runs, and not after a restart.
        transient: bool,
    },
    /// An entry is no more. One that does not exist is as good as removed.
    RemoveEntry(EntryKey),
}

/// A queue to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewQueue {
    /// Its name, which no other queue has; at most [`crate::limits::QUEUE_NAME_BYTES_MAX`].
    pub name: Vec<u8>,
    /// Whether it and its persistent messages are kept over a restart.
    pub durable: bool,
    /// What holds for it.
    pub settings: QueueSettings,
}
