//! The model: a map of messages and a list of consumers, walked from end to end for everything.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use millstream_engine::config::{Overflow, QueueSettings};
use millstream_engine::queue::{
    Admission, Cause, Consume, Credit, Delivery, Incoming, LeaveReason, Locator, Output, QueueStats, Stored,
    Token, Verdict,
};
use millstream_engine::time::WallMs;
use millstream_engine::types::Seq;

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Ready,
    Kept(Token, WallMs),
    Leaving(LeaveReason, bool),
    Purged,
}

struct Message {
    state: State,
    locator: Locator,
    size: u32,
    persistent: bool,
    expires_at: Option<WallMs>,
    delivered: bool,
    failures: u16,
}

impl Message {
    fn expired(&self, at: WallMs) -> bool {
        self.state == State::Ready && self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }
}

struct Keeper {
    token: Token,
    timeout_ms: Option<u64>,
    consumer: Option<Consumer>,
}

struct Consumer {
    consume: Consume,
    messages: u32,
    bytes: i64,
}

/// See the module.
pub struct Model {
    settings: QueueSettings,
    messages: BTreeMap<Seq, Message>,
    /// In the order in which they came.
    keepers: Vec<Keeper>,
    /// The consumers that can be given a message, in the order of their turns.
    line: Vec<Token>,
    active: Option<Token>,
    used_at: WallMs,
    expired: bool,
}

impl Model {
    pub fn new(settings: QueueSettings, now: WallMs) -> Model {
        Model {
            settings,
            messages: BTreeMap::new(),
            keepers: Vec::new(),
            line: Vec::new(),
            active: None,
            used_at: now,
            expired: false,
        }
    }

    /// The number of some message or, often, of none.
    pub fn live(&self, which: usize) -> Seq {
        let count = self.messages.len();
        let seq = self.messages.keys().nth(which % (count + count / 8 + 1));
        seq.copied().unwrap_or(Seq(which as u64))
    }

    fn ready(&self) -> impl Iterator<Item = (&Seq, &Message)> {
        self.messages.iter().filter(|(_, message)| message.state == State::Ready)
    }

    fn seqs(&self, which: impl Fn(&Message) -> bool) -> Vec<Seq> {
        self.messages.iter().filter(|(_, message)| which(message)).map(|(seq, _)| *seq).collect()
    }

    fn message(&mut self, seq: Seq) -> &mut Message {
        self.messages.get_mut(&seq).expect("there is such a message")
    }

    pub fn stats(&self) -> QueueStats {
        let mut stats = QueueStats { consumers: self.consumers().len() as u32, ..QueueStats::default() };
        for message in self.messages.values() {
            stats.persistent += u64::from(message.persistent);
            let size = u64::from(message.size);
            match message.state {
                State::Ready => {
                    stats.ready += 1;
                    stats.ready_bytes += size;
                }
                State::Kept(..) => {
                    stats.unacked += 1;
                    stats.unacked_bytes += size;
                }
                State::Leaving(..) => stats.leaving += 1,
                State::Purged => {}
            }
        }
        stats
    }

    pub fn consumers(&self) -> Vec<Token> {
        self.keepers.iter().filter(|keeper| keeper.consumer.is_some()).map(|keeper| keeper.token).collect()
    }

    pub fn stored(&self) -> Vec<Stored> {
        let stored = |(seq, message): (&Seq, &Message)| Stored {
            seq: *seq,
            locator: message.locator,
            size: message.size,
            persistent: message.persistent,
            expires_at: message.expires_at,
            delivered: message.delivered,
            failures: message.failures,
            leaving: match message.state {
                State::Leaving(reason, _) => Some(reason),
                _ => None,
            },
        };
        self.messages.iter().map(stored).collect()
    }

    /// Of each 64 numbers, which messages are kept over a restart.
    pub fn persistent(&self) -> Vec<(Seq, u64)> {
        let mut masks = BTreeMap::new();
        for seq in self.seqs(|message| message.persistent) {
            *masks.entry(Seq(seq.0 / 64 * 64)).or_default() |= 1 << (seq.0 % 64);
        }
        masks.into_iter().collect()
    }

    /// When something will happen if nobody does anything.
    pub fn next_deadline(&self) -> Option<WallMs> {
        let expiries = self.ready().filter_map(|(_, message)| message.expires_at);
        let timeouts = self.messages.values().filter_map(|message| self.overdue_at(message));
        expiries.chain(timeouts).chain(self.unused_until()).min()
    }

    fn overdue_at(&self, message: &Message) -> Option<WallMs> {
        let State::Kept(token, since) = message.state else { return None };
        let own = self.keepers.iter().find(|keeper| keeper.token == token)?.timeout_ms;
        Some(WallMs(since.0 + own.or(self.settings.consumer_timeout_ms)? as i64))
    }

