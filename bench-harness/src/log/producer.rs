//! A producer: either it sends what was prepared as fast as it is answered, or it sends what is due, when it is due,
//! whatever the broker does.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::batches::{Batches, Request};
use super::link::{Answers, Outbox, connect};
use super::wire;
use super::workload::{Acks, Workload};
use crate::load::notify::Notify;
use crate::load::schedule::Schedule;
use crate::load::{Count, Window, now_ns};
use crate::measure::Problem;
use crate::raw;

/// How long a paced producer goes on with what was due within the window, when the broker is behind.
const GRACE_NS: u64 = 10_000_000_000;
/// Records that are put into batches before the task lets others run.
const RECORDS_PER_STEP: u64 = 4096;

/// One that is to be connected.
pub struct Producer {
    /// What it sends.
    pub workload: Workload,
    /// Where to.
    pub broker: SocketAddr,
    /// Which of all producers it is.
    pub number: usize,
    /// Records that it sends at most.
    pub records_max: u64,
}

/// One that is connected.
pub struct Ready {
    producer: Producer,
    outbox: Outbox,
    answers: Answers,
    batches: Batches,
    prepared: Vec<Request>,
}

impl Producer {
    /// Connects, and prepares what it will send.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let (outbox, answers) = connect(self.broker).await?;
        let batches = || Batches::new(&self.workload, self.number);
        let prepared = if self.workload.is_paced() { Vec::new() } else { batches().prepared() };
        Ok(Ready { batches: batches(), prepared, producer: self, outbox, answers })
    }
}

impl Ready {
    /// Loads the broker until the window is over.
    pub async fn run(self, window: Window) -> Result<Count, Problem> {
        if self.producer.workload.is_paced() { self.paced(window).await } else { self.unpaced(window).await }
    }

    /// As many requests under way as are allowed, always.
    async fn unpaced(mut self, window: Window) -> Result<Count, Problem> {
        let Producer { workload, records_max, .. } = self.producer;
        let mut count = Count::default();
        // When each request under way was sent, its records and their bytes.
        let mut sent: VecDeque<(u64, u64, u64)> = VecDeque::new();
        let mut requests = (0..self.prepared.len()).cycle();
        let mut records = 0;
        loop {
            while sent.len() < workload.max_in_flight && records < records_max && !window.over() {
                let Some(request) = requests.next().and_then(|next| self.prepared.get_mut(next)) else {
                    break;
                };
                request.stamp();
                let now = now_ns();
                self.outbox.send(&request.frame).await?;
                records += request.records;
                if workload.acks == Acks::None {
                    count.sent(&window, request.records, workload.record_size as u64);
                    glommio::yield_if_needed().await;
                } else {
                    sent.push_back((now, request.records, request.bytes));
                }
            }
            let Some((since, acknowledged, bytes)) = sent.pop_front() else { return Ok(count) };
            wire::produced(&mut self.answers.next().await?)?;
            count.acknowledged(&window, since, acknowledged, bytes);
            glommio::yield_if_needed().await;
        }
    }

    /// One task sends what is due, another takes the answers.
    async fn paced(self, window: Window) -> Result<Count, Problem> {
        let shared = Rc::new(Shared {
            window,
            record_bytes: self.producer.workload.record_size as u64,
            under_way: RefCell::default(),
            count: RefCell::default(),
            changed: Notify::default(),
            came: Notify::default(),
            ended: Cell::new(false),
        });
        let answers = self.answers;
        let answered = glommio::spawn_local(Rc::clone(&shared).take_answers(answers));
        let sent = Sender {
            schedule: Schedule::new(
                window.start_ns,
                self.producer.workload.throughput,
                self.producer.number,
                self.producer.workload.producers,
            ),
            left: self.producer.records_max,
            workload: self.producer.workload,
            batches: self.batches,
            outbox: self.outbox,
            oldest_ns: None,
        }
        .send_all(&shared)
        .await;
        shared.ended.set(true);
        shared.came.notify();
        // A broker that broke the connection says more by the answers' end than by a failed send.
        answered.await?;
        sent?;
        Ok(shared.count.take())
    }
}

/// What the two tasks of a paced producer share.
struct Shared {
    window: Window,
    record_bytes: u64,
    /// When the records of each request under way were due.
    under_way: RefCell<VecDeque<Vec<u64>>>,
    count: RefCell<Count>,
    /// Told when an answer has come, or none will.
    changed: Notify,
    /// Told when there is an answer to wait for, or there will be none.
    came: Notify,
    ended: Cell<bool>,
}

