//! `LeaveGroup`: members go, from version 3 on several at once (KIP-345).

use std::sync::Arc;

use super::{Exchange, GroupApi, GroupWork, code_of, instance_id, only, unexpected};
use crate::coordinator::question::Leave;
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, ErrorCode, Work};
use crate::limits::MEMBERS_PER_REQUEST_MAX;

/// The first version that names several members.
const SEVERAL_FROM: i16 = 3;

/// A request to leave.
#[derive(Debug)]
pub struct LeaveGroup {
    group: Arc<str>,
    members: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl LeaveGroup {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let mut members = Vec::new();
        if version < SEVERAL_FROM {
            members.push((reader.string()?.into(), None));
        } else {
            for _ in 0..reader.count(2)? {
                if members.len() >= MEMBERS_PER_REQUEST_MAX {
                    return Err(Malformed("the request names too many members"));
                }
                let id: Arc<str> = reader.string()?.into();
                let instance_id = instance_id(&mut reader, true)?;
                if version >= 5
                    && let Some(reason) = reader.nullable_string()?
                {
                    tracing::debug!(member = &*id, reason, "a member leaves");
                }
                reader.tags()?;
                members.push((id, instance_id));
            }
        }
        reader.tags()?;
        Ok(GroupWork::work(LeaveGroup { group, members }))
    }
}

impl GroupApi for LeaveGroup {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        let leave = Leave { group: Arc::clone(&self.group), members: self.members.clone() };
        exchange.ask(Question::Leave(leave), context);
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let answer = only(answers);
        let mut error = code_of(&answer);
        let left: Vec<ErrorCode> = match answer {
            Ok(Outcome::Left(left)) => left.iter().map(code_of).collect(),
            Ok(other) => unexpected(&other),
            Err(_) => Vec::new(),
        };
        if version < SEVERAL_FROM && error == ErrorCode::None {
            error = left.first().copied().unwrap_or_default();
        }
        let mut writer = context.response(16 + 64 * left.len());
        if version >= 1 {
            writer.i32(0);
        }
        writer.error(error);
        if version >= SEVERAL_FROM {
            writer.count(left.len());
            for ((id, instance_id), error) in self.members.iter().zip(&left) {
                writer.string(id);
                writer.nullable_string(instance_id.as_deref());
                writer.error(*error);
                writer.tags();
            }
        }
        writer.tags();
        Done::answer(writer)
    }
}
