//! `JoinGroup`: answered when the group's next generation begins.

use std::sync::Arc;

use millstream_engine::buffer::Slice;

use super::{Exchange, GroupApi, GroupWork, client_id, code, instance_id, only, unexpected};
use crate::coordinator::question::{Join, Joined};
use crate::coordinator::{Answer, GroupError, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, ErrorCode, Work};
use crate::limits::{GROUP_BYTES_MAX, PROTOCOLS_PER_MEMBER_MAX};

/// A request to join.
#[derive(Debug)]
pub struct JoinGroup {
    join: Option<Join>,
    member_id: Arc<str>,
}

impl JoinGroup {
    /// Reads a request.
    pub fn read(frame: &Slice, mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let session_timeout_ms = reader.i32()?;
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { session_timeout_ms };
        let member_id: Arc<str> = reader.string()?.into();
        let instance_id = instance_id(&mut reader, version >= 5)?;
        let protocol_type = reader.string()?.into();
        let mut protocols = Vec::new();
        for _ in 0..reader.count(2)? {
            if protocols.len() >= PROTOCOLS_PER_MEMBER_MAX {
                return Err(Malformed("the request names too many ways to assign"));
            }
            let name = reader.string()?.into();
            let metadata = reader.nullable_bytes()?.unwrap_or_default();
            let metadata = frame.get(metadata).unwrap_or_default().into();
            reader.tags()?;
            protocols.push((name, metadata));
        }
        if version >= 8
            && let Some(reason) = reader.nullable_string()?
        {
            tracing::debug!(member = &*member_id, reason, "a member joins");
        }
        reader.tags()?;
        let join = Join {
            group,
            member_id: Arc::clone(&member_id),
            instance_id,
            client_id: client_id(frame)?,
            client_host: Box::default(),
            session_timeout_ms,
            rebalance_timeout_ms,
            protocol_type,
            protocols,
            takes_id_first: version >= 4,
            skips_assignment: version >= 9,
        };
        Ok(GroupWork::work(JoinGroup { join: Some(join), member_id }))
    }
}

impl GroupApi for JoinGroup {
    fn answer_bytes_max(&self) -> usize {
        GROUP_BYTES_MAX
    }

    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        if let Some(mut join) = self.join.take() {
            join.client_host = format!("/{}", context.peer.ip().to_canonical()).into();
            exchange.ask(Question::Join(join), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let nobody = |member_id| Joined {
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: Arc::default(),
            member_id,
            skip_assignment: false,
            members: Vec::new(),
        };
        let (error, joined) = match only(answers) {
            Ok(Outcome::Joined(joined)) => (ErrorCode::None, joined),
            Ok(other) => unexpected(&other),
            Err(GroupError::MemberIdRequired(id)) => (ErrorCode::MemberIdRequired, nobody(id)),
            Err(error) => (code(&error), nobody(Arc::clone(&self.member_id))),
        };
        let mut writer = context.response(256);
        if version >= 2 {
            writer.i32(0);
        }
        writer.error(error);
        writer.i32(joined.generation);
        if version >= 7 {
            writer.nullable_string(joined.protocol_type.as_deref());
            writer.nullable_string(joined.protocol.as_deref());
        } else {
            writer.string(joined.protocol.as_deref().unwrap_or_default());
        }
        writer.string(&joined.leader);
        if version >= 9 {
            writer.bool(joined.skip_assignment);
        }
        writer.string(&joined.member_id);
        writer.count(joined.members.len());
        for member in &joined.members {
            writer.string(&member.id);
            if version >= 5 {
                writer.nullable_string(member.instance_id.as_deref());
            }
            writer.bytes(&member.metadata);
            writer.tags();
        }
        writer.tags();
        Done::answer(writer)
    }
}
