//! Consumer groups: requests that a group's coordinator answers, which may live on another shard.

mod delete_groups;
mod describe_groups;
mod find_coordinator;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod sync_group;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use millstream_engine::buffer::Slice;

pub use find_coordinator::FindCoordinator;

use super::codec::{Malformed, Reader};
use super::{Context, Done, ErrorCode, Work};
use crate::coordinator::{Answer, GroupError, Outcome, Question};
use crate::dispatch::Asked;
use crate::limits::{CLIENT_NAME_BYTES_MAX, GROUPS_PER_REQUEST_MAX, TOPICS_PER_REQUEST_MAX};

/// A request of one API: what it asks, and what it answers.
trait GroupApi: Debug + Send {
    /// Asks. What it does not ask it answers itself, in [`GroupApi::answer`].
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>);

    /// Answers, when everything has been answered: in the order asked.
    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done;

    /// Bytes that the answer may have, if that is worth mentioning.
    fn answer_bytes_max(&self) -> usize {
        0
    }
}

/// Questions, and their answers as they come.
#[derive(Debug, Default)]
struct Exchange {
    asked: Vec<Option<Asked>>,
    answers: Vec<Answer>,
    waiting: usize,
}

impl Exchange {
    /// Asks the coordinator of a group.
    fn ask(&mut self, question: Question, context: &mut Context<'_>) {
        let part = self.asked.len() as u32;
        let asked = context.engine.ask_group(part, question);
        self.waiting += usize::from(asked.is_some());
        self.asked.push(asked);
        // What there is to say if there is nobody to ask: `FindCoordinator` makes groups their home.
        self.answers.push(Err(GroupError::NotAvailable));
    }

    /// Asks the coordinators of all shards.
    fn ask_all(&mut self, question: impl Fn() -> Question, context: &mut Context<'_>) {
        for shard in context.engine.shards() {
            let part = self.asked.len() as u32;
            self.asked.push(Some(context.engine.ask_coordinator(part, shard, question())));
            self.answers.push(Err(GroupError::NotAvailable));
            self.waiting += 1;
        }
    }
}

/// A request being worked on.
#[derive(Debug)]
pub struct GroupWork {
    api: Box<dyn GroupApi>,
    exchange: Exchange,
}

impl GroupWork {
    fn work(api: impl GroupApi + 'static) -> Work {
        Work::Group(GroupWork { api: Box::new(api), exchange: Exchange::default() })
    }

    /// Bytes that the answer may have, if that is worth mentioning.
    pub fn answer_bytes_max(&self) -> usize {
        self.api.answer_bytes_max()
    }

    /// Asks.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        self.api.ask(&mut self.exchange, context);
        self.finish(context)
    }

    /// Takes an answer.
    pub fn on_answer(&mut self, part: u32, answer: Answer, context: &Context<'_>) -> Option<Done> {
        let place = part as usize;
        let asked = self.exchange.asked.get_mut(place).expect("parts are those that were asked");
        assert!(asked.take().is_some(), "a question is answered once");
        *self.exchange.answers.get_mut(place).expect("as many as were asked") = answer;
        self.exchange.waiting -= 1;
        self.finish(context)
    }

    fn finish(&mut self, context: &Context<'_>) -> Option<Done> {
        if self.exchange.waiting > 0 {
            return None;
        }
        Some(self.api.answer(std::mem::take(&mut self.exchange.answers), context))
    }

    /// Nobody waits any more.
    pub fn cancel(&mut self, context: &mut Context<'_>) {
        for asked in self.exchange.asked.iter_mut().filter_map(Option::take) {
            context.engine.cancel_question(asked);
        }
    }

    /// The node stops: nothing is waited for.
    pub fn on_stopping(&mut self, context: &mut Context<'_>) -> Option<Done> {
        self.cancel(context);
        self.exchange.waiting = 0;
        self.finish(context)
    }
}

/// The code for an error.
fn code(error: &GroupError) -> ErrorCode {
    ErrorCode::from(error)
}

/// The code of an outcome.
fn code_of<T>(outcome: &Result<T, GroupError>) -> ErrorCode {
    outcome.as_ref().err().map(code).unwrap_or_default()
}

/// The one answer to the one question.
fn only(answers: Vec<Answer>) -> Answer {
    answers.into_iter().next().unwrap_or(Err(GroupError::NotAvailable))
}

/// An answer of another kind than was asked for.
fn unexpected(outcome: &Outcome) -> ! {
    panic!("a question was answered by {outcome:?}")
}

/// What the client calls itself, from the header in front of the body, as far as it is kept.
fn client_id(frame: &Slice) -> Result<Box<str>, Malformed> {
    let mut reader = Reader::new(frame, false);
    super::RequestHeader::read(&mut reader)?;
    let name = reader.nullable_string()?.unwrap_or_default();
    let end = (0..=CLIENT_NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    Ok(name.get(..end.unwrap_or(0)).unwrap_or_default().into())
}

/// A member's lasting name, where a version has it.
fn instance_id(reader: &mut Reader<'_>, present: bool) -> Result<Option<Arc<str>>, Malformed> {
    if !present {
        return Ok(None);
    }
    let name = reader.nullable_string()?;
    if name.is_some_and(|name| name.len() > CLIENT_NAME_BYTES_MAX) {
        return Err(Malformed("a group instance's id is longer than 249 bytes"));
    }
    Ok(name.map(Into::into))
}

/// The groups that a request names. What is told of a group may be large, so it is told once, however often it is named.
#[derive(Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    /// The name, unless it has been named before.
    fn add(&mut self, name: &str) -> Result<Option<Arc<str>>, Malformed> {
        if self.0.len() >= GROUPS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many groups"));
        }
        let name = Arc::from(name);
        Ok(self.0.insert(Arc::clone(&name)).then_some(name))
    }
}

/// The count of an array of topics.
fn topic_count(count: usize) -> Result<usize, Malformed> {
    if count > TOPICS_PER_REQUEST_MAX {
        return Err(Malformed("the request names too many topics"));
    }
    Ok(count)
}

pub(super) use self::readers::*;

/// Who reads which API, for the table.
mod readers {
    pub(in crate::kafka) use super::delete_groups::DeleteGroups;
    pub(in crate::kafka) use super::describe_groups::DescribeGroups;
    pub(in crate::kafka) use super::heartbeat::Heartbeat;
    pub(in crate::kafka) use super::join_group::JoinGroup;
    pub(in crate::kafka) use super::leave_group::LeaveGroup;
    pub(in crate::kafka) use super::list_groups::ListGroups;
    pub(in crate::kafka) use super::offset_commit::OffsetCommit;
    pub(in crate::kafka) use super::offset_delete::OffsetDelete;
    pub(in crate::kafka) use super::offset_fetch::OffsetFetch;
    pub(in crate::kafka) use super::sync_group::SyncGroup;
}
