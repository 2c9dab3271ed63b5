//! Reading groups back that memory does not hold any more: whole, so that they can be checked, and a few at a time.
//!
//! One that cannot be read, or fails its checksum, is tried again after a rest, which grows. After so many attempts it is
//! lost: see `lost.rs`.

use std::collections::{BTreeMap, VecDeque};

use super::Queues;
use super::groups::{GroupKey, Site};
use crate::buffer::{Block, Pool};
use crate::error::IoError;
use crate::format::journal::check;
use crate::io::{DiskDone, Io, Token};
use crate::limits::{QUEUE_READ_ATTEMPTS_MAX, QUEUE_READS_IN_FLIGHT};
use crate::shard::tokens;
use crate::time::Nanos;
use crate::types::Lsn;

/// How long a group rests that could not be read, the first time.
const REST: Nanos = Nanos::from_millis(50);

/// A group that could not be read.
struct Failed {
    attempts: u32,
    /// Until when it rests.
    until: Nanos,
}

/// See the module.
pub struct Reading {
    pool: Pool,
    large: Pool,
    wanted: VecDeque<GroupKey>,
    sites: BTreeMap<GroupKey, Site>,
    in_flight: BTreeMap<u64, GroupKey>,
    failed: BTreeMap<GroupKey, Failed>,
    /// The next to be read waits for memory.
    starved: bool,
    last: u64,
    now: Nanos,
}

impl Reading {
    /// Nothing is read yet; blocks come from `pool`, those for messages in pieces from `large`.
    pub fn new(pool: Pool, large: Pool) -> Reading {
        Reading {
            pool,
            large,
            wanted: VecDeque::new(),
            sites: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            failed: BTreeMap::new(),
            starved: false,
            last: 0,
            now: Nanos::ZERO,
        }
    }

    /// Whether a group rests that could not be read: it is to be asked for again then.
    pub fn rests(&self, key: GroupKey) -> bool {
        self.failed.get(&key).is_some_and(|failed| self.now < failed.until)
    }

    /// When the first of them has rested.
    pub fn due(&self) -> Option<Nanos> {
        self.failed
            .iter()
            .filter(|(key, _)| !self.sites.contains_key(key))
            .map(|(_, failed)| failed.until)
            .min()
    }

    /// Reads a group when it is its turn.
    pub fn want(&mut self, key: GroupKey, site: Site) {
        if self.rests(key) {
            return;
        }
        if self.sites.insert(key, site).is_none() {
            self.wanted.push_back(key);
        }
    }

    /// Memory for a message that is put together.
    pub fn large_block(&self, len: usize) -> Option<Block> {
        self.large.block(len)
    }

    /// Whether nothing is being read.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether nothing waits to be read.
    pub fn wants_nothing(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether what is to be read next waits for memory.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Goes on: as many reads as may be in flight.
    pub fn advance<I: Io>(&mut self, io: &mut I) {
        self.now = io.now();
        self.starved = false;
        while self.in_flight.len() < QUEUE_READS_IN_FLIGHT
            && let Some(&key) = self.wanted.front()
        {
            let site = self.sites[&key];
            let Some(block) = self.pool.block(site.len) else {
                self.starved = true;
                return;
            };
            self.wanted.pop_front();
            self.last += 1;
            self.in_flight.insert(self.last, key);
            io.read(Token::new(tokens::QUEUE_READ, self.last), site.file, site.at, block, site.len);
        }
    }
}

impl Queues {
    /// Reads back what is wanted and not in memory.
    pub fn read<I: Io>(&mut self, io: &mut I) {
        if !self.reading.failed.is_empty() {
            self.reading.failed.retain(|key, _| self.groups.bytes(*key).is_some());
        }
        self.reading.advance(io);
    }

    /// A group was read, or could not be. Gives its first record if it is in memory again and the journal's.
    pub fn on_read(&mut self, token: Token, done: Result<DiskDone, IoError>) -> Option<Lsn> {
        let reading = &mut self.reading;
        let key = reading.in_flight.remove(&token.id()).expect("a read was under way");
        let site = reading.sites.remove(&key).expect("its place was known");
        self.groups.bytes(key)?; // Else nobody wants it any more, and there may be something else in its place.
        let why = match done {
            Ok(DiskDone::Read(block)) => {
                let bytes = block.freeze();
                match check(&bytes) {
                    Ok(header) if header.first_lsn == site.first_lsn && header.length == site.len => {
                        reading.failed.remove(&key);
                        self.groups.read_back(key, bytes);
                        // Files of survivors have numbers of their own.
                        return (site.store == 0).then_some(site.first_lsn);
                    }
                    _ => "it fails its checksum".to_owned(),
                }
            }
            Ok(other) => panic!("a read ended as {other:?}"),
            Err(IoError::Halted) => return None,
            Err(error) => error.to_string(),
        };
        let failed = reading.failed.entry(key).or_insert(Failed { attempts: 0, until: Nanos::ZERO });
        failed.attempts += 1;
        if failed.attempts < QUEUE_READ_ATTEMPTS_MAX {
            failed.until = reading.now + Nanos(REST.0 << (failed.attempts - 1));
            tracing::warn!(
                ?site,
                attempts = failed.attempts,
                why,
                "messages could not be read; trying again"
            );
            return None;
        }
        reading.failed.remove(&key);
        tracing::error!(?site, why, "messages cannot be read any more");
        self.lose_group(key, site);
        None
    }
}
