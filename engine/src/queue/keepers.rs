//! Who is given messages, and whose turn it is.
//!
//! A *keeper* is whoever can keep messages unsettled: a consumer, one that was cancelled and has not settled everything, or
//! somebody who gets messages one by one. A consumer that can be given a message stands in line, and there is a line for each
//! priority. The first of the best line is next; then it goes to the end. Everything but adding a priority takes the same
//! time however many there are.

use super::{Consume, Credit, Keeper, Token};

/// No keeper: the end of a line.
const NOBODY: u32 = u32::MAX;

/// See the module.
pub(super) struct Slot {
    pub token: Token,
    /// Messages that it keeps.
    pub kept: u32,
    /// How long it may keep one, if it has a limit of its own.
    pub timeout_ms: Option<u64>,
    /// What it wants. `None`: nothing any more, or never anything.
    pub consumer: Option<Consumer>,
    /// Its neighbours in line; itself, if it is alone; nobody, if it is in none.
    next: u32,
    before: u32,
}

/// What is known of a consumer.
pub(super) struct Consumer {
    pub no_ack: bool,
    pub exclusive: bool,
    priority: i32,
    messages: u32,
    bytes: i64,
    /// Which consumer of the queue this is, counted from its creation.
    number: u64,
}

/// Consumers of one priority that can be given a message: a ring, of which this is the first.
struct Line {
    priority: i32,
    first: u32,
}

/// See the module.
pub(super) struct Keepers {
    slots: Vec<Option<Slot>>,
    vacant: Vec<u32>,
    /// The highest priority first; no line is empty.
    lines: Vec<Line>,
    consumers: u32,
    numbers: u64,
    /// With a single active consumer: which it is, if any.
    single_active: bool,
    active: Option<u32>,
}

impl Keepers {
    /// Nobody.
    pub fn new(single_active: bool) -> Keepers {
        Keepers {
            slots: Vec::new(),
            vacant: Vec::new(),
            lines: Vec::new(),
            consumers: 0,
            numbers: 0,
            single_active,
            active: None,
        }
    }

    /// How many consumers there are.
    pub fn consumers(&self) -> u32 {
        self.consumers
    }

    /// The one consumer that is given messages, if there is to be one only.
    pub fn active(&self) -> Option<Keeper> {
        self.active.map(Keeper)
    }

