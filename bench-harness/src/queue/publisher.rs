//! A producer: as many messages under way as may be unconfirmed, or what is due, when it is due.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::Broker;
use super::codec::{Frame, Writer, frame_len};
use super::confirms::Confirms;
use super::link::{Frames, Link, Outbox};
use super::workload::Workload;
use crate::load::notify::Notify;
use crate::load::schedule::Schedule;
use crate::load::{Count, Window, now_ns, payload, stamp};
use crate::measure::Problem;
use crate::raw;

/// How long a paced producer goes on with what was due within the window, when the broker is behind.
const GRACE_NS: u64 = 10_000_000_000;

/// One that is to be connected.
pub struct Publisher {
    /// What it sends.
    pub workload: Workload,
    /// Where to.
    pub broker: Broker,
    /// The queues.
    pub queues: Vec<String>,
    /// Which of all producers it is.
    pub number: usize,
}

/// One that is connected.
pub struct Ready {
    workload: Workload,
    number: usize,
    link: Link,
    template: Template,
}

/// A message in its frames: the method of each queue, and the content, with where in it the body is.
struct Template {
    methods: Vec<Vec<u8>>,
    /// The queue whose turn it is.
    turn: usize,
    content: Vec<u8>,
    body: usize,
    size: usize,
}

impl Template {
    fn new(queues: &[String], persistent: bool, body: &[u8], frame_max: u32) -> Template {
        let mut template =
            Template { methods: Vec::new(), turn: 0, content: Vec::new(), body: 0, size: body.len() };
        for queue in queues {
            let mut writer = Writer::default();
            let place = writer.publish(queue, persistent, body, frame_max);
            let method = frame_len(&writer.0).expect("a message begins with its method");
            template.content = writer.0.split_off(method);
            template.body = place - method;
            template.methods.push(writer.0);
        }
        template
    }

    /// Adds the message for the queue whose turn it is, as one that was due then.
    fn put(&mut self, due_ns: u64, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.methods[self.turn]);
        self.turn = (self.turn + 1) % self.methods.len();
        let body = into.len() + self.body;
        into.extend_from_slice(&self.content);
        if let Some(bytes) = into.get_mut(body..body + self.size.min(crate::load::STAMP_BYTES)) {
            stamp(bytes, due_ns);
        }
    }
}

impl Publisher {
    /// Connects.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let mut link = Link::connect(&self.broker).await?;
        if self.workload.window().is_some() {
            link.ask(Writer::confirm_select).await?;
        }
        let body = payload(self.workload.size, self.number as u64);
        let template = Template::new(&self.queues, self.workload.is_persistent(), &body, link.frame_max);
        Ok(Ready { workload: self.workload, number: self.number, link, template })
    }
}

impl Ready {
    /// Loads the broker until the window is over.
    pub async fn run(self, window: Window) -> Result<Count, Problem> {
        if self.workload.is_paced() {
            return self.paced(window).await;
        }
        match self.workload.window() {
            Some(unconfirmed) => self.unpaced(window, unconfirmed).await,
            None => self.unconfirmed(window).await,
        }
    }

    /// As fast as it is confirmed.
    async fn unpaced(mut self, window: Window, unconfirmed: usize) -> Result<Count, Problem> {
        let mut count = Count::default();
        let mut confirms = Confirms::default();
        let (mut burst, burst_max) = (Vec::new(), usize::from(self.workload.burst));
        loop {
            let over = window.over();
            if over && confirms.len() == 0 {
                return Ok(count);
            }
            burst.clear();
            let room = if over { 0 } else { unconfirmed.saturating_sub(confirms.len()).min(burst_max) };
            for _ in 0..room {
                let now = now_ns();
                self.template.put(now, &mut burst);
                confirms.published(now);
            }
            self.link.outbox.send(&burst).await?;
            if !over && confirms.len() < unconfirmed && !self.link.frames.has_next() {
                glommio::yield_if_needed().await;
                continue;
            }
            loop {
                take(self.link.frames.next().await?, &mut confirms, &mut count, &window, self.workload.size)?;
                if !self.link.frames.has_next() {
                    break;
                }
            }
            glommio::yield_if_needed().await;
        }
    }

    /// As fast as the connection takes it; what was sent counts.
    async fn unconfirmed(mut self, window: Window) -> Result<Count, Problem> {
        let mut count = Count::default();
        let (mut burst, messages) = (Vec::new(), u64::from(self.workload.burst));
        while !window.over() {
            burst.clear();
            let now = now_ns();
            (0..messages).for_each(|_| self.template.put(now, &mut burst));
            self.link.outbox.send(&burst).await?;
            count.sent(&window, messages, self.workload.size as u64);
            glommio::yield_if_needed().await;
        }
        Ok(count)
    }

