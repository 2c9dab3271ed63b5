//! Direct reply-to: the pseudo queue that answers are waited for at, and the addresses that stand for whoever waits there.

use std::fmt::Write;

use millstream_engine::io::ConnId;
use millstream_engine::types::ShardId;

use super::operations::Who;

/// What a client consumes from, and names as `reply_to`.
const PSEUDO_QUEUE: &[u8] = b"amq.rabbitmq.reply-to";
/// The same under `LavinMQ`'s name.
const OTHER_NAME: &[u8] = b"amq.direct.reply-to";
/// What addresses begin with.
const ADDRESS: &[u8] = b"amq.rabbitmq.reply-to.";

/// Whether that is the pseudo queue.
pub fn is_pseudo_queue(name: &[u8]) -> bool {
    name == PSEUDO_QUEUE || name == OTHER_NAME
}

/// Whether that is the pseudo queue, or looks like an address.
pub fn is_address(name: &[u8]) -> bool {
    is_pseudo_queue(name) || name.starts_with(ADDRESS)
}

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// The shard of the connection.
    pub shard: ShardId,
    /// The channel.
    pub who: Who,
    /// What tells its askers from those who guess.
    pub secret: u64,
}

/// The address of a channel.
pub fn address(shard: ShardId, who: Who, secret: u64) -> Vec<u8> {
    let mut address = String::from_utf8_lossy(ADDRESS).into_owned();
    let Who { conn, channel, life } = who;
    // Writing to a string does not fail.
    let _ = write!(address, "{:x}.{:x}.{channel:x}.{life:x}.{secret:x}", shard.0, conn.0);
    address.into_bytes()
}

/// Reads an address.
pub fn read_address(name: &[u8]) -> Option<ReplyTo> {
    let text = std::str::from_utf8(name.strip_prefix(ADDRESS)?).ok()?;
    let mut parts = text.split('.').map(|part| u64::from_str_radix(part, 16));
    let mut next = || parts.next()?.ok();
    let shard = ShardId(u16::try_from(next()?).ok()?);
    let conn = ConnId(next()?);
    let channel = u16::try_from(next()?).ok()?;
    let life = u32::try_from(next()?).ok()?;
    let secret = next()?;
    Some(ReplyTo { shard, who: Who { conn, channel, life }, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back() {
        let who = Who { conn: ConnId(1 << 40), channel: 7, life: 3 };
        let name = address(ShardId(2), who, u64::MAX);
        assert_eq!(read_address(&name), Some(ReplyTo { shard: ShardId(2), who, secret: u64::MAX }));
        assert!(is_address(&name) && !is_pseudo_queue(&name));
        assert_eq!(read_address(b"amq.rabbitmq.reply-to.x"), None);
        assert_eq!(read_address(b"amq.rabbitmq.reply-to"), None);
    }
}
