//! `DeleteGroups`: groups without members, and their offsets, are forgotten.

use std::sync::Arc;

use super::describe_groups::read_groups;
use super::{Exchange, GroupApi, GroupWork, code_of};
use crate::coordinator::{Answer, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::{Context, Done, Work};

/// A request to forget groups.
#[derive(Debug)]
pub struct DeleteGroups(Vec<Arc<str>>);

impl DeleteGroups {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>) -> Result<Work, Malformed> {
        let groups = read_groups(&mut reader)?;
        reader.tags()?;
        Ok(GroupWork::work(DeleteGroups(groups)))
    }
}

impl GroupApi for DeleteGroups {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        for group in &self.0 {
            exchange.ask(Question::Delete(Arc::clone(group)), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let mut writer = context.response(16 + 32 * self.0.len());
        writer.i32(0);
        writer.count(self.0.len());
        for (group, answer) in self.0.iter().zip(&answers) {
            writer.string(group);
            writer.error(code_of(answer));
            writer.tags();
        }
        writer.tags();
        Done::answer(writer)
    }
}