    /// One task sends what is due, another takes the confirms.
    async fn paced(self, window: Window) -> Result<Count, Problem> {
        let Ready { workload, number, link, template } = self;
        let shared = Rc::new(Shared {
            window,
            size: workload.size,
            confirms: RefCell::default(),
            count: RefCell::default(),
            changed: Notify::default(),
            ended: Cell::new(false),
            failed: Cell::new(false),
        });
        let confirmed =
            glommio::spawn_local(Rc::clone(&shared).take_confirms(link.frames, workload.window().is_some()));
        let producers = workload.producers;
        let schedule = Schedule::new(window.start_ns, workload.rate * producers as f64, number, producers);
        let sent = send_all(&shared, &workload, schedule, link.outbox, template).await;
        shared.ended.set(true);
        // A broker that broke the connection says more by its last frame than by a failed send.
        confirmed.await?;
        sent?;
        Ok(shared.count.take())
    }
}

/// Takes a frame that a producer gets.
fn take(
    frame: Frame<'_>,
    confirms: &mut Confirms,
    count: &mut Count,
    window: &Window,
    size: usize,
) -> Result<(), Problem> {
    match frame {
        Frame::Ack { tag, multiple } => {
            let mut due = Vec::new();
            confirms.confirmed(tag, multiple, |at| due.push(at));
            count.acknowledged_due(window, due, size as u64);
            Ok(())
        }
        Frame::Nack => Err("the broker refused a message".into()),
        _ => Ok(()),
    }
}

/// What the two tasks of a paced producer share.
struct Shared {
    window: Window,
    size: usize,
    confirms: RefCell<Confirms>,
    count: RefCell<Count>,
    /// Told when confirms have come.
    changed: Notify,
    ended: Cell<bool>,
    failed: Cell<bool>,
}

impl Shared {
    async fn take_confirms(self: Rc<Shared>, mut frames: Frames, confirms: bool) -> Result<(), Problem> {
        let taken = if confirms { self.take_each(&mut frames).await } else { Ok(()) };
        self.failed.set(taken.is_err());
        self.changed.notify();
        taken
    }

    async fn take_each(&self, frames: &mut Frames) -> Result<(), Problem> {
        while !self.ended.get() || self.confirms.borrow().len() > 0 {
            // Whoever ends may do so while nothing is under way; look again soon.
            let soon = async {
                sleep(Duration::from_millis(100)).await;
                Ok(Frame::Other)
            };
            let frame = if frames.has_next() { frames.next().await } else { or(frames.next(), soon).await };
            {
                let (mut confirms, mut count) = (self.confirms.borrow_mut(), self.count.borrow_mut());
                take(frame?, &mut confirms, &mut count, &self.window, self.size)?;
            }
            self.changed.notify();
            glommio::yield_if_needed().await;
        }
        Ok(())
    }
}

async fn send_all(
    shared: &Shared,
    workload: &Workload,
    mut schedule: Schedule,
    mut outbox: Outbox,
    mut template: Template,
) -> Result<(), Problem> {
    const SOON_NS: u64 = 100_000_000;
    let until = shared.window.until_ns;
    let (mut burst, burst_max) = (Vec::new(), usize::from(workload.burst));
    loop {
        let now = now_ns();
        if raw::interrupted() || shared.failed.get() {
            return Ok(());
        }
        burst.clear();
        let room = workload
            .window()
            .map_or(burst_max, |window| window.saturating_sub(shared.confirms.borrow().len()).min(burst_max));
        let mut sent = 0;
        while sent < room
            && let Some(due) = schedule.take(now.min(until))
        {
            template.put(due, &mut burst);
            sent += 1;
            match workload.window() {
                Some(_) => shared.confirms.borrow_mut().published(due),
                None => shared.count.borrow_mut().sent(&shared.window, 1, workload.size as u64),
            }
        }
        if sent > 0 {
            outbox.send(&burst).await?;
            glommio::yield_if_needed().await;
            continue;
        }
        let waiting = schedule.next_ns() <= now.min(until);
        if now >= until && (!waiting || now > until.saturating_add(GRACE_NS)) {
            shared.count.borrow_mut().unsent = schedule.waiting(until.saturating_sub(1));
            return Ok(());
        }
        let next =
            if waiting { now + SOON_NS } else { schedule.next_ns().max(now + 1).min(until.max(now + 1)) };
        or(sleep(Duration::from_nanos(next - now)), shared.changed.notified()).await;
    }
}
