//! A Kafka client on a simulated connection: `kafka-protocol` writes its requests and reads the answers, which must come in
//! the order of the requests.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, GroupId, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName, fetch_request,
    list_offsets_request, metadata_request, offset_commit_request, offset_fetch_request, produce_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millstream_engine::io::sim::{SimPeer, World};

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The table of APIs.
    Versions,
    /// A topic, made if it is not there.
    Topic(String),
    /// To store a batch; with `acks=0` there is no answer.
    Produce {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// 0, 1 or -1.
        acks: i16,
        /// The batch.
        batch: Vec<u8>,
    },
    /// What there is from an offset on.
    Fetch {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// The offset.
        offset: u64,
        /// Bytes at most, but one batch at least.
        max_bytes: i32,
        /// How long to wait if there is nothing.
        max_wait_ms: i32,
    },
    /// The offset that a time stands for: -1 the end, -2 the start.
    List {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// The time.
        timestamp: i64,
    },
    /// Where a group's coordinator is.
    Coordinator(String),
    /// To remember how far a group has read that shares nothing out.
    Commit {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// The offset.
        offset: u64,
    },
    /// How far a group has read.
    Committed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// What had been promised when it was asked.
        at_least: i64,
    },
}

/// What it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The highest version of each API, by key.
    Versions(Vec<(i16, i16)>),
    /// A topic's error code, and how many partitions it has.
    Topic(i16, usize),
    /// An error code, and an offset.
    Produced(i16, i64),
    /// What was fetched.
    Fetched {
        /// The error code.
        error: i16,
        /// The high watermark.
        high_watermark: i64,
        /// The record batches.
        bytes: Vec<u8>,
    },
    /// An error code, and an offset.
    Listed(i16, i64),
    /// An error code.
    Done(i16),
}

/// One connection.
pub struct Client {
    /// The socket.
    pub peer: SimPeer,
    inbox: Vec<u8>,
    waiting: VecDeque<(i32, i16, Ask)>,
    next: i32,
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A frame: length, header, body.
pub fn frame<R: Request + HeaderVersion>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id);
    header.encode(&mut body, R::header_version(version)).expect("a header can be written");
    request.encode(&mut body, version).expect("a request can be written in its version");
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// A request in some version that is served, chosen by `pick`: the version and the frame.
pub fn write(ask: &Ask, correlation_id: i32, pick: u64) -> (i16, Vec<u8>) {
    let version = |least: i16, most: i16| least + (pick % (most - least + 1) as u64) as i16;
    match ask {
        Ask::Versions => {
            let version = version(0, 3);
            let text = |text: &str| StrBytes::from_string(if version < 3 { "" } else { text }.to_owned());
            let request = ApiVersionsRequest::default()
                .with_client_software_name(text("simulated"))
                .with_client_software_version(text("1.0"));
            (version, frame(version, correlation_id, &request))
        }
        Ask::Topic(topic) => {
            let version = version(4, 9);
            let wanted = metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![wanted]))
                .with_allow_auto_topic_creation(true);
            (version, frame(version, correlation_id, &request))
        }
        Ask::Produce { topic, index, acks, batch } => {
            let version = version(3, 9);
            let data = produce_request::PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(Bytes::copy_from_slice(batch)));
            let data = produce_request::TopicProduceData::default()
                .with_name(name(topic))
                .with_partition_data(vec![data]);
            let request =
                ProduceRequest::default().with_acks(*acks).with_timeout_ms(1000).with_topic_data(vec![data]);
            (version, frame(version, correlation_id, &request))
        }
        Ask::Fetch { topic, index, offset, max_bytes, max_wait_ms } => {
            let version = version(4, 12);
            let wanted = fetch_request::FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*offset as i64)
                .with_partition_max_bytes(*max_bytes);
            let wanted =
                fetch_request::FetchTopic::default().with_topic(name(topic)).with_partitions(vec![wanted]);
            let request = FetchRequest::default()
                .with_max_wait_ms(*max_wait_ms)
                .with_min_bytes(1)
                .with_max_bytes(*max_bytes)
                .with_topics(vec![wanted]);
            (version, frame(version, correlation_id, &request))
        }
        Ask::List { topic, index, timestamp } => {
            let version = version(1, 7);
            let wanted = list_offsets_request::ListOffsetsPartition::default()
                .with_partition_index(*index)
                .with_timestamp(*timestamp);
            let wanted = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![wanted]);
            (
                version,
                frame(version, correlation_id, &ListOffsetsRequest::default().with_topics(vec![wanted])),
            )
        }
        Ask::Coordinator(group) => {
            let version = version(0, 3);
            let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.clone()));
            (version, frame(version, correlation_id, &request))
        }
        Ask::Commit { group, topic, index, offset } => {
            let version = version(2, 7);
            let part = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset as i64);
            let wanted = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![part]);
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![wanted]);
            (version, frame(version, correlation_id, &request))
        }
        Ask::Committed { group, topic, index, .. } => {
            let version = version(1, 5);
            let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(name(topic))
                .with_partition_indexes(vec![*index]);
            let request = OffsetFetchRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_topics(Some(vec![wanted]));
            (version, frame(version, correlation_id, &request))
        }
    }
}