    /// Whether one of the consumers wants to be alone.
    pub fn is_exclusive(&self) -> bool {
        self.consumers == 1
            && self.iter().any(|(_, slot)| slot.consumer.as_ref().is_some_and(|c| c.exclusive))
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.slots).filter_map(|(keeper, slot)| Some((keeper, slot.as_ref()?)))
    }

    /// The consumers, in the order in which they came.
    fn by_age(&self) -> Vec<u32> {
        let consumers =
            self.iter().filter_map(|(keeper, slot)| Some((slot.consumer.as_ref()?.number, keeper)));
        let mut consumers: Vec<_> = consumers.collect();
        consumers.sort_unstable();
        consumers.into_iter().map(|(_, keeper)| keeper).collect()
    }

    /// The tokens of all consumers, in the order in which they came.
    pub fn tokens(&self) -> Vec<Token> {
        let token = |keeper| self.get(Keeper(keeper)).map(|slot| slot.token);
        self.by_age().into_iter().filter_map(token).collect()
    }

    /// A keeper, if there is one of that name.
    pub fn get(&self, keeper: Keeper) -> Option<&Slot> {
        self.slots.get(keeper.0 as usize)?.as_ref()
    }

    fn slot(&mut self, keeper: u32) -> &mut Slot {
        self.slots[keeper as usize].as_mut().expect("a keeper that is named is there")
    }

    /// Adds a keeper who wants nothing.
    pub fn add(&mut self, token: Token) -> Keeper {
        let slot = Slot { token, kept: 0, timeout_ms: None, consumer: None, next: NOBODY, before: NOBODY };
        let keeper = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        if keeper as usize == self.slots.len() {
            self.slots.push(Some(slot));
        } else {
            self.slots[keeper as usize] = Some(slot);
        }
        Keeper(keeper)
    }

    /// Adds a consumer.
    pub fn add_consumer(&mut self, consume: &Consume) -> Keeper {
        let keeper = self.add(consume.token);
        self.numbers += 1;
        let number = self.numbers;
        let slot = self.slot(keeper.0);
        slot.timeout_ms = consume.timeout_ms;
        slot.consumer = Some(Consumer {
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority: consume.priority,
            messages: consume.credit.messages,
            bytes: i64::from(consume.credit.bytes),
            number,
        });
        self.consumers += 1;
        self.elect();
        self.line_up(keeper.0);
        keeper
    }

    /// Ends a consumer: it is given nothing any more. `false`: it was none.
    pub fn cancel(&mut self, keeper: Keeper) -> bool {
        if self.get(keeper).is_none_or(|slot| slot.consumer.is_none()) {
            return false;
        }
        self.step_out(keeper.0);
        self.slot(keeper.0).consumer = None;
        self.consumers -= 1;
        if self.active == Some(keeper.0) {
            self.active = None;
            self.elect();
        }
        true
    }

    /// Forgets a keeper who wants nothing and keeps nothing; gives its token.
    pub fn release(&mut self, keeper: Keeper) -> Option<Token> {
        let slot = self.get(keeper)?;
        if slot.kept > 0 || slot.consumer.is_some() {
            return None;
        }
        let token = slot.token;
        self.slots[keeper.0 as usize] = None;
        self.vacant.push(keeper.0);
        Some(token)
    }

    /// Lets a consumer have more.
    pub fn credit(&mut self, keeper: Keeper, more: Credit) {
        let Some(consumer) = self.get_mut(keeper).and_then(|slot| slot.consumer.as_mut()) else { return };
        consumer.messages = consumer.messages.saturating_add(more.messages);
        consumer.bytes += i64::from(more.bytes);
        self.line_up(keeper.0);
    }

    fn get_mut(&mut self, keeper: Keeper) -> Option<&mut Slot> {
        self.slots.get_mut(keeper.0 as usize)?.as_mut()
    }

    /// Whose turn it is, with the token, and whether deliveries to it are settled when they are made.
    pub fn next(&self) -> Option<(Keeper, Token, bool)> {
        let keeper = Keeper(self.lines.first()?.first);
        let slot = self.get(keeper).expect("who stands in line is there");
        Some((keeper, slot.token, slot.consumer.as_ref().is_some_and(|consumer| consumer.no_ack)))
    }

    /// Charges a message to the one whose turn it is, and passes the turn on.
    pub fn serve(&mut self, size: u32) {
        let keeper = self.lines.first().expect("it was somebody's turn").first;
        let slot = self.slot(keeper);
        let after = slot.next;
        let consumer = slot.consumer.as_mut().expect("who stands in line consumes");
        consumer.messages -= 1;
        consumer.bytes -= i64::from(size);
        if consumer.messages == 0 || consumer.bytes <= 0 {
            self.step_out(keeper);
        } else {
            self.lines[0].first = after;
        }
    }

    /// Counts a message that a keeper keeps from now on; says for how long it may, if it has a limit of its own.
    pub fn keep(&mut self, keeper: Keeper) -> Option<u64> {
        let slot = self.slot(keeper.0);
        slot.kept += 1;
        slot.timeout_ms
    }

    /// Counts messages that a keeper has settled.
    pub fn unkeep(&mut self, keeper: Keeper, messages: u32) {
        self.slot(keeper.0).kept -= messages;
    }

    /// Makes one consumer the active one or, if that is no longer wanted, lets all have their turn.
    pub fn set_single_active(&mut self, single_active: bool) {
        if self.single_active == single_active {
            return;
        }
        self.single_active = single_active;
        self.active = None;
        let consumers = self.by_age();
        for &keeper in &consumers {
            self.step_out(keeper);
        }
        self.elect();
        for &keeper in &consumers {
            self.line_up(keeper);
        }
    }

    /// If one consumer is to be active and none is: the one with the highest priority, the oldest of those.
    fn elect(&mut self) {
        if !self.single_active || self.active.is_some() {
            return;
        }
        let best = self
            .iter()
            .filter_map(|(keeper, slot)| {
                let consumer = slot.consumer.as_ref()?;
                Some((std::cmp::Reverse(consumer.priority), consumer.number, keeper))
            })
            .min();
        self.active = best.map(|(_, _, keeper)| keeper);
        if let Some(keeper) = self.active {
            self.line_up(keeper);
        }
    }

    /// Puts a consumer at the end of its line, if it can be given a message and is not there.
    fn line_up(&mut self, keeper: u32) {
        if self.single_active && self.active != Some(keeper) {
            return;
        }
        let slot = self.slot(keeper);
        let Some(consumer) = &slot.consumer else { return };
        if slot.next != NOBODY || consumer.messages == 0 || consumer.bytes <= 0 {
            return;
        }
        let priority = consumer.priority;
        match self.lines.binary_search_by(|line| priority.cmp(&line.priority)) {
            Ok(at) => {
                let first = self.lines[at].first;
                let last = self.slot(first).before;
                self.link(last, keeper);
                self.link(keeper, first);
            }
            Err(at) => {
                self.lines.insert(at, Line { priority, first: keeper });
                self.link(keeper, keeper);
            }
        }
    }

    /// Takes a consumer out of its line, if it stands in one.
    fn step_out(&mut self, keeper: u32) {
        let slot = self.slot(keeper);
        let (next, before) = (slot.next, slot.before);
        if next == NOBODY {
            return;
        }
        (slot.next, slot.before) = (NOBODY, NOBODY);
        let priority = slot.consumer.as_ref().expect("who stands in line consumes").priority;
        let at = self
            .lines
            .binary_search_by(|line| priority.cmp(&line.priority))
            .expect("the line that one stands in is there");
        if next == keeper {
            self.lines.remove(at);
            return;
        }
        self.link(before, next);
        if self.lines[at].first == keeper {
            self.lines[at].first = next;
        }
    }

    fn link(&mut self, before: u32, next: u32) {
        self.slot(before).next = next;
        self.slot(next).before = before;
    }
}
