//! Reading groups back that memory does not hold any more: whole, so that they can be checked, and a few at a time.

use std::collections::{BTreeMap, VecDeque};

use super::Queues;
use super::groups::{GroupKey, Site};
use crate::buffer::{Block, Pool};
use crate::error::IoError;
use crate::format::journal::check;
use crate::io::{DiskDone, Io, Token};
use crate::limits::QUEUE_READS_IN_FLIGHT;
use crate::shard::tokens;

/// See the module.
pub struct Reading {
    pool: Pool,
    wanted: VecDeque<GroupKey>,
    sites: BTreeMap<GroupKey, Site>,
    in_flight: BTreeMap<u64, GroupKey>,
    last: u64,
}

impl Reading {
    /// Nothing is read yet; blocks come from `pool`.
    pub fn new(pool: Pool) -> Reading {
        Reading { pool, wanted: VecDeque::new(), sites: BTreeMap::new(), in_flight: BTreeMap::new(), last: 0 }
    }

    /// Reads a group when it is its turn.
    pub fn want(&mut self, key: GroupKey, site: Site) {
        if self.sites.insert(key, site).is_none() {
            self.wanted.push_back(key);
        }
    }

    /// Memory for a message that is put together.
    pub fn block(&self, len: usize) -> Option<Block> {
        self.pool.block(len)
    }

    /// Whether nothing is being read.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether nothing waits to be read.
    pub fn wants_nothing(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Goes on: as many reads as may be in flight.
    pub fn advance<I: Io>(&mut self, io: &mut I) {
        while self.in_flight.len() < QUEUE_READS_IN_FLIGHT
            && let Some(&key) = self.wanted.front()
        {
            let site = self.sites[&key];
            let Some(block) = self.pool.block(site.len) else { return };
            self.wanted.pop_front();
            self.last += 1;
            self.in_flight.insert(self.last, key);
            io.read(Token::new(tokens::QUEUE_READ, self.last), site.file, site.at, block, site.len);
        }
    }
}

impl Queues {
    /// A group was read, or could not be.
    pub fn on_read(&mut self, token: Token, done: Result<DiskDone, IoError>) {
        let reading = &mut self.reading;
        let key = reading.in_flight.remove(&token.id()).expect("a read was under way");
        let site = reading.sites.remove(&key).expect("its place was known");
        if self.groups.bytes(key).is_none() {
            return; // Nobody wants it any more, and there may be something else in its place.
        }
        match done {
            Ok(DiskDone::Read(block)) => {
                let bytes = block.freeze();
                match check(&bytes) {
                    Ok(header) if header.first_lsn == site.first_lsn && header.length == site.len => {
                        self.groups.read_back(key, bytes);
                    }
                    _ => tracing::error!(
                        ?site,
                        "messages in a file fail their checksum: they cannot be delivered"
                    ),
                }
            }
            Ok(other) => panic!("a read ended as {other:?}"),
            Err(IoError::Halted) => {}
            Err(error) => tracing::error!(?site, %error, "messages in a file could not be read"),
        }
    }
}
