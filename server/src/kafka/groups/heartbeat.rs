//! `Heartbeat`: a member is alive, and learns whether its generation still holds.

use super::{Exchange, GroupApi, GroupWork, code_of, instance_id, only};
use crate::coordinator::question::{self, Member};
use crate::coordinator::{Answer, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, ErrorCode, Work};

/// A sign of life.
#[derive(Debug)]
pub struct Heartbeat(Option<question::Heartbeat>);

impl Heartbeat {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let generation = reader.i32()?;
        let id = reader.string()?.into();
        let instance_id = instance_id(&mut reader, version >= 3)?;
        reader.tags()?;
        let member = Member { id, instance_id, generation };
        Ok(GroupWork::work(Heartbeat(Some(question::Heartbeat { group, member }))))
    }
}

impl GroupApi for Heartbeat {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        if let Some(heartbeat) = self.0.take() {
            exchange.ask(Question::Heartbeat(heartbeat), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let mut writer = context.response(8);
        if context.header.version >= 1 {
            writer.i32(0);
        }
        let error = match code_of(&only(answers)) {
            // As with Kafka: the member may be what it says. It learns soon enough if it is not; clients do not expect
            // this code here, and some would give their partitions up.
            ErrorCode::CoordinatorLoadInProgress => ErrorCode::None,
            error => error,
        };
        writer.error(error);
        writer.tags();
        Done::answer(writer)
    }
}
