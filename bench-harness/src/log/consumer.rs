//! A consumer of some partitions: it fetches what there is, one request after the other.

use std::net::SocketAddr;

use millstream_engine::format::batch::{BatchHeader, HEADER_BYTES, records};

use super::link::{Answers, Outbox, connect};
use super::wire::{self, Fetched};
use super::workload::{Mode, Workload};
use crate::kafka::wire::check;
use crate::load::{Count, Window, now_ns, stamped};
use crate::measure::Problem;
use crate::raw;

/// How long a consumer goes on after the window, for what was due within it.
const GRACE_NS: u64 = 15_000_000_000;
/// What a fetch answers if an offset is not in the log.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// One that is to be connected.
pub struct Consumer {
    /// What it takes part in.
    pub workload: Workload,
    /// The broker.
    pub broker: SocketAddr,
    /// Its partitions.
    pub parts: Vec<Part>,
}

/// A partition that is read.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which.
    pub partition: u32,
    /// Where to begin.
    pub start: i64,
    /// Where to begin anew; never for what is being produced.
    pub end: i64,
}

/// One that is connected.
pub struct Ready {
    workload: Workload,
    outbox: Outbox,
    answers: Answers,
    parts: Vec<Part>,
    /// Where each goes on.
    at: Vec<(u32, i64)>,
}

impl Consumer {
    /// Connects.
    pub async fn prepare(self) -> Result<Ready, Problem> {
        let (outbox, answers) = connect(self.broker).await?;
        let at = self.parts.iter().map(|part| (part.partition, part.start)).collect();
        Ok(Ready { workload: self.workload, outbox, answers, at, parts: self.parts })
    }
}

/// What one partition brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Brought {
    records: u64,
    bytes: u64,
    /// The next offset; none if there was no whole batch.
    next: Option<i64>,
}

impl Ready {
    /// Fetches until the window is over; at the end of a log that nobody writes to, from its beginning again. A consumer
    /// of what is being produced goes on until it has everything that was due within the window.
    pub async fn run(mut self, window: Window) -> Result<Count, Problem> {
        let tail = self.workload.mode == Mode::EndToEnd;
        let mut count = Count::default();
        loop {
            self.outbox.send(&wire::fetch(&self.workload.topic, self.workload.fetch(), &self.at)).await?;
            let mut answer = self.answers.next().await?;
            let now = now_ns();
            let (mut records, mut bytes) = (0, 0);
            let (parts, at) = (&self.parts, &mut self.at);
            wire::fetched(&mut answer, |fetched| {
                let place = at.iter().position(|(partition, _)| *partition == fetched.partition);
                let place = place.ok_or("a fetch was answered with a partition that was not asked for")?;
                let (part, offset) = (&parts[place], &mut at[place].1);
                if fetched.error == OFFSET_OUT_OF_RANGE {
                    return Err(format!("offset {offset} is not in the log any more").into());
                }
                check(fetched.error)?;
                let brought = brought(&fetched, |due| count.arrived(&window, now, due))?;
                records += brought.records;
                bytes += brought.bytes;
                *offset = brought.next.unwrap_or(*offset);
                if *offset >= part.end {
                    *offset = part.start;
                }
                Ok(())
            })?;
            count.received(&window, now, records, bytes);
            let all_there = !tail || records == 0 || now > window.until_ns.saturating_add(GRACE_NS);
            if raw::interrupted() || (window.over() && all_there) {
                return Ok(count);
            }
            glommio::yield_if_needed().await;
        }
    }
}

/// Looks at the whole batches of a partition's part.
fn brought(fetched: &Fetched<'_>, mut arrived: impl FnMut(u64)) -> Result<Brought, Problem> {
    let mut all = Brought::default();
    let mut rest = fetched.bytes;
    while rest.len() >= HEADER_BYTES {
        let header = BatchHeader::parse(rest)?;
        let Some((batch, after)) = rest.split_at_checked(header.size) else { break };
        rest = after;
        all.records += u64::from(header.records);
        all.bytes += batch.len() as u64;
        all.next = Some(header.next_offset().0 as i64);
        if header.attributes.codec() != 0 {
            continue;
        }
        // What is not stamped in one record is stamped in none of its batch.
        for record in records(batch)? {
            match record?.value.and_then(stamped) {
                Some(due) => arrived(due),
                None => break,
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use millstream_engine::format::batch::{BatchBuilder, stamp as place};
    use millstream_engine::types::{LeaderEpoch, Offset};

    use super::*;
    use crate::load::stamp;

    fn batch(offset: u64, due: &[u64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(0);
        for due in due {
            let mut value = vec![0; 20];
            stamp(&mut value, *due);
            builder.push(None, Some(&value));
        }
        let mut bytes = builder.build();
        place(&mut bytes, Offset(offset), LeaderEpoch(0));
        bytes
    }

    #[test]
    fn a_batch_that_is_cut_off_is_fetched_again() {
        let bytes = [batch(7, &[1, 2, 3]), batch(10, &[4, 5])].concat();
        for cut in 0..batch(10, &[4, 5]).len() {
            let mut due = Vec::new();
            let part = Fetched { partition: 0, error: 0, bytes: &bytes[..bytes.len() - cut] };
            let brought = brought(&part, |at| due.push(at)).unwrap();
            let whole = cut == 0;
            assert_eq!(brought.next, Some(if whole { 12 } else { 10 }));
            assert_eq!(due, if whole { vec![1, 2, 3, 4, 5] } else { vec![1, 2, 3] });
            assert_eq!(brought.records, due.len() as u64);
        }
    }

    #[test]
    fn bytes_that_are_no_batch_are_an_error() {
        let part = Fetched { partition: 0, error: 0, bytes: &[7; 100] };
        assert!(brought(&part, |_| ()).is_err());
    }
}
