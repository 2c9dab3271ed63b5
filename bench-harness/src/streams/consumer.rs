//! A consumer: follows streams, or takes tasks and acknowledges them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::link::{Events, Outbox, connect};
use super::{Dialect, Event, Job, nats, redis};
use crate::load::{Count, Window, now_ns, stamped};
use crate::measure::Problem;
use crate::raw;

/// How long nothing may come until a consumer looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);
/// How long one goes on after the window, for what was due within it.
const GRACE_NS: u64 = 15_000_000_000;
/// Bytes of acknowledgements that are sent together at most.
const ACKS_BYTES: usize = 4096;

/// One that is to be connected.
pub struct Consumer {
    /// What the server speaks.
    pub dialect: Dialect,
    /// Where it is.
    pub address: SocketAddr,
    /// What is asked for.
    pub job: Job,
    /// What it reads.
    pub streams: Vec<String>,
    /// What messages are addressed to.
    pub name: String,
}

/// One that is connected.
pub struct Ready {
    consumer: Consumer,
    outbox: Outbox,
    events: Events,
}

impl Consumer {
    /// Connects; from then on messages come, where they are sent without being asked for.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let (mut outbox, mut events) = connect(self.dialect, self.address, &self.name).await?;
        if self.dialect == Dialect::Nats {
            for stream in &self.streams {
                outbox.send(&nats::consume(&self.name, stream, self.job.tasks)).await?;
                while events.next().await? != Event::Done {}
            }
        }
        Ok(Ready { consumer: self, outbox, events })
    }
}

/// Counts a message, and when it was due.
fn arrived(count: &mut Count, window: &Window, body: &[u8]) {
    let now = now_ns();
    count.received(window, now, 1, body.len() as u64);
    if let Some(due) = stamped(body) {
        count.arrived(window, now, due);
    }
}

impl Ready {
    /// Consumes until the window is over; if producers keep to a schedule, until nothing comes any more.
    pub async fn run(self, window: Window) -> Result<Count, Problem> {
        match self.consumer.dialect {
            Dialect::Nats => self.pushed(window).await,
            Dialect::Redis => self.asked(window).await,
        }
    }

    fn over(&self, window: &Window) -> bool {
        raw::interrupted()
            || (window.over() && self.consumer.job.rate.is_none())
            || now_ns() > window.until_ns.saturating_add(GRACE_NS)
    }

    /// Takes what is sent without being asked for.
    async fn pushed(mut self, window: Window) -> Result<Count, Problem> {
        let mut count = Count::default();
        let mut acks = Vec::new();
        while !self.over(&window) {
            let there = self.events.has_next();
            let nothing = async {
                sleep(LOOK).await;
                Ok(Event::Other)
            };
            let event = if there { self.events.next().await } else { or(self.events.next(), nothing).await };
            match event? {
                Event::Messages(messages) => {
                    for message in messages {
                        arrived(&mut count, &window, message.body);
                        if self.consumer.job.tasks.is_some() {
                            nats::ack(message.id, &mut acks);
                        }
                    }
                }
                Event::Other if !there && window.over() => return Ok(count),
                _ => {}
            }
            if !acks.is_empty() && (!self.events.has_next() || acks.len() >= ACKS_BYTES) {
                self.outbox.send(&acks).await?;
                acks.clear();
            }
            glommio::yield_if_needed().await;
        }
        Ok(count)
    }

    /// Asks, takes what comes, and asks for what is next; acknowledgements go with the question.
    async fn asked(mut self, window: Window) -> Result<Count, Problem> {
        let mut count = Count::default();
        let mut at: Vec<(String, Vec<u8>)> =
            self.consumer.streams.iter().map(|stream| (stream.clone(), b"0-0".to_vec())).collect();
        let mut ids: Vec<Vec<u8>> = Vec::new();
        let mut request = Vec::new();
        while !self.over(&window) {
            request.clear();
            let stream = self.consumer.streams.first().ok_or("a consumer of nothing")?;
            match self.consumer.job.tasks {
                Some(under_way) => {
                    if !ids.is_empty() {
                        redis::ack(stream, &ids, &mut request);
                        ids.clear();
                    }
                    redis::read_tasks(stream, under_way, &mut request);
                }
                None => redis::read(&at, &mut request),
            }
            self.outbox.send(&request).await?;
            let nothing = loop {
                let Event::Messages(messages) = self.events.next().await? else { continue };
                for message in &messages {
                    arrived(&mut count, &window, message.body);
                    if self.consumer.job.tasks.is_some() {
                        ids.push(message.id.to_vec());
                    } else if let Some((_, id)) =
                        at.iter_mut().find(|(stream, _)| stream.as_bytes() == message.stream)
                    {
                        id.clear();
                        id.extend_from_slice(message.id);
                    }
                }
                break messages.is_empty();
            };
            if nothing && window.over() {
                break;
            }
            glommio::yield_if_needed().await;
        }
        Ok(count)
    }
}
