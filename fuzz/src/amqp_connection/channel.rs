//! A channel: how it is by what was said, and by what has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::content::{Address, Begun, Coming};
use super::messages::{Messages, QueueId};

/// An answer that has to come.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// One that says no more than that it is done.
    Done(u16, u16),
    Opened,
    Closed,
    Declared(QueueId),
    Deleted(Option<QueueId>),
    Consuming(String),
    Cancelled(String),
    /// A message, to be settled or not, or none.
    Got(QueueId, bool),
    Recovered,
    Committed(Vec<u64>),
    /// The channel ends, with this code; it is to be answered unless the client has closed it meanwhile.
    Failed(u16, bool),
}

impl Expected {
    pub(super) fn class_and_id(&self) -> (u16, u16) {
        match self {
            Expected::Done(class, id) => (*class, *id),
            Expected::Opened => (20, 11),
            Expected::Closed => (20, 41),
            Expected::Declared(_) => (50, 11),
            Expected::Deleted(_) => (50, 41),
            Expected::Consuming(_) => (60, 21),
            Expected::Cancelled(_) => (60, 31),
            Expected::Got(..) => (60, 71),
            Expected::Recovered => (60, 111),
            Expected::Committed(_) => (90, 21),
            Expected::Failed(..) => (20, 40),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Closed,
    Open,
    /// Something was said for which it ends, and that has not come yet: until then nothing counts.
    Failed,
}

#[derive(Debug)]
pub(super) enum Mode {
    Plain,
    /// So many messages were published.
    Confirm(u64),
    /// What was published and settled, and counts when it is committed.
    Transaction(Vec<(u64, Address)>, Vec<(u64, u64)>),
}

/// A channel's number. What was said may be several of its lives ahead of what has come.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) state: State,
    /// How often it was opened, by what was said.
    pub(super) life: u32,
    pub(super) mode: Mode,
    pub(super) begun: Option<Begun>,
    /// `basic.recover` that was not answered: what comes meanwhile may be settled already.
    pub(super) recovering: u32,
    pub(super) expected: VecDeque<Expected>,
    /// How often it was opened, by what has come.
    pub(super) life_come: u32,
    pub(super) last_tag: u64,
    /// Deliveries that came and were not settled.
    pub(super) unsettled: BTreeMap<u64, u64>,
    /// Messages that wait for their confirms, by life and number.
    pub(super) unconfirmed: BTreeMap<(u32, u64), u64>,
    /// Messages that have to come back.
    pub(super) returning: BTreeSet<(u32, u64)>,
    pub(super) coming: Option<Coming>,
    /// Where what is coming is from, if it was asked for.
    pub(super) got: Option<(QueueId, bool)>,
}

impl Channel {
    pub(super) fn new() -> Channel {
        Channel {
            state: State::Closed,
            life: 0,
            mode: Mode::Plain,
            begun: None,
            recovering: 0,
            expected: VecDeque::new(),
            life_come: 0,
            last_tag: 0,
            unsettled: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            returning: BTreeSet::new(),
            coming: None,
            got: None,
        }
    }

    /// It is over, by what was said.
    pub(super) fn end(&mut self, state: State) {
        self.state = state;
        self.mode = Mode::Plain;
        self.begun = None;
        self.recovering = 0;
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Open && self.begun.is_none()
    }

    pub(super) fn is_content(&self) -> bool {
        let life = self.life;
        let waits = self.unconfirmed.keys().chain(&self.returning).any(|(of, _)| *of == life);
        self.expected.is_empty() && self.coming.is_none() && !(self.state == State::Open && waits)
    }
}

impl Channel {
    /// Messages are confirmed.
    pub(super) fn confirmed(&mut self, tag: u64, multiple: bool, messages: &mut Messages) {
        let life = self.life_come;
        assert!(
            self.unconfirmed.contains_key(&(life, tag)),
            "{tag} is confirmed twice, or never was published"
        );
        let first = if multiple { 0 } else { tag };
        let tags: Vec<_> = self.unconfirmed.range((life, first)..=(life, tag)).map(|(key, _)| *key).collect();
        for key in tags {
            let id = self.unconfirmed.remove(&key).expect("it was just there");
            assert!(!self.returning.contains(&(life, id)), "message {id} is confirmed before it comes back");
            messages.promised(id);
        }
    }
}
