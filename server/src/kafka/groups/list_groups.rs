//! `ListGroups`: the groups of all shards.

use super::{Exchange, GroupApi, GroupWork, code, unexpected};
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, ErrorCode, Work};

/// Names of states that a request may ask for: there are few, and more of them mean nothing.
const STATES_MAX: usize = 16;

/// A request for groups.
#[derive(Debug)]
pub struct ListGroups {
    /// Only those in one of these states; all if there are none.
    states: Vec<Box<str>>,
}

impl ListGroups {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let mut states = Vec::new();
        if version >= 4 {
            for _ in 0..reader.count(1)? {
                if states.len() >= STATES_MAX {
                    return Err(Malformed("the request names too many states"));
                }
                states.push(reader.string()?.into());
            }
        }
        reader.tags()?;
        Ok(GroupWork::work(ListGroups { states }))
    }
}

impl GroupApi for ListGroups {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        exchange.ask_all(|| Question::List, context);
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let mut error = ErrorCode::None;
        let mut groups = Vec::new();
        for answer in answers {
            match answer {
                Ok(Outcome::Listed(listed)) => groups.extend(listed),
                Ok(other) => unexpected(&other),
                Err(failed) => error = code(&failed),
            }
        }
        groups.retain(|group| {
            self.states.is_empty() || self.states.iter().any(|state| state.eq_ignore_ascii_case(group.state))
        });
        let mut writer = context.response(32 + 48 * groups.len());
        if version >= 1 {
            writer.i32(0);
        }
        writer.error(error);
        writer.count(groups.len());
        for group in &groups {
            writer.string(&group.group);
            writer.string(&group.protocol_type);
            if version >= 4 {
                writer.string(group.state);
            }
            writer.tags();
        }
        writer.tags();
        Done::answer(writer)
    }
}
