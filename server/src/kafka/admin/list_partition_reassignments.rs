//! `ListPartitionReassignments`: with one node nothing is ever on its way to another.

use super::super::codec::{Malformed, Reader};
use super::super::{Context, Done, ErrorCode};
use super::Admin;

/// A request for what is being moved.
#[derive(Debug)]
pub struct ListPartitionReassignments;

impl ListPartitionReassignments {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<ListPartitionReassignments, Malformed> {
        let _timeout_ms = reader.i32()?;
        for _ in 0..reader.nullable_count(2)?.unwrap_or(0) {
            let _topic = reader.string()?;
            for _ in 0..reader.count(4)? {
                let _index = reader.i32()?;
            }
            reader.tags()?;
        }
        reader.tags()?;
        Ok(ListPartitionReassignments)
    }
}

impl Admin for ListPartitionReassignments {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let mut writer = context.response(16);
        writer.i32(0);
        writer.error(ErrorCode::None);
        writer.nullable_string(None);
        writer.count(0);
        writer.tags();
        Some(Done::answer(writer))
    }
}
