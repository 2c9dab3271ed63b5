//! The stream of an AMQP connection, cut into frames, and the methods, headers and tables in them; `amq-protocol` reads them too.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use millstream::amqp::codec::{
    FRAME_END, FRAME_EXTRA_BYTES, FRAME_HEAD_BYTES, FRAME_HEADER, FRAME_METHOD, Header, Method, Properties,
    Reader, Writer,
};
use millstream::amqp::frames::{Frame, Frames};
use millstream::limits::{AMQP_PARTIAL_RESERVE_BYTES, AMQP_TABLE_DEPTH_MAX};
use millstream_engine::buffer::Slice;

use crate::alloc::taken;

/// The largest payload that is allowed here.
const LIMIT: usize = 4000;
/// What the oracle may need for what it has read from that.
const ORACLE_BYTES: usize = 4 * LIMIT;

/// The frames are the same however the stream is split, and those that its lengths say; no more memory is held than has
/// arrived, by a bound; what is read is written as it was; and where the oracle reads something, so do we, and the same.
pub fn run(bytes: &[u8]) {
    let Some((pieces, stream)) = bytes.split_at_checked(4) else { return };
    let (expected, sound) = by_the_lengths(stream);
    let mut frames = Frames::new(LIMIT);
    let mut cut: Vec<Frame> = Vec::new();
    let mut error = false;
    let mut rest = stream;
    let mut sizes = pieces.iter().cycle().map(|piece| usize::from(*piece) * usize::from(*piece) / 16 + 1);
    while !rest.is_empty() && !error {
        let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        frames.push(Slice::from(piece.to_vec()));
        rest = behind;
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => cut.push(frame),
                Ok(None) => break,
                Err(_) => {
                    error = true;
                    break;
                }
            }
        }
        let arrived = stream.len() - rest.len();
        assert!(frames.held_bytes() <= LIMIT + 1 + 2 * arrived + AMQP_PARTIAL_RESERVE_BYTES);
    }
    let found: Vec<Vec<u8>> = cut.iter().map(whole).collect();
    assert_eq!(found, expected, "other frames than the lengths say");
    assert_eq!(error, !sound);
    for frame in &cut {
        read(frame);
    }
}

/// A frame's bytes.
fn whole(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).frame(frame.kind, frame.channel, |writer| writer.bytes(&frame.payload));
    bytes
}

/// The frames of a stream, and whether there is nothing impossible in it.
fn by_the_lengths(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Vec::new();
    while let Some((head, _)) = stream.split_first_chunk::<FRAME_HEAD_BYTES>() {
        let [_, _, _, len @ ..] = *head;
        let len = u32::from_be_bytes(len) as usize;
        if len > LIMIT {
            return (frames, false);
        }
        let Some((frame, behind)) = stream.split_at_checked(len + FRAME_EXTRA_BYTES) else { break };
        if frame.last() != Some(&FRAME_END) {
            return (frames, false);
        }
        frames.push(frame.to_vec());
        stream = behind;
    }
    (frames, true)
}

fn read(frame: &Frame) {
    match frame.kind {
        FRAME_METHOD => method(frame),
        FRAME_HEADER => header(frame),
        _ => {}
    }
}

/// What the oracle makes of a frame, written by it.
fn oracle(frame: &Frame) -> Option<Vec<u8>> {
    let bytes = whole(frame);
    let (_, read) = parse_frame(&bytes[..]).ok()?;
    if !matches!(read, AMQPFrame::Method(..) | AMQPFrame::Header(..)) {
        return None;
    }
    let mut written = vec![0; ORACLE_BYTES];
    let end = gen_frame(&read)(WriteContext::from(&mut written[..])).ok()?.position;
    written.truncate(usize::try_from(end).ok()?);
    Some(written)
}

/// Whether the oracle may read what we refuse: tables that are deeper than we allow, and a tag that only it knows.
fn is_beyond_us(payload: &[u8]) -> bool {
    let deep = payload.iter().filter(|byte| matches!(byte, b'F' | b'A')).count() > AMQP_TABLE_DEPTH_MAX;
    deep || payload.contains(&b'U')
}

fn read_method(payload: &[u8]) -> Option<Method<'_>> {
    let mut reader = Reader::new(payload);
    let (class, id) = (reader.u16().ok()?, reader.u16().ok()?);
    let method = Method::read(class, id, &mut reader).ok()??;
    reader.is_empty().then_some(method)
}

fn method(frame: &Frame) {
    let (ours, bytes) = taken(|| read_method(&frame.payload));
    assert_eq!(bytes, 0, "a method is read in place");
    if let Some(method) = ours {
        let mut written = Vec::new();
        method.write(&mut Writer::new(&mut written));
        assert_eq!(read_method(&written), Some(method), "a method comes back as it was written");
    }
    let Some(theirs) = oracle(frame) else { return };
    assert!(ours.is_some() || is_beyond_us(&frame.payload), "the oracle reads a method that we refuse");
    if ours.is_some() {
        let payload = theirs.get(FRAME_HEAD_BYTES..theirs.len() - 1).unwrap_or_default();
        let again = read_method(payload).expect("what the oracle writes can be read");
        let mut written = Vec::new();
        Writer::new(&mut written).method(frame.channel, &again);
        assert_eq!(written, theirs, "the oracle reads or writes something else");
    }
}

fn header(frame: &Frame) {
    let ours = Header::read(&frame.payload).ok().and_then(|header| {
        let (properties, bytes) = taken(|| Properties::read(header.raw));
        assert_eq!(bytes, 0, "properties are read in place");
        Some((header.body_bytes, properties.ok()?))
    });
    let Some(theirs) = oracle(frame) else { return };
    let Some((body_bytes, _)) = ours else {
        // Of other classes nothing is ever published.
        let class = frame.payload.first_chunk::<2>().copied().map(u16::from_be_bytes);
        let flags = frame.payload.get(12..14).and_then(|flags| flags.first_chunk::<2>()).copied();
        let unknown_flags = flags.map(u16::from_be_bytes).is_some_and(|flags| flags & 0b11 != 0);
        assert!(
            class != Some(60) || unknown_flags || is_beyond_us(&frame.payload),
            "the oracle reads a header that we refuse"
        );
        return;
    };
    let payload = theirs.get(FRAME_HEAD_BYTES..theirs.len() - 1).unwrap_or_default();
    let again = Header::read(payload).expect("what the oracle writes can be read");
    assert_eq!(again.body_bytes, body_bytes);
    let properties = Properties::read(again.raw).expect("what the oracle writes can be read");
    let mut written = Vec::new();
    properties.write(&mut written);
    assert_eq!(written, again.raw, "the oracle reads or writes something else");
}