impl Client {
    /// Connects.
    pub fn connect(world: &World, address: SocketAddr) -> Client {
        Client { peer: world.connect(address), inbox: Vec::new(), waiting: VecDeque::new(), next: 1 }
    }

    /// Sends a request, in a version that `pick` chooses.
    pub fn ask(&mut self, ask: Ask, pick: u64) {
        let (version, frame) = write(&ask, self.next, pick);
        self.peer.send(&frame);
        if !matches!(ask, Ask::Produce { acks: 0, .. }) {
            self.waiting.push_back((self.next, version, ask));
        }
        self.next += 1;
    }

    /// What was asked and not answered.
    pub fn waiting(&self) -> impl Iterator<Item = &Ask> {
        self.waiting.iter().map(|(_, _, ask)| ask)
    }

    /// The answers that have arrived whole; an error if one is not what it has to be.
    pub fn answers(&mut self) -> Result<Vec<(Ask, Answer)>, String> {
        self.inbox.extend(self.peer.received());
        let mut answers = Vec::new();
        while let Some((length, rest)) = self.inbox.split_first_chunk::<4>() {
            let Some(message) = rest.get(..u32::from_be_bytes(*length) as usize) else { break };
            let message = Bytes::copy_from_slice(message);
            self.inbox.drain(..4 + message.len());
            let (correlation_id, version, ask) =
                self.waiting.pop_front().ok_or("an answer that nobody waits for")?;
            let answer = read(&ask, version, correlation_id, message)
                .map_err(|what| format!("the answer to {} in version {version}: {what}", kind(&ask)))?;
            answers.push((ask, answer));
        }
        Ok(answers)
    }
}

fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Versions => "ApiVersions",
        Ask::Topic(_) => "Metadata",
        Ask::Produce { .. } => "Produce",
        Ask::Fetch { .. } => "Fetch",
        Ask::List { .. } => "ListOffsets",
        Ask::Coordinator(_) => "FindCoordinator",
        Ask::Commit { .. } => "OffsetCommit",
        Ask::Committed { .. } => "OffsetFetch",
    }
}

fn body<R: Decodable + HeaderVersion>(version: i16, expected: i32, mut bytes: Bytes) -> Result<R, String> {
    let header = ResponseHeader::decode(&mut bytes, R::header_version(version)).map_err(|e| e.to_string())?;
    if header.correlation_id != expected {
        return Err(format!("it is to {} and not to {expected}", header.correlation_id));
    }
    let body = R::decode(&mut bytes, version).map_err(|error| error.to_string())?;
    if bytes.has_remaining() { Err(format!("{} bytes follow it", bytes.len())) } else { Ok(body) }
}

fn read(ask: &Ask, version: i16, id: i32, bytes: Bytes) -> Result<Answer, String> {
    let none = || "it says nothing".to_owned();
    Ok(match ask {
        Ask::Versions => {
            let response: ApiVersionsResponse = body(version, id, bytes)?;
            Answer::Versions(response.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect())
        }
        Ask::Topic(_) => {
            let response: MetadataResponse = body(version, id, bytes)?;
            let topic = response.topics.first().ok_or_else(none)?;
            Answer::Topic(topic.error_code, topic.partitions.len())
        }
        Ask::Produce { .. } => {
            let response: ProduceResponse = body(version, id, bytes)?;
            let part = response.responses.first().and_then(|topic| topic.partition_responses.first());
            let part = part.ok_or_else(none)?;
            Answer::Produced(part.error_code, part.base_offset)
        }
        Ask::Fetch { .. } => {
            let response: FetchResponse = body(version, id, bytes)?;
            let part = response.responses.first().and_then(|topic| topic.partitions.first());
            let part = part.ok_or_else(none)?;
            Answer::Fetched {
                error: part.error_code,
                high_watermark: part.high_watermark,
                bytes: part.records.clone().unwrap_or_default().to_vec(),
            }
        }
        Ask::List { .. } => {
            let response: ListOffsetsResponse = body(version, id, bytes)?;
            let part = response.topics.first().and_then(|topic| topic.partitions.first());
            let part = part.ok_or_else(none)?;
            Answer::Listed(part.error_code, part.offset)
        }
        Ask::Coordinator(_) => {
            let response: FindCoordinatorResponse = body(version, id, bytes)?;
            Answer::Done(response.error_code)
        }
        Ask::Commit { .. } => {
            let response: OffsetCommitResponse = body(version, id, bytes)?;
            let part = response.topics.first().and_then(|topic| topic.partitions.first());
            Answer::Done(part.ok_or_else(none)?.error_code)
        }
        Ask::Committed { .. } => {
            let response: OffsetFetchResponse = body(version, id, bytes)?;
            let part = response.topics.first().and_then(|topic| topic.partitions.first());
            let part = part.ok_or_else(none)?;
            let error = if part.error_code == 0 { response.error_code } else { part.error_code };
            Answer::Listed(error, part.committed_offset)
        }
    })
}
