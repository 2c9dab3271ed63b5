//! What describes and changes topics and the node. A file per API.

pub mod alter_configs;
mod altering;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod elect_leaders;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_partition_reassignments;
pub mod offset_for_leader_epoch;
mod placement;
mod settings;
pub mod topic_settings;

use std::fmt;

use millstream_engine::shard::request::Reply;

use super::codec::{Malformed, Writer};
use super::{Context, Done, ErrorCode, Failure, Work};
use crate::limits::SETTINGS_PER_REQUEST_MAX;

/// A request of this kind being worked on: `start` once, then `on_reply` for every answer of the engine. Both say when it
/// is done.
pub trait Admin: fmt::Debug {
    /// Asks for what is needed.
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done>;

    /// Takes an answer to a part of it.
    fn on_reply(&mut self, part: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let _ = context;
        panic!("{self:?} asked for nothing that is answered by {reply:?} for part {part}")
    }
}

/// A request as the connection works on it.
pub fn work(request: impl Admin + 'static) -> Work {
    Work::Admin(Box::new(request))
}

/// How many settings a request may still name. A few bytes on the wire become many in memory.
struct Room(usize);

impl Room {
    fn new() -> Room {
        Room(SETTINGS_PER_REQUEST_MAX)
    }

    /// The count of an array of settings.
    fn take(&mut self, count: usize) -> Result<usize, Malformed> {
        self.0 = self.0.checked_sub(count).ok_or(Malformed("the request names too many settings"))?;
        Ok(count)
    }
}

/// Writes how a part ended: a code, and in words why if it failed.
fn write_outcome<T>(writer: &mut Writer, outcome: &Result<T, Failure>) {
    write_error(writer, outcome);
    writer.nullable_string(outcome.as_ref().err().map(|failure| &*failure.message));
}

/// Writes how a part ended, where there is no room for words.
fn write_error<T>(writer: &mut Writer, outcome: &Result<T, Failure>) {
    let error = outcome.as_ref().err().map_or(ErrorCode::None, |failure| failure.error);
    writer.error(error);
}

/// What holds until the engine has answered.
fn unanswered<T>() -> Result<T, Failure> {
    Err(Failure::new(ErrorCode::RequestTimedOut, "not answered"))
}
