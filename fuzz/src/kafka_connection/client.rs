//! A client: what it writes, and what must come back.

use std::collections::VecDeque;
use std::fmt;
use std::sync::LazyLock;

use millstream_engine::buffer::{Block, Slice};
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::ConnId;

use super::engine::Engine;

/// The one topic.
pub const TOPIC: &str = "t";
/// Its partitions.
pub const PARTITIONS: i32 = 2;

/// Bytes of the records that are produced: below and above what is received into rooms, and past what rooms there are.
const VALUE_BYTES: [usize; 6] = [10, 3_000, 66_000, 140_000, 500_000, 2_200_000];
static BATCHES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let batch = |bytes: &usize| BatchBuilder::new(0).push(None, Some(&vec![7; *bytes])).build();
    VALUE_BYTES.iter().map(batch).collect()
});

/// What a client can write.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Asks for the versions.
    Versions,
    /// Asks for everything about all topics.
    Metadata,
    /// Stores a batch of that size, by its place, and wants so many acks.
    Produce { size: usize, acks: i16 },
    /// Reads from both partitions, and waits for so long if there is nothing.
    Fetch { wait_ms: i32 },
    /// A length that cannot be.
    Negative,
    /// A length past what is allowed.
    TooLarge,
    /// An API that there is not.
    Unknown,
}

/// What it waits for, in order.
#[derive(Debug)]
pub struct Expected {
    correlation: i32,
    is_fetch: bool,
}

/// A client, its connection as the kernel would see it, and what it expects.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Client {
    pub conn: ConnId,
    /// Written, and not received: all of it, and how much the broker has got.
    written: Vec<u8>,
    received: usize,
    /// Where each request in it ends.
    ends: VecDeque<usize>,
    pub reads: bool,
    pub room: Option<Block>,
    pub catches_up: bool,
    pub sending: Option<Vec<Slice>>,
    /// The broker has closed it, but has not been told that it is closed.
    pub closing: bool,
    /// Something that is refused has been written: what comes behind it counts for nothing.
    pub is_hopeless: bool,
    /// It may be hung up on for another reason.
    pub may_be_cut: bool,
    taken: Vec<u8>,
    expected: VecDeque<Expected>,
    batches: VecDeque<Vec<u8>>,
    requests: i32,
}

impl Client {
    /// A client that has connected.
    pub fn new(conn: ConnId) -> Client {
        Client {
            conn,
            written: Vec::new(),
            received: 0,
            ends: VecDeque::new(),
            reads: true,
            room: None,
            catches_up: false,
            sending: None,
            closing: false,
            is_hopeless: false,
            may_be_cut: false,
            taken: Vec::new(),
            expected: VecDeque::new(),
            batches: VecDeque::new(),
            requests: 0,
        }
    }

    /// Writes a request.
    pub fn write(&mut self, request: Request) {
        self.requests += 1;
        let correlation = self.requests;
        let mut frame = Vec::new();
        let head = |key: i16, version: i16, frame: &mut Vec<u8>| {
            frame.extend(key.to_be_bytes());
            frame.extend(version.to_be_bytes());
            frame.extend(correlation.to_be_bytes());
            frame.extend((-1_i16).to_be_bytes());
        };
        match request {
            Request::Versions => head(18, 0, &mut frame),
            Request::Metadata => {
                head(3, 1, &mut frame);
                frame.extend((-1_i32).to_be_bytes());
            }
            Request::Produce { size, acks } => {
                head(0, 7, &mut frame);
                frame.extend((-1_i16).to_be_bytes());
                frame.extend(acks.to_be_bytes());
                frame.extend(1_000_i32.to_be_bytes());
                topic(&mut frame, 1);
                frame.extend((correlation % PARTITIONS).to_be_bytes());
                let mut batch = BATCHES[size % BATCHES.len()].clone();
                // The broker gives its own: it tells batches apart here.
                batch[..8].copy_from_slice(&i64::from(correlation).to_be_bytes());
                frame.extend((batch.len() as i32).to_be_bytes());
                frame.extend_from_slice(&batch);
                if !self.is_hopeless {
                    self.batches.push_back(batch);
                }
            }
            Request::Fetch { wait_ms } => {
                head(1, 4, &mut frame);
                for number in [-1, wait_ms, 1, 8 << 20] {
                    frame.extend(number.to_be_bytes());
                }
                frame.push(0);
                topic(&mut frame, PARTITIONS);
                for index in 0..PARTITIONS {
                    frame.extend(index.to_be_bytes());
                    frame.extend(0_i64.to_be_bytes());
                    frame.extend((4_i32 << 20).to_be_bytes());
                }
            }
            Request::Negative | Request::TooLarge => {}
            Request::Unknown => head(999, 0, &mut frame),
        }
        let len = match request {
            Request::Negative => -1,
            Request::TooLarge => i32::MAX,
            _ => frame.len() as i32,
        };
        self.written.extend(len.to_be_bytes());
        self.written.extend(frame);
        self.ends.push_back(self.written.len());
        self.is_hopeless |= matches!(request, Request::Negative | Request::TooLarge | Request::Unknown);
        if !self.is_hopeless && !matches!(request, Request::Produce { acks: 0, .. }) {
            let is_fetch = matches!(request, Request::Fetch { .. });
            self.expected.push_back(Expected { correlation, is_fetch });
        }
    }

