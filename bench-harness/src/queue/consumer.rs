//! A consumer: takes what comes and acknowledges it, so many messages at a time.

use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::Broker;
use super::codec::{Frame, Writer};
use super::link::Link;
use super::workload::Workload;
use crate::load::{Count, Window, now_ns, stamped};
use crate::measure::Problem;
use crate::raw;

/// How long nothing may come until a consumer looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes of acknowledgements that are sent together at most.
const ACKS_BYTES: usize = 4096;
/// How long one goes on after the window, for what was due within it.
const GRACE_NS: u64 = 15_000_000_000;

/// One that is to be connected.
pub struct Consumer {
    /// What it takes part in.
    pub workload: Workload,
    /// The broker.
    pub broker: Broker,
    /// The queues.
    pub queues: Vec<String>,
}

/// One that is connected.
pub struct Ready {
    workload: Workload,
    link: Link,
}

impl Consumer {
    /// Connects and asks for what will come: nothing is published yet.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let mut link = Link::connect(&self.broker).await?;
        if self.workload.qos > 0 {
            let qos = self.workload.qos;
            link.ask(|writer| writer.qos(qos)).await?;
        }
        for queue in &self.queues {
            link.ask(|writer| writer.consume(queue, self.workload.autoack)).await?;
        }
        Ok(Ready { workload: self.workload, link })
    }
}

/// The message that comes.
#[derive(Default)]
struct Message {
    tag: u64,
    size: u64,
    left: u64,
    due: Option<u64>,
}

impl Ready {
    /// Consumes until the window is over; if producers keep to a schedule, until nothing comes any more.
    pub async fn run(mut self, window: Window) -> Result<Count, Problem> {
        let auto_ack = self.workload.autoack;
        let paced = self.workload.is_paced();
        let mut count = Count::default();
        let mut message = Message::default();
        let mut unacknowledged = 0;
        let mut acks = Writer::default();
        loop {
            if raw::interrupted() || (window.over() && !paced) || now_ns() > window.until_ns + GRACE_NS {
                return Ok(count);
            }
            let nothing = async {
                sleep(LOOK).await;
                Ok(Frame::Other)
            };
            let there = self.link.frames.has_next();
            let frame = if there {
                self.link.frames.next().await
            } else {
                or(self.link.frames.next(), nothing).await
            };
            let whole = match frame? {
                Frame::Deliver { tag } => {
                    message = Message { tag, ..Message::default() };
                    false
                }
                Frame::Content { size } => {
                    (message.size, message.left) = (size, size);
                    size == 0
                }
                Frame::Body(bytes) => {
                    if message.left == message.size {
                        message.due = stamped(bytes);
                    }
                    message.left = message.left.saturating_sub(bytes.len() as u64);
                    message.left == 0
                }
                Frame::Other if !there && window.over() => return Ok(count),
                _ => false,
            };
            if !there {
                glommio::yield_if_needed().await;
            }
            if whole {
                let now = now_ns();
                count.received(&window, now, 1, message.size);
                if let Some(due) = message.due {
                    count.arrived(&window, now, due);
                }
                unacknowledged += 1;
                if !auto_ack && unacknowledged >= self.workload.multi_ack_every {
                    acks.ack(message.tag, unacknowledged > 1);
                    unacknowledged = 0;
                }
            }
            if !acks.0.is_empty() && (!self.link.frames.has_next() || acks.0.len() >= ACKS_BYTES) {
                self.link.outbox.send(&acks.0).await?;
                acks.0.clear();
                glommio::yield_if_needed().await;
            }
        }
    }
}
