//! A producer: as many messages under way as may be, or what is due, when it is due. One task sends, another takes what the
//! server says to it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::link::{Events, Outbox, connect};
use super::{Dialect, Event, Job, nats, redis};
use crate::load::notify::Notify;
use crate::load::schedule::Schedule;
use crate::load::{Count, Window, now_ns, payload, stamp};
use crate::measure::Problem;
use crate::queue::confirms::Confirms;
use crate::raw;

/// Messages that are sent in one go at most.
const BURST: usize = 64;
/// How long one goes on with what was due within the window, or waits for answers, when the server is behind.
const GRACE_NS: u64 = 10_000_000_000;
/// How long a task waits at most until it looks around.
const LOOK: Duration = Duration::from_millis(100);

/// One that is to be connected.
pub struct Publisher {
    /// What the server speaks.
    pub dialect: Dialect,
    /// Where it is.
    pub address: SocketAddr,
    /// What is asked for.
    pub job: Job,
    /// Where messages go, in turns.
    pub streams: Vec<String>,
    /// Which of all producers it is.
    pub number: usize,
    /// What answers are addressed to.
    pub name: String,
}

/// One that is connected.
pub struct Ready {
    publisher: Publisher,
    outbox: Outbox,
    events: Events,
}

impl Publisher {
    /// Connects.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let (outbox, events) = connect(self.dialect, self.address, &self.name).await?;
        Ok(Ready { publisher: self, outbox, events })
    }
}

/// What the two tasks share.
struct Shared {
    window: Window,
    size: u64,
    under_way: RefCell<Confirms>,
    count: RefCell<Count>,
    /// Told when something was stored.
    changed: Notify,
    ended: Cell<bool>,
    failed: Cell<bool>,
}

impl Ready {
    /// Loads the server until the window is over.
    pub async fn run(self, window: Window) -> Result<Count, Problem> {
        let Ready { publisher, outbox, events } = self;
        let shared = Rc::new(Shared {
            window,
            size: publisher.job.size as u64,
            under_way: RefCell::default(),
            count: RefCell::default(),
            changed: Notify::default(),
            ended: Cell::new(false),
            failed: Cell::new(false),
        });
        let stored = glommio::spawn_local(Rc::clone(&shared).take_all(events));
        let sent = publisher.send_all(&shared, outbox).await;
        shared.ended.set(true);
        stored.await?;
        sent?;
        Ok(shared.count.take())
    }
}

impl Shared {
    async fn take_all(self: Rc<Shared>, mut events: Events) -> Result<(), Problem> {
        let taken = self.take_each(&mut events).await;
        self.failed.set(taken.is_err());
        self.changed.notify();
        taken
    }

    async fn take_each(&self, events: &mut Events) -> Result<(), Problem> {
        let mut oldest = 0;
        while !self.ended.get() || self.under_way.borrow().len() > 0 {
            if raw::interrupted() || now_ns() > self.window.until_ns.saturating_add(2 * GRACE_NS) {
                return Ok(());
            }
            let soon = async {
                sleep(LOOK).await;
                Ok(Event::Other)
            };
            let event = if events.has_next() { events.next().await } else { or(events.next(), soon).await };
            if let Event::Stored(number) = event? {
                oldest += 1;
                let mut due = Vec::new();
                self.under_way.borrow_mut().confirmed(number.unwrap_or(oldest), false, |at| due.push(at));
                self.count.borrow_mut().acknowledged_due(&self.window, due, self.size);
            }
            if !events.has_next() {
                self.changed.notify();
            }
            glommio::yield_if_needed().await;
        }
        Ok(())
    }
}

impl Publisher {
    async fn send_all(&self, shared: &Shared, mut outbox: Outbox) -> Result<(), Problem> {
        let until = shared.window.until_ns;
        let mut schedule = self
            .job
            .rate
            .map(|rate| Schedule::new(shared.window.start_ns, rate, self.number, self.job.producers));
        let mut body = payload(self.job.size, self.number as u64);
        let mut burst = Vec::new();
        let mut number = 0_u64;
        loop {
            let now = now_ns();
            if raw::interrupted() || shared.failed.get() {
                return Ok(());
            }
            burst.clear();
            let under_way = shared.under_way.borrow().len();
            let room = self.job.window.saturating_sub(under_way).min(BURST);
            for _ in 0..room {
                let due = match &mut schedule {
                    Some(schedule) => schedule.take(now.min(until)),
                    None => (now < until).then_some(now),
                };
                let Some(due) = due else { break };
                stamp(&mut body, due);
                number += 1;
                let stream = &self.streams[number as usize % self.streams.len()];
                match self.dialect {
                    Dialect::Nats => nats::publish(&self.name, stream, number, &body, &mut burst),
                    Dialect::Redis => redis::publish(stream, &body, &mut burst),
                }
                shared.under_way.borrow_mut().published(due);
            }
            if !burst.is_empty() {
                outbox.send(&burst).await?;
                glommio::yield_if_needed().await;
                continue;
            }
            let next_ns = schedule.as_ref().map_or(u64::MAX, Schedule::next_ns);
            let waiting = next_ns <= now.min(until);
            if now >= until && (!waiting || now > until.saturating_add(GRACE_NS)) {
                if let Some(schedule) = &schedule {
                    shared.count.borrow_mut().unsent = schedule.waiting(until.saturating_sub(1));
                }
                return Ok(());
            }
            let look = now + LOOK.as_nanos() as u64;
            let next = if waiting { look } else { next_ns.max(now + 1).min(until.max(now + 1)).min(look) };
            or(sleep(Duration::from_nanos(next - now)), shared.changed.notified()).await;
        }
    }
}
