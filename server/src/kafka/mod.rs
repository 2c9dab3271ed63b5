//! Kafka's protocol: one table of APIs, own codec, one file per API.
//!
//! A request is read whole into a [`Work`], which then asks the engine and is told what comes back, until it is
//! [`Done`]: a state machine without I/O. Nothing borrowed from the frame is kept but record batches.

mod admin;
mod api;
mod api_versions;
pub mod codec;
mod error;
mod fetch;
mod groups;
mod header;
mod list_offsets;
mod metadata;
mod produce;
mod search;
mod tally;
mod topics;

use std::any::Any;
use std::borrow::Cow;
use std::net::SocketAddr;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::Reply;
use millstream_engine::time::Nanos;
use millstream_engine::types::PartitionId;

pub use admin::topic_settings::documentation as topic_settings_documentation;
pub use api::{APIS, Api};
use codec::{Reader, Writer};
pub use error::{ErrorCode, Failure};
pub use header::RequestHeader;
pub use tally::Tally;

use crate::config::ServerConfig;
use crate::coordinator::Answer;
use crate::dispatch::Dispatch;
use crate::limits::FETCH_BYTES_HELD_MAX;
use crate::metrics::BrokerMetrics;
use crate::net::Response;

/// What a request has at hand while it is worked on.
pub struct Context<'a> {
    /// The node's settings.
    pub config: &'a ServerConfig,
    /// What is counted.
    pub metrics: &'a BrokerMetrics,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// The request's header.
    pub header: RequestHeader,
    /// The engine.
    pub engine: Dispatch<'a>,
}

impl Context<'_> {
    /// Counts the request.
    pub fn began(&self) {
        if let Some(place) = api::place(self.header.api_key) {
            self.metrics.requests.at(place).add(1);
        }
    }

    /// A response to this request, with room for about `capacity` bytes.
    fn response(&self, capacity: usize) -> Writer {
        let RequestHeader { api_key, version, correlation_id } = self.header;
        let flexible = api::find(api_key).is_some_and(|api| api.is_flexible(version));
        Writer::response(correlation_id, flexible, flexible, capacity)
    }
}

/// Something that happened to a request.
#[derive(Debug)]
pub enum Input {
    /// A shard's answer to a part of it.
    Reply(u32, Reply),
    /// A helper's result for a part of it.
    Offloaded(u32, Box<dyn Any + Send>),
    /// A coordinator's answer to a part of it.
    Coordinated(u32, Answer),
    /// It has waited long enough.
    Deadline,
    /// The node stops: nothing is waited for that may take long.
    Stopping,
    /// The connection is gone: what it has registered is taken back.
    Gone,
}

/// How a request ended.
#[derive(Debug)]
pub enum Done {
    /// With this, in which there are so many errors.
    Answer(Response, u64),
    /// In a way that only closing the connection can tell the client.
    HangUp(String),
}

impl Done {
    fn answer(writer: Writer) -> Done {
        let errors = writer.errors();
        Done::Answer(writer.finish().into(), errors)
    }
}

/// A request being worked on. `start` once, then `on` for everything that happens; both say when it is done.
#[derive(Debug)]
pub enum Work {
    /// Answers itself.
    Ready(api::Ready),
    /// `Metadata`: see `metadata.rs`.
    Metadata(metadata::MetadataRequest),
    /// `Produce`: see `produce.rs`.
    Produce(produce::Produce),
    /// `Fetch`: see `fetch.rs`.
    Fetch(fetch::Fetch),
    /// `ListOffsets`: see `list_offsets.rs`.
    ListOffsets(list_offsets::ListOffsets),
    /// What describes and changes topics and the node: see `admin/`.
    Admin(Box<dyn admin::Admin>),
    /// `FindCoordinator`: see `groups/find_coordinator.rs`.
    FindCoordinator(groups::FindCoordinator),
    /// All that a group's coordinator is asked: see `groups/mod.rs`.
    Group(groups::GroupWork),
}

impl Work {
    /// Bytes that it may hold for its answer, if that is worth mentioning: room for them is kept while it is worked on.
    pub fn answer_bytes_max(&self) -> usize {
        match self {
            Work::Fetch(_) => FETCH_BYTES_HELD_MAX,
            Work::Group(work) => work.answer_bytes_max(),
            _ => 0,
        }
    }

