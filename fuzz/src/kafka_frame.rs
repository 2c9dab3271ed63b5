//! The stream of a Kafka connection, cut into frames, and the header of each; `kafka-protocol` reads the headers too.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader as OracleHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use millstream::kafka::codec::Reader;
use millstream::kafka::{APIS, RequestHeader};
use millstream::limits::PARTIAL_RESERVE_BYTES;
use millstream::net::Frames;
use millstream_engine::buffer::{Pool, Slice};

use crate::alloc::taken;

/// The largest frame that is allowed here.
const LIMIT: usize = 5000;

/// The frames are the same however the stream is split, and those that its lengths say; no more memory is held than has
/// arrived, by a bound; where the oracle reads a header, so do we, and the same.
pub fn run(bytes: &[u8]) {
    let Some((pieces, stream)) = bytes.split_at_checked(4) else { return };
    let (expected, sound) = by_the_lengths(stream);
    let mut frames = Frames::new(LIMIT, Pool::new(0));
    let mut cut = Vec::new();
    let mut error = false;
    let mut rest = stream;
    let mut sizes = pieces.iter().cycle().map(|piece| usize::from(*piece) * usize::from(*piece) / 16 + 1);
    while !rest.is_empty() && !error {
        let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        frames.push(Slice::from(piece.to_vec()));
        rest = behind;
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => cut.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    error = true;
                    break;
                }
            }
        }
        let arrived = stream.len() - rest.len();
        assert!(frames.partial_bytes() <= LIMIT.min(2 * arrived + PARTIAL_RESERVE_BYTES));
    }
    assert_eq!(cut, expected, "other frames than the lengths say");
    assert_eq!(error, !sound);
    for frame in &cut {
        header(frame);
    }
}

/// The frames of a stream, and whether no length in it is impossible.
fn by_the_lengths(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else { return (frames, false) };
        if length > LIMIT {
            return (frames, false);
        }
        let Some((frame, behind)) = rest.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        stream = behind;
    }
    (frames, true)
}

fn header(frame: &[u8]) {
    let read = || {
        let mut reader = Reader::new(frame, false);
        let header = RequestHeader::read(&mut reader).ok()?;
        let api =
            APIS.iter().find(|api| api.key == header.api_key && api.versions.contains(&header.version))?;
        let rest = RequestHeader::read_rest(&mut reader, api.is_flexible(header.version));
        Some((header, rest.is_ok(), reader.remaining()))
    };
    let (ours, bytes) = taken(read);
    assert_eq!(bytes, 0, "a header is read in place");
    let Some((header, whole, remaining)) = ours else { return };
    let Ok(key) = ApiKey::try_from(header.api_key) else { return };
    let mut rest = Bytes::copy_from_slice(frame);
    let Ok(oracle) = OracleHeader::decode(&mut rest, key.request_header_version(header.version)) else {
        return;
    };
    if !whole {
        // It also reads lengths and tags of more than 32 bits, and drops what is too much of them. What is left of a tag may be
        // negative; then it drops the field as well when it encodes.
        let mut canonical = BytesMut::new();
        let version = key.request_header_version(header.version);
        oracle.encode(&mut canonical, version).expect("what was decoded can be encoded");
        let dropped = oracle.unknown_tagged_fields.keys().any(|tag| *tag < 0);
        assert!(
            dropped || !frame.starts_with(&canonical),
            "the oracle reads a header that we refuse: {oracle:?}"
        );
        return;
    }
    let fields = (oracle.request_api_key, oracle.request_api_version, oracle.correlation_id);
    assert_eq!(fields, (header.api_key, header.version, header.correlation_id));
    assert_eq!(rest.len(), remaining, "the body begins elsewhere");
}
