//! `SyncGroup`: answered when the leader has given everybody a part.

use std::sync::Arc;

use millstream_engine::buffer::Slice;

use super::{Exchange, GroupApi, GroupWork, code_of, instance_id, only, unexpected};
use crate::coordinator::question::{Member, Sync, Synced};
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, ErrorCode, Work};
use crate::limits::{GROUP_BYTES_MAX, MEMBERS_PER_REQUEST_MAX};

/// A request for one's part.
#[derive(Debug)]
pub struct SyncGroup(Option<Sync>);

impl SyncGroup {
    /// Reads a request.
    pub fn read(frame: &Slice, mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let generation = reader.i32()?;
        let id = reader.string()?.into();
        let instance_id = instance_id(&mut reader, version >= 3)?;
        let (mut protocol_type, mut protocol) = (None, None);
        if version >= 5 {
            protocol_type = reader.nullable_string()?.map(Arc::from);
            protocol = reader.nullable_string()?.map(Arc::from);
        }
        let mut assignments = Vec::new();
        for _ in 0..reader.count(2)? {
            if assignments.len() >= MEMBERS_PER_REQUEST_MAX {
                return Err(Malformed("the request names too many members"));
            }
            let member = reader.string()?.into();
            let part = reader.nullable_bytes()?.unwrap_or_default();
            let part = frame.get(part).unwrap_or_default().into();
            reader.tags()?;
            assignments.push((member, part));
        }
        reader.tags()?;
        let member = Member { id, instance_id, generation };
        let sync = Sync { group, member, protocol_type, protocol, assignments };
        Ok(GroupWork::work(SyncGroup(Some(sync))))
    }
}

impl GroupApi for SyncGroup {
    fn answer_bytes_max(&self) -> usize {
        GROUP_BYTES_MAX
    }

    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        if let Some(sync) = self.0.take() {
            exchange.ask(Question::Sync(sync), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let answer = only(answers);
        let error = match code_of(&answer) {
            // As with Kafka: clients do not expect this code here. The generation that they ask about is lost: they join.
            ErrorCode::CoordinatorLoadInProgress => ErrorCode::RebalanceInProgress,
            error => error,
        };
        let synced = match answer {
            Ok(Outcome::Synced(synced)) => synced,
            Ok(other) => unexpected(&other),
            Err(_) => Synced { protocol_type: None, protocol: None, assignment: Arc::default() },
        };
        let mut writer = context.response(32 + synced.assignment.len());
        if version >= 1 {
            writer.i32(0);
        }
        writer.error(error);
        if version >= 5 {
            writer.nullable_string(synced.protocol_type.as_deref());
            writer.nullable_string(synced.protocol.as_deref());
        }
        writer.bytes(&synced.assignment);
        writer.tags();
        Done::answer(writer)
    }
}