    /// Asks for what is needed first.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        match self {
            Work::Ready(work) => Some(work.answer(context)),
            Work::Metadata(work) => work.start(context),
            Work::Produce(work) => work.start(context),
            Work::Fetch(work) => work.start(context),
            Work::ListOffsets(work) => work.start(context),
            Work::Admin(work) => work.start(context),
            Work::FindCoordinator(work) => work.start(context),
            Work::Group(work) => work.start(context),
        }
    }

    /// Goes on after something has happened.
    pub fn on(&mut self, input: Input, context: &mut Context<'_>) -> Option<Done> {
        match (self, input) {
            (Work::Fetch(work), Input::Gone) => {
                work.cancel(context);
                None
            }
            (Work::Fetch(work), Input::Deadline | Input::Stopping) => work.on_deadline(context),
            (Work::Group(work), Input::Coordinated(part, answer)) => work.on_answer(part, answer, context),
            (Work::Group(work), Input::Gone) => {
                work.cancel(context);
                None
            }
            (Work::Group(work), Input::Stopping) => work.on_stopping(context),
            (_, Input::Gone | Input::Deadline | Input::Stopping) => None,
            (Work::FindCoordinator(work), Input::Reply(_, reply)) => Some(work.on_reply(&reply, context)),
            (Work::Metadata(work), Input::Reply(part, reply)) => work.on_reply(part, reply, context),
            (Work::Produce(work), Input::Reply(part, reply)) => work.on_reply(part, reply, context),
            (Work::Fetch(work), Input::Reply(part, reply)) => work.on_reply(part, reply, context),
            (Work::ListOffsets(work), Input::Reply(part, reply)) => work.on_reply(part, reply, context),
            (Work::Admin(work), Input::Reply(part, reply)) => work.on_reply(part, reply, context),
            (Work::ListOffsets(work), Input::Offloaded(part, result)) => {
                work.on_search(part, &*result, context)
            }
            (work, input) => panic!("{work:?} asked for nothing that is answered by {input:?}"),
        }
    }

    /// Lets go of what it has read so far: it is planned, and can be loaded when it is to be sent.
    pub fn let_go(&mut self) {
        if let Work::Fetch(work) = self {
            work.let_go();
        }
    }

    /// Until when it waits for news, if that is all it waits for.
    pub fn deadline(&self) -> Option<Nanos> {
        match self {
            Work::Fetch(work) => work.deadline(),
            _ => None,
        }
    }
}

/// Reads a request. What cannot be read, and cannot be answered either, is an error that says why.
pub fn read_request(frame: &Slice) -> Result<(RequestHeader, Work), Cow<'static, str>> {
    let mut reader = Reader::new(frame, false);
    let header = RequestHeader::read(&mut reader).map_err(|error| error.0)?;
    let RequestHeader { api_key, version, .. } = header;
    let Some(api) = api::find(api_key) else {
        return Err(format!("there is no API with key {api_key}").into());
    };
    if version < 0 || version > *api.versions.end() {
        let answer = api.too_new.filter(|_| version >= 0);
        return match answer {
            Some(ready) => Ok((header, Work::Ready(ready))),
            None => Err(format!("version {version} of {} is not served", api.name).into()),
        };
    }
    RequestHeader::read_rest(&mut reader, api.is_flexible(version))
        .and_then(|()| (api.read)(frame, reader, version))
        .map(|work| (header, work))
        .map_err(|error| format!("a request of {} version {version}: {error}", api.name).into())
}

/// Topics that the broker keeps for itself, by Kafka's names: clients may read them, and nothing else.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether a topic is the broker's own.
fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// Counts an answer, the errors in it, and how long it took.
pub fn note_answer(metrics: &BrokerMetrics, header: RequestHeader, errors: u64, took: Nanos) {
    if let Some(place) = api::place(header.api_key) {
        metrics.request.at(place).record(took.0);
        metrics.errors.at(place).add(errors);
    }
}

/// Counts an error that only closing the connection tells of.
pub fn note_hang_up(metrics: &BrokerMetrics, header: RequestHeader) {
    if let Some(place) = api::place(header.api_key) {
        metrics.errors.at(place).add(1);
    }
}

/// The partition under a topic's name and a number from the wire.
fn find_partition(metadata: &Metadata, topic: &str, index: i32) -> Result<PartitionId, ErrorCode> {
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let index = u32::try_from(index).map_err(|_| unknown)?;
    let topic = metadata.topic(topic).ok_or(unknown)?;
    topic.slots.get(index as usize).ok_or(unknown)?;
    Ok(PartitionId { topic: topic.id, index })
}

/// Compares the leader epoch that a client believes in with ours; -1 says that it believes in none.
fn check_leader_epoch(metadata: &Metadata, believed: i32) -> Result<(), ErrorCode> {
    let Ok(believed) = u32::try_from(believed) else { return Ok(()) };
    match believed.cmp(&metadata.leader_epoch.0) {
        std::cmp::Ordering::Less => Err(ErrorCode::FencedLeaderEpoch),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(ErrorCode::UnknownLeaderEpoch),
    }
}

/// An offset as the wire has it.
fn wire_offset(offset: millstream_engine::types::Offset) -> i64 {
    i64::try_from(offset.0).expect("offsets are at most i64::MAX, by their definition")
}

/// The code for a refusal.
fn code(refusal: &Refusal) -> ErrorCode {
    ErrorCode::from(refusal)
}