    /// The next bytes that the broker gets, at most so many: in the room that it gave, if there is one.
    pub fn next_bytes(&mut self, most: usize) -> Option<Slice> {
        let left = &self.written[self.received..];
        let room = self.room.as_ref().map_or(usize::MAX, Block::spare);
        let piece = &left[..left.len().min(most).min(room)];
        if piece.is_empty() {
            return None;
        }
        self.received += piece.len();
        let Some(room) = &mut self.room else { return Some(Slice::from(piece.to_vec())) };
        room.push(piece);
        let slice = room.split_frozen();
        self.room.take_if(|room| room.spare() == 0);
        Some(slice)
    }

    /// Bytes that have been written, and not received.
    pub fn unreceived(&self) -> usize {
        self.written.len() - self.received
    }

    /// The most memory that a request which has arrived in part may keep.
    pub fn partial_bytes_max(&mut self) -> usize {
        while self.ends.pop_front_if(|end| *end <= self.received).is_some() {}
        self.ends.front().map_or(0, |end| 3 * (end - self.received.min(*end)).max(1 << 18).max(*end))
    }

    /// The engine is asked to store something for it.
    pub fn stored(&mut self, batch: &[u8]) {
        let expected = self.batches.pop_front().expect("no more is stored than was sent");
        assert!(batch == expected, "another batch, or in another order");
    }

    /// What the kernel has taken goes to the client, which looks at it.
    pub fn takes(&mut self, slices: &[Slice], engine: &mut Engine) {
        for slice in slices {
            self.taken.extend_from_slice(slice);
        }
        while let Some((len, rest)) = self.taken.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            let Some(answer) = rest.get(..len) else { break };
            let expected = self.expected.pop_front().expect("no more is answered than was asked");
            let mut reader = Reader(answer);
            assert_eq!(reader.i32(), expected.correlation, "an answer out of order");
            if expected.is_fetch {
                check_fetch(&mut reader, engine);
            }
            self.taken.drain(..4 + len);
        }
    }

    /// Whether nothing is on its way between it and the broker.
    pub fn is_at_rest(&self) -> bool {
        let all_received = self.unreceived() == 0 || !self.reads || self.closing;
        self.sending.is_none() && !self.catches_up && all_received
    }

    /// Whether everything that it asked for has come.
    pub fn is_content(&self) -> bool {
        self.expected.is_empty() && self.batches.is_empty() && self.taken.is_empty()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} has written {} bytes, of which {} were received, and expects {:?} behind {} bytes; {} batches are under way; \
             it is {}read from, hopeless: {}, may be cut: {}",
            self.conn,
            self.written.len(),
            self.received,
            self.expected,
            self.taken.len(),
            self.batches.len(),
            if self.reads { "" } else { "not " },
            self.is_hopeless,
            self.may_be_cut,
        )
    }
}

fn topic(frame: &mut Vec<u8>, partitions: i32) {
    frame.extend(1_i32.to_be_bytes());
    frame.extend((TOPIC.len() as i16).to_be_bytes());
    frame.extend_from_slice(TOPIC.as_bytes());
    frame.extend(partitions.to_be_bytes());
}

/// Reads what we have written ourselves: it panics where that is not sound.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().expect("two bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().expect("four bytes"))
    }
}

/// Every partition has an error, or whole stretches as the engine has given them.
fn check_fetch(reader: &mut Reader<'_>, engine: &mut Engine) {
    assert_eq!((reader.i32(), reader.i32()), (0, 1), "no throttling, one topic");
    let name = reader.i16() as usize;
    assert_eq!(reader.bytes(name), TOPIC.as_bytes());
    for index in 0..reader.i32() {
        assert_eq!(reader.i32(), index);
        reader.i16();
        reader.bytes(16);
        assert!(reader.i32() <= 0, "nothing is aborted");
        let len = reader.i32();
        engine.check(reader.bytes(len as usize));
    }
    assert!(reader.0.is_empty(), "bytes behind an answer");
}
