//! A Kafka client on one connection: `kafka-protocol` for the bytes, a socket that blocks, and no retries.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchRequest, FindCoordinatorRequest, GroupId, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest, RequestHeader, ResponseHeader, TopicName, fetch_request, metadata_request,
    offset_commit_request, offset_fetch_request, produce_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// Versions that every broker of the last years serves.
const PRODUCE: i16 = 8;
const FETCH: i16 = 11;
const METADATA: i16 = 7;
const FIND_COORDINATOR: i16 = 2;
const OFFSET_COMMIT: i16 = 7;
const OFFSET_FETCH: i16 = 5;

/// The coordinator reads what it has stored.
const LOADING: i16 = 14;

const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct Client {
    socket: TcpStream,
    /// Bytes that went either way.
    pub sent: u64,
    pub received: u64,
}

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, sent: 0, received: 0 }
    }

    /// The connection, for what no client would send.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    fn send<R: Request + HeaderVersion>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let mut body = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        self.sent += frame.len() as u64;
        self.socket.write_all(&frame)
    }

    fn receive<R: Decodable + HeaderVersion>(&mut self, version: i16) -> io::Result<R> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut body)?;
        self.received += (length.len() + body.len()) as u64;
        let mut bytes = Bytes::from(body);
        ResponseHeader::decode(&mut bytes, R::header_version(version)).unwrap();
        Ok(R::decode(&mut bytes, version).unwrap())
    }

    /// Asks one thing, and waits for the answer.
    pub fn ask<R: Request + HeaderVersion>(&mut self, version: i16, request: &R) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        self.send(version, request).unwrap();
        self.receive(version).unwrap()
    }

    /// Has a topic created, and waits until all of its partitions can be used: their number.
    pub fn create(&mut self, name: &str) -> usize {
        let wanted = metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(true);
        for _ in 0..1000 {
            self.send(METADATA, &request).unwrap();
            let response = self.receive::<kafka_protocol::messages::MetadataResponse>(METADATA).unwrap();
            let found = &response.topics[0];
            if found.error_code == 0 && found.partitions.iter().all(|partition| partition.error_code == 0) {
                return found.partitions.len();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the topic does not come");
    }

    /// Sends a batch; its answer is another call, so that several can be under way.
    pub fn send_batch(&mut self, acks: i16, name: &str, partition: i32, batch: &[u8]) -> io::Result<()> {
        let data = produce_request::PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(Bytes::copy_from_slice(batch)));
        let data = produce_request::TopicProduceData::default()
            .with_name(topic(name))
            .with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![data]);
        self.send(PRODUCE, &request)
    }

    /// The next batch that was sent is answered: the error code, and the offset.
    pub fn produced(&mut self) -> io::Result<(i16, i64)> {
        let response = self.receive::<kafka_protocol::messages::ProduceResponse>(PRODUCE)?;
        let partition = &response.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    /// The next batch that was sent is acknowledged: its offset.
    pub fn acknowledged(&mut self) -> io::Result<i64> {
        let (error, offset) = self.produced()?;
        assert_eq!(error, 0);
        Ok(offset)
    }

    /// The next batch that was sent is not acknowledged: the error's code.
    pub fn refused(&mut self) -> i16 {
        let response = self.receive::<kafka_protocol::messages::ProduceResponse>(PRODUCE).unwrap();
        response.responses[0].partition_responses[0].error_code
    }

    /// Asks for what there is from an offset on, and waits for up to `max_wait_ms` if it is nothing.
    pub fn send_fetch(&mut self, name: &str, partition: i32, offset: i64, max_wait_ms: i32) {
        let wanted = fetch_request::FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let wanted =
            fetch_request::FetchTopic::default().with_topic(topic(name)).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![wanted]);
        self.send(FETCH, &request).unwrap();
    }

    /// A fetch's answer: the high watermark, and the bytes.
    pub fn fetched(&mut self) -> (i64, Bytes) {
        let response = self.receive::<kafka_protocol::messages::FetchResponse>(FETCH).unwrap();
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        (partition.high_watermark, partition.records.clone().unwrap_or_default())
    }

    /// Has groups made their home.
    pub fn find_coordinator(&mut self, group: &str) {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        self.send(FIND_COORDINATOR, &request).unwrap();
        let response =
            self.receive::<kafka_protocol::messages::FindCoordinatorResponse>(FIND_COORDINATOR).unwrap();
        assert_eq!(response.error_code, 0);
    }

    /// Commits an offset, as a consumer without a group does; its answer is another call.
    pub fn send_commit(
        &mut self,
        group: &str,
        name: &str,
        partition: i32,
        offset: i64,
        text: &str,
    ) -> io::Result<()> {
        let committed = offset_commit_request::OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::from_string(text.to_owned())));
        let of_topic = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![committed]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![of_topic]);
        self.send(OFFSET_COMMIT, &request)
    }

    /// Whether the next commit that was sent has been taken; not as long as the coordinator reads what it has stored.
    pub fn committed(&mut self) -> io::Result<bool> {
        let response = self.receive::<kafka_protocol::messages::OffsetCommitResponse>(OFFSET_COMMIT)?;
        match response.topics[0].partitions[0].error_code {
            0 => Ok(true),
            LOADING => Ok(false),
            other => panic!("a commit was answered with error {other}"),
        }
    }

    /// The offset that a group has committed.
    pub fn offset(&mut self, group: &str, name: &str, partition: i32) -> i64 {
        let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(topic(name))
            .with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(Some(vec![wanted]));
        for _ in 0..PATIENCE.as_millis() / 10 {
            self.send(OFFSET_FETCH, &request).unwrap();
            let response =
                self.receive::<kafka_protocol::messages::OffsetFetchResponse>(OFFSET_FETCH).unwrap();
            if response.error_code == 0 {
                return response.topics[0].partitions[0].committed_offset;
            }
            assert_eq!(response.error_code, LOADING);
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the coordinator does not come up");
    }
}
