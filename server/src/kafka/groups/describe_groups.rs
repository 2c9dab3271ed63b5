//! `DescribeGroups`: the members of groups, and their parts. A group that is not known is `Dead`.

use std::sync::Arc;

use super::{Exchange, GroupApi, GroupWork, Names, code_of, unexpected};
use crate::coordinator::question::Description;
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, Work};
use crate::limits::GROUP_BYTES_MAX;

/// "Nobody asked" in the field that tells what the client is allowed to do.
const NOT_ASKED: i32 = i32::MIN;
/// Everything that can be done with a group, read, delete and describe: there are no access rules yet.
const ALL_OPERATIONS: i32 = 0b1_0100_1000;

/// A request for descriptions.
#[derive(Debug)]
pub struct DescribeGroups {
    groups: Vec<Arc<str>>,
    wants_operations: bool,
}

impl DescribeGroups {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let groups = read_groups(&mut reader)?;
        let wants_operations = version >= 3 && reader.bool()?;
        reader.tags()?;
        Ok(GroupWork::work(DescribeGroups { groups, wants_operations }))
    }
}

/// An array of groups' names, each of them once, as in Kafka.
pub fn read_groups(reader: &mut Reader<'_>) -> Result<Vec<Arc<str>>, Malformed> {
    let mut names = Names::default();
    let count = reader.count(1)?;
    (0..count).filter_map(|_| reader.string().and_then(|name| names.add(name)).transpose()).collect()
}

impl GroupApi for DescribeGroups {
    fn answer_bytes_max(&self) -> usize {
        GROUP_BYTES_MAX
    }

    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        for group in &self.groups {
            exchange.ask(Question::Describe(Arc::clone(group)), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let mut writer = context.response(256);
        if version >= 1 {
            writer.i32(0);
        }
        writer.count(self.groups.len());
        for (group, answer) in self.groups.iter().zip(answers) {
            let error = code_of(&answer);
            let described = match answer {
                Ok(Outcome::Described(described)) => described,
                Ok(other) => unexpected(&other),
                Err(_) => Description {
                    state: "",
                    protocol_type: Arc::default(),
                    protocol: Arc::default(),
                    members: Vec::new(),
                },
            };
            writer.error(error);
            writer.string(group);
            writer.string(described.state);
            writer.string(&described.protocol_type);
            writer.string(&described.protocol);
            writer.count(described.members.len());
            for member in &described.members {
                writer.string(&member.id);
                if version >= 4 {
                    writer.nullable_string(member.instance_id.as_deref());
                }
                writer.string(&member.client_id);
                writer.string(&member.client_host);
                writer.bytes(&member.metadata);
                writer.bytes(&member.assignment);
                writer.tags();
            }
            if version >= 3 {
                writer.i32(if self.wants_operations { ALL_OPERATIONS } else { NOT_ASKED });
            }
            writer.tags();
        }
        writer.tags();
        Done::answer(writer)
    }
}
