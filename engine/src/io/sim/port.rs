//! Where a shard's completions wait to be polled.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::IoError;
use crate::io::random::Random;
use crate::io::{Bell, Event, Token};
use crate::time::Nanos;
use crate::types::ShardId;

/// One shard's side of a world, for one life of the machine.
pub(super) struct Port {
    pub(super) shard: ShardId,
    pub(super) ready: VecDeque<Event>,
    pub(super) rung: Arc<Rung>,
    /// Its last poll was one that waits, and has found nothing.
    pub(super) asleep: bool,
    /// Until when it sleeps; `None` is for ever.
    pub(super) deadline: Option<Nanos>,
    /// Polls in a row that waited for ever while nothing was ever to come.
    pub(super) hopeless_polls: u32,
    /// This life is over.
    pub(super) dead: bool,
    pub(super) random: Random,
}

/// Shared between the world and the operations in flight.
pub(super) type PortRef = Rc<RefCell<Port>>;

impl Port {
    pub(super) fn new(shard: ShardId, random: Random) -> PortRef {
        Rc::new(RefCell::new(Port {
            shard,
            ready: VecDeque::new(),
            rung: Arc::default(),
            asleep: false,
            deadline: None,
            hopeless_polls: 0,
            dead: false,
            random,
        }))
    }

    /// Whether a poll would not wait, or wait no longer, at this time.
    pub(super) fn is_roused(&self, now: Nanos) -> bool {
        let rung = self.rung.0.load(Ordering::Acquire);
        rung || !self.ready.is_empty() || self.deadline.is_some_and(|at| at <= now)
    }

    /// After the end of its machine's life, a shard is told so, whatever it asks of the disk.
    pub(super) fn refuses(&mut self, token: Token) -> bool {
        if self.dead {
            self.ready.push_back(Event::Disk(token, Err(IoError::Halted)));
        }
        self.dead
    }
}

/// Whether a shard's bell has been rung since it last polled.
#[derive(Default)]
pub(super) struct Rung(AtomicBool);

impl Rung {
    /// The ringing has been heard.
    pub(super) fn take(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Bell for Rung {
    fn ring(&self) {
        self.0.store(true, Ordering::Release);
    }
}