    fn unused_until(&self) -> Option<WallMs> {
        let used = self.expired || !self.consumers().is_empty();
        self.settings.expires_ms.filter(|_| !used).map(|ms| WallMs(self.used_at.0 + ms as i64))
    }

    pub fn admit(&mut self, size: u32, now: WallMs, out: &mut Vec<Output>) -> Admission {
        let has_room = |model: &Model| {
            let stats = model.stats();
            model.settings.max_messages.is_none_or(|most| stats.ready < most)
                && model.settings.max_bytes.is_none_or(|most| stats.ready_bytes + u64::from(size) <= most)
        };
        if self.settings.overflow == Overflow::DropHead || has_room(self) {
            return Admission::Take;
        }
        self.dispatch(now, out);
        self.expire(now, out);
        match (has_room(self), self.settings.overflow) {
            (true, _) => Admission::Take,
            (false, Overflow::RejectPublishDeadLetter) if self.settings.dead_letter => {
                Admission::RefuseAndLeave
            }
            (false, _) => Admission::Refuse,
        }
    }

    pub fn publish(
        &mut self,
        seq: Seq,
        incoming: Incoming,
        leaves: bool,
        now: WallMs,
        out: &mut Vec<Output>,
    ) {
        let ttl = self.settings.message_ttl_ms.map(|ttl| WallMs(now.0 + ttl as i64));
        let message = Message {
            state: State::Ready,
            locator: incoming.locator,
            size: incoming.size,
            persistent: incoming.persistent,
            expires_at: incoming.expires_at.into_iter().chain(ttl).min(),
            delivered: false,
            failures: 0,
        };
        assert!(self.messages.insert(seq, message).is_none(), "a number is given once");
        if leaves {
            self.leave(seq, LeaveReason::MaxLength, out);
        }
    }

    pub fn consume(&mut self, consume: Consume, now: WallMs, out: &mut Vec<Output>) -> bool {
        let mut consumers = self.keepers.iter().filter_map(|keeper| keeper.consumer.as_ref());
        let in_use = consumers.any(|other| other.consume.exclusive || consume.exclusive);
        if in_use {
            return false;
        }
        self.touch(now);
        let credit = consume.credit;
        let consumer = Consumer { consume, messages: credit.messages, bytes: credit.bytes.into() };
        let (token, timeout_ms) = (consume.token, consume.timeout_ms);
        self.keepers.push(Keeper { token, timeout_ms, consumer: Some(consumer) });
        self.elect(out);
        self.line_up(token);
        true
    }

    fn consumer(&mut self, token: Token) -> Option<&mut Consumer> {
        self.keepers.iter_mut().find(|keeper| keeper.token == token)?.consumer.as_mut()
    }

    pub fn credit(&mut self, token: Token, credit: Credit) {
        if let Some(consumer) = self.consumer(token) {
            consumer.messages += credit.messages;
            consumer.bytes += i64::from(credit.bytes);
            self.line_up(token);
        }
    }

    fn line_up(&mut self, token: Token) {
        let waits = self.settings.single_active_consumer && self.active != Some(token);
        let able = self.consumer(token).is_some_and(|consumer| consumer.messages > 0 && consumer.bytes > 0);
        if able && !waits && !self.line.contains(&token) {
            self.line.push(token);
        }
    }

    fn elect(&mut self, out: &mut Vec<Output>) {
        if !self.settings.single_active_consumer || self.active.is_some() {
            return;
        }
        let consumers = self.keepers.iter().filter_map(|keeper| keeper.consumer.as_ref());
        let best = consumers.min_by_key(|consumer| Reverse(consumer.consume.priority));
        self.active = best.map(|consumer| consumer.consume.token);
        if let Some(token) = self.active {
            out.push(Output::Activated(token));
            self.line_up(token);
        }
    }

    pub fn cancel(&mut self, token: Token, now: WallMs, out: &mut Vec<Output>) {
        if self.consumer(token).is_none() {
            return;
        }
        for keeper in self.keepers.iter_mut().filter(|keeper| keeper.token == token) {
            keeper.consumer = None;
        }
        self.line.retain(|other| *other != token);
        if self.active == Some(token) {
            self.active = None;
            self.elect(out);
        }
        if self.consumers().is_empty() {
            self.touch(now);
            out.push(Output::Unused);
        }
        self.release(token, out);
    }

    fn release(&mut self, token: Token, out: &mut Vec<Output>) {
        let keeps = |message: &Message| matches!(message.state, State::Kept(other, _) if other == token);
        let done = self.consumer(token).is_none() && !self.messages.values().any(keeps);
        if done && self.keepers.iter().any(|keeper| keeper.token == token) {
            self.keepers.retain(|keeper| keeper.token != token);
            out.push(Output::Released(token));
        }
    }

