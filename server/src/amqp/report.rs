//! What is told of connections, channels and consumers to whoever looks after the node.

use std::net::SocketAddr;

use millstream_engine::io::ConnId;
use millstream_engine::time::WallMs;

use super::counts::Counts;

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionReport {
    /// The shard that serves it.
    pub shard: u16,
    /// Its number there.
    pub conn: ConnId,
    /// Who connected.
    pub peer: SocketAddr,
    /// The address that they dialled.
    pub local: SocketAddr,
    /// When.
    pub since: WallMs,
    /// How far it has come.
    pub state: &'static str,
    /// Who is logged in; empty before that.
    pub user: Vec<u8>,
    /// Where.
    pub vhost: Vec<u8>,
    /// What the client has said of itself, a table's content.
    pub client_properties: Vec<u8>,
    /// By which mechanism it has logged in.
    pub mechanism: Vec<u8>,
    /// How long either side may be silent, in seconds; 0: for ever.
    pub heartbeat_s: u64,
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Channels that there may be; 0: any number.
    pub channels_max: u16,
    /// Bytes that have come in.
    pub received_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Its channels, by number.
    pub channels: Vec<ChannelReport>,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelReport {
    /// Its number.
    pub number: u16,
    /// Whether messages are confirmed.
    pub confirms: bool,
    /// Whether it has transactions.
    pub is_transactional: bool,
    /// Prefetch of consumers to come.
    pub prefetch: u16,
    /// Prefetch of all its consumers together.
    pub prefetch_all: u16,
    /// Deliveries that are not settled.
    pub unacked: usize,
    /// Messages that are not confirmed.
    pub unconfirmed: usize,
    /// Messages of the transaction that has begun.
    pub uncommitted: usize,
    /// What it has done.
    pub counts: Counts,
    /// How many consumers it has.
    pub consumer_count: usize,
    /// Its consumers; of very many, the first.
    pub consumers: Vec<ConsumerReport>,
}

/// A consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerReport {
    /// Its tag.
    pub tag: Vec<u8>,
    /// The queue's name.
    pub queue: Vec<u8>,
    /// Whether what it is given is settled by being given.
    pub no_ack: bool,
    /// Whether it is the only one.
    pub is_exclusive: bool,
    /// How many messages it may keep; 0: any number.
    pub prefetch: u16,
    /// What it was made with, a table's content.
    pub arguments: Vec<u8>,
}

impl ConnectionReport {
    /// How much there is to tell.
    pub fn weight(&self) -> usize {
        1 + self.channels.iter().map(|channel| 1 + channel.consumers.len()).sum::<usize>()
    }
}