impl Shared {
    async fn take_answers(self: Rc<Shared>, mut answers: Answers) -> Result<(), Problem> {
        let taken = self.take_each(&mut answers).await;
        if taken.is_err() {
            self.ended.set(true);
        }
        self.changed.notify();
        taken
    }

    async fn take_each(&self, answers: &mut Answers) -> Result<(), Problem> {
        loop {
            if self.under_way.borrow().is_empty() {
                if self.ended.get() {
                    return Ok(());
                }
                self.came.notified().await;
                continue;
            }
            wire::produced(&mut answers.next().await?)?;
            let due = self.under_way.borrow_mut().pop_front().unwrap_or_default();
            self.count.borrow_mut().acknowledged_due(&self.window, due, self.record_bytes);
            self.changed.notify();
            glommio::yield_if_needed().await;
        }
    }
}

struct Sender {
    workload: Workload,
    schedule: Schedule,
    /// Records that may still be sent.
    left: u64,
    batches: Batches,
    outbox: Outbox,
    /// When the oldest record that waits in a batch was put there.
    oldest_ns: Option<u64>,
}

impl Sender {
    async fn send_all(mut self, shared: &Shared) -> Result<(), Problem> {
        let until = shared.window.until_ns;
        loop {
            let now = now_ns();
            if raw::interrupted() || shared.ended.get() {
                return Ok(());
            }
            let behind = self.take_due(now.min(until));
            let nothing_more = now >= until || self.left == 0;
            if nothing_more && !behind && self.batches.waiting() == 0 {
                return Ok(());
            }
            if now > until.saturating_add(GRACE_NS) {
                shared.count.borrow_mut().unsent = self.batches.waiting() + self.schedule.waiting(until);
                return Ok(());
            }
            if let Some(request) = self.ready(shared, now, nothing_more) {
                self.outbox.send(&request.frame).await?;
                if self.workload.acks == Acks::None {
                    shared.count.borrow_mut().sent(&shared.window, request.records, shared.record_bytes);
                } else {
                    shared.under_way.borrow_mut().push_back(request.due);
                    shared.came.notify();
                }
                glommio::yield_if_needed().await;
                continue;
            }
            let wait_ns = self.next_ns(shared, now, until).saturating_sub(now);
            or(sleep(Duration::from_nanos(wait_ns)), shared.changed.notified()).await;
        }
    }

    /// Puts what is due into batches, as long as there is room for it; says whether something is left.
    fn take_due(&mut self, now: u64) -> bool {
        for _ in 0..RECORDS_PER_STEP {
            if self.left == 0 || self.batches.full_requests() > self.workload.max_in_flight {
                break;
            }
            let Some(due) = self.schedule.take(now) else { return false };
            self.batches.push(due);
            self.left -= 1;
            self.oldest_ns.get_or_insert(now_ns());
        }
        self.left > 0 && self.schedule.next_ns() <= now
    }

    /// The next request, if there is one to send and the broker may get another.
    fn ready(&mut self, shared: &Shared, now: u64, at_end: bool) -> Option<Request> {
        if shared.under_way.borrow().len() >= self.workload.max_in_flight {
            return None;
        }
        let lingered = self.oldest_ns.is_some_and(|oldest| now >= oldest + self.linger_ns());
        if !lingered && !at_end && !self.batches.has_full() {
            return None;
        }
        let request = self.batches.request(lingered || at_end)?;
        self.oldest_ns = (self.batches.waiting() > 0).then_some(now);
        Some(request)
    }

    fn linger_ns(&self) -> u64 {
        (self.workload.linger_ms * 1e6) as u64
    }

    /// When there is something to do next, if no answer comes before.
    fn next_ns(&self, shared: &Shared, now: u64, until: u64) -> u64 {
        const SOON_NS: u64 = 100_000_000;
        if shared.under_way.borrow().len() >= self.workload.max_in_flight {
            return now + SOON_NS;
        }
        let lingered = self.oldest_ns.map(|oldest| oldest + self.linger_ns()).filter(|at| *at > now);
        let due = self.schedule.next_ns();
        // What comes due while others wait anyway need not wake anybody, unless it fills a batch.
        let due = match lingered {
            Some(lingered) => lingered.min(due + self.batches.records_to_full() * self.interval_ns()),
            None => due,
        };
        let at = if due > now { due } else { now + SOON_NS };
        at.min(until.max(now + 1)).min(now + SOON_NS)
    }

    fn interval_ns(&self) -> u64 {
        (1e9 * self.workload.producers as f64 / self.workload.throughput) as u64
    }
}