    pub fn get(&mut self, keeper: Option<Token>, now: WallMs, out: &mut Vec<Output>) -> Option<Delivery> {
        self.touch(now);
        self.keepers.extend(keeper.map(|token| Keeper { token, timeout_ms: None, consumer: None }));
        let delivery = self.first(now, out).map(|seq| {
            let delivery = self.delivery(seq);
            self.give(seq, keeper, now, out);
            delivery
        });
        if let Some(token) = keeper {
            self.release(token, out);
        }
        delivery
    }

    /// The first message that has not expired, after those that have.
    fn first(&mut self, now: WallMs, out: &mut Vec<Output>) -> Option<Seq> {
        loop {
            let (&seq, message) = self.ready().next()?;
            // In its last millisecond it may still be delivered.
            if !message.expired(WallMs(now.0 - 1)) {
                return Some(seq);
            }
            self.leave(seq, LeaveReason::Expired, out);
        }
    }

    fn delivery(&self, seq: Seq) -> Delivery {
        let message = &self.messages[&seq];
        Delivery {
            seq,
            locator: message.locator,
            size: message.size,
            failures: message.failures,
            redelivered: message.delivered,
            persistent: message.persistent,
        }
    }

    fn give(&mut self, seq: Seq, keeper: Option<Token>, now: WallMs, out: &mut Vec<Output>) {
        match keeper {
            Some(token) => {
                let message = self.message(seq);
                message.state = State::Kept(token, now);
                message.delivered = true;
            }
            None => self.settled(seq, Cause::Delivered, out),
        }
    }

    fn settled(&mut self, seq: Seq, cause: Cause, out: &mut Vec<Output>) {
        let message = self.messages.remove(&seq).expect("there is such a message");
        let (locator, size, persistent) = (message.locator, message.size, message.persistent);
        out.push(Output::Settled { seq, locator, size, persistent, cause });
    }

    fn leave(&mut self, seq: Seq, reason: LeaveReason, out: &mut Vec<Output>) {
        if !self.settings.dead_letter {
            return self.settled(seq, Cause::Dropped(reason), out);
        }
        let message = self.message(seq);
        message.state = State::Leaving(reason, false);
        out.push(Output::Leaving { seq, reason, persistent: message.persistent });
    }

    pub fn settle(
        &mut self,
        token: Token,
        first: Seq,
        last: Seq,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) -> u32 {
        let keeps = |message: &Message| matches!(message.state, State::Kept(other, _) if other == token);
        let seqs: Vec<_> = self.seqs(keeps).into_iter().filter(|seq| (first..=last).contains(seq)).collect();
        for &seq in &seqs {
            match verdict {
                Verdict::Ack => self.settled(seq, Cause::Acked, out),
                Verdict::Reject => self.leave(seq, LeaveReason::Rejected, out),
                Verdict::Requeue { failed } => self.requeue(seq, failed, out),
            }
        }
        if !seqs.is_empty() {
            self.release(token, out);
        }
        seqs.len() as u32
    }

    fn requeue(&mut self, seq: Seq, failed: bool, out: &mut Vec<Output>) {
        let limit = self.settings.delivery_limit;
        let message = self.message(seq);
        if failed {
            message.failures += 1;
            if limit.is_some_and(|limit| u32::from(message.failures) > limit) {
                return self.leave(seq, LeaveReason::DeliveryLimit, out);
            }
            let (failures, persistent) = (message.failures, message.persistent);
            out.push(Output::Failed { seq, failures, persistent });
        }
        self.message(seq).state = State::Ready;
    }

    pub fn run(&mut self, now: WallMs, out: &mut Vec<Output>) {
        self.time_out(now, out);
        self.dispatch(now, out);
        self.expire(now, out);
        if self.settings.overflow == Overflow::DropHead {
            while self.settings.max_messages.is_some_and(|most| self.stats().ready > most)
                || self.settings.max_bytes.is_some_and(|most| self.stats().ready_bytes > most)
            {
                let seq = *self.ready().next().expect("too many are some").0;
                self.leave(seq, LeaveReason::MaxLength, out);
            }
        }
        for seq in self.seqs(|message| message.state == State::Purged) {
            self.settled(seq, Cause::Purged, out);
        }
        if self.unused_until().is_some_and(|at| at <= now) {
            self.expired = true;
            out.push(Output::Expired);
        }
    }

    fn time_out(&mut self, now: WallMs, out: &mut Vec<Output>) {
        let mut tokens = Vec::new();
        for message in self.messages.values() {
            if let State::Kept(token, _) = message.state
                && self.overdue_at(message).is_some_and(|at| at <= now)
                && !tokens.contains(&token)
            {
                tokens.push(token);
            }
        }
        for token in tokens {
            out.push(Output::TimedOut(token));
            self.cancel(token, now, out);
            self.settle(token, Seq(0), Seq(u64::MAX), Verdict::Requeue { failed: true }, out);
        }
    }

    fn dispatch(&mut self, now: WallMs, out: &mut Vec<Output>) {
        loop {
            let priorities: BTreeMap<Token, i32> = self
                .keepers
                .iter()
                .filter_map(|keeper| Some((keeper.token, keeper.consumer.as_ref()?.consume.priority)))
                .collect();
            let Some(&token) = self.line.iter().min_by_key(|token| Reverse(priorities[token])) else {
                return;
            };
            let Some(seq) = self.first(now, out) else { return };
            let delivery = self.delivery(seq);
            self.line.retain(|other| *other != token);
            let consumer = self.consumer(token).expect("who stands in line consumes");
            consumer.messages -= 1;
            consumer.bytes -= i64::from(delivery.size);
            let no_ack = consumer.consume.no_ack;
            self.line_up(token);
            out.push(Output::Deliver(token, delivery));
            self.give(seq, (!no_ack).then_some(token), now, out);
        }
    }

    fn expire(&mut self, now: WallMs, out: &mut Vec<Output>) {
        for seq in self.seqs(|message| message.expired(now)) {
            self.leave(seq, LeaveReason::Expired, out);
        }
    }

    pub fn tell_leaving(&mut self, most: usize, out: &mut Vec<Output>) {
        let untold = self.seqs(|message| matches!(message.state, State::Leaving(_, false)));
        for seq in untold.into_iter().take(most) {
            let message = self.message(seq);
            let State::Leaving(reason, told) = &mut message.state else { unreachable!("it is leaving") };
            *told = true;
            let reason = *reason;
            let (locator, size, persistent) = (message.locator, message.size, message.persistent);
            out.push(Output::Leave { seq, locator, size, reason, persistent });
        }
    }

    fn leaving(&mut self, seq: Seq) -> Option<&mut bool> {
        match &mut self.messages.get_mut(&seq)?.state {
            State::Leaving(_, told) => Some(told),
            _ => None,
        }
    }

    pub fn left(&mut self, seq: Seq, out: &mut Vec<Output>) -> bool {
        let leaving = self.leaving(seq).is_some();
        if leaving {
            self.settled(seq, Cause::Left, out);
        }
        leaving
    }

    pub fn tell_again(&mut self, from: Seq, most: usize, is_busy: impl Fn(Seq) -> bool) -> Option<Seq> {
        let (mut again, mut chunk) = (0, from.0 / 64);
        while again < most {
            let leaving = |(seq, message): (&Seq, &Message)| {
                matches!(message.state, State::Leaving(..)).then_some(seq.0 / 64)
            };
            let at = self.messages.range(Seq(chunk * 64)..).find_map(leaving)?;
            for (seq, message) in self.messages.range_mut(Seq(at * 64)..Seq((at + 1) * 64)) {
                if let State::Leaving(_, told @ true) = &mut message.state
                    && !is_busy(*seq)
                {
                    *told = false;
                    again += 1;
                }
            }
            chunk = at + 1;
        }
        Some(Seq(chunk * 64))
    }

    pub fn lose(&mut self, seq: Seq, out: &mut Vec<Output>) -> bool {
        let Some(message) = self.messages.get(&seq) else { return false };
        let keeper = match message.state {
            State::Kept(token, ..) => Some(token),
            _ => None,
        };
        self.settled(seq, Cause::Lost, out);
        if let Some(token) = keeper {
            self.release(token, out);
        }
        true
    }

    pub fn purge(&mut self) -> u64 {
        let ready = self.seqs(|message| message.state == State::Ready);
        for &seq in &ready {
            self.message(seq).state = State::Purged;
        }
        ready.len() as u64
    }

    pub fn touch(&mut self, now: WallMs) {
        self.used_at = now;
        self.expired = false;
    }

    pub fn configure(&mut self, settings: QueueSettings, out: &mut Vec<Output>) {
        let changed = settings.single_active_consumer != self.settings.single_active_consumer;
        self.settings = settings;
        if changed {
            self.line.clear();
            self.active = None;
            self.elect(out);
            for token in self.consumers() {
                self.line_up(token);
            }
        }
    }

    pub fn relocate(&mut self, seq: Seq, locator: Locator) -> bool {
        self.messages.get_mut(&seq).map(|message| message.locator = locator).is_some()
    }

    pub fn restart(&mut self, now: WallMs) {
        self.messages.retain(|_, message| message.persistent);
        for message in self.messages.values_mut() {
            message.state = match message.state {
                State::Leaving(reason, _) => State::Leaving(reason, false),
                _ => State::Ready,
            };
        }
        *self =
            Model { messages: std::mem::take(&mut self.messages), ..Model::new(self.settings.clone(), now) };
    }
}
