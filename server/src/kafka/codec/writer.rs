//! Writing what a client gets: into one vector, front to back.

use millstream_engine::buffer::Slice;
use millstream_engine::types::TopicId;

use crate::kafka::ErrorCode;

/// Bytes of a frame's length, which the length does not count.
const LENGTH_BYTES: usize = 4;

/// Writes one response: its frame's length, its header, its body.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    flexible: bool,
    errors: u64,
}

impl Writer {
    /// Starts a response with the request's correlation id. `flexible_header` says whether the header ends in tagged
    /// fields, `flexible` whether the body is of the flexible form: they differ for `ApiVersions`.
    pub fn response(correlation_id: i32, flexible_header: bool, flexible: bool, capacity: usize) -> Writer {
        let bytes = Vec::with_capacity(capacity + 16);
        let mut writer = Writer { bytes, flexible: flexible_header, errors: 0 };
        writer.i32(0);
        writer.i32(correlation_id);
        writer.tags();
        writer.flexible = flexible;
        writer
    }

    /// The response, whole.
    pub fn finish(self) -> Slice {
        self.finish_with(0)
    }

    /// The response's own bytes, when `more` bytes are to be sent in between them.
    pub fn finish_with(mut self, more: usize) -> Slice {
        let length = self.bytes.len() - LENGTH_BYTES + more;
        let length = i32::try_from(length).expect("a response is bounded far below 2 GiB");
        let (prefix, _) = self.bytes.split_first_chunk_mut().expect("every response starts with its length");
        *prefix = length.to_be_bytes();
        Slice::from(self.bytes)
    }

    /// Bytes written so far, the frame's length included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is written: never so, since a response starts with its length.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// An INT8.
    pub fn i8(&mut self, value: i8) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// An INT16.
    pub fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// An INT32.
    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// An INT64.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// An error code: every one goes this way, so that all are counted.
    pub fn error(&mut self, error: ErrorCode) {
        self.errors += u64::from(error != ErrorCode::None);
        self.i16(error.code());
    }

    /// Errors written so far.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// A BOOLEAN.
    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// A UUID.
    pub fn uuid(&mut self, id: TopicId) {
        self.bytes.extend_from_slice(&id.0);
    }

    /// An `UNSIGNED_VARINT`.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A `NULLABLE_STRING`. What is longer than 32767 bytes is cut, at a character: only our own error texts could be.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        let text = text.map(cut_to_max);
        match (text, self.flexible) {
            (None, true) => self.unsigned_varint(0),
            (None, false) => self.i16(-1),
            (Some(text), true) => self.unsigned_varint(text.len() as u32 + 1),
            (Some(text), false) => self.i16(text.len() as i16),
        }
        self.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    /// A STRING.
    pub fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// The length of a nullable ARRAY, of BYTES or of RECORDS, whose content follows.
    pub fn nullable_count(&mut self, count: Option<usize>) {
        let count = count.map_or(-1, |count| i32::try_from(count).expect("counts are bounded by limits.rs"));
        if self.flexible {
            self.unsigned_varint((count + 1) as u32);
        } else {
            self.i32(count);
        }
    }

    /// The length of an ARRAY, of BYTES or of RECORDS, whose content follows.
    pub fn count(&mut self, count: usize) {
        self.nullable_count(Some(count));
    }

    /// BYTES.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends a structure: no tagged fields.
    pub fn tags(&mut self) {
        if self.flexible {
            self.bytes.push(0);
        }
    }
}

/// The longest beginning of a text, in whole characters, that has a length in 16 bits.
fn cut_to_max(text: &str) -> &str {
    let max = i16::MAX as usize;
    (0..=max.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::codec::Reader;

    #[test]
    fn what_is_written_is_read_back_in_both_forms() {
        for flexible in [false, true] {
            let mut writer = Writer::response(7, flexible, flexible, 0);
            writer.string("topic");
            writer.nullable_string(None);
            writer.count(2);
            writer.nullable_count(None);
            writer.i64(-5);
            writer.bool(true);
            writer.tags();
            let slice = writer.finish();
            let mut reader = Reader::new(&slice, flexible);
            assert_eq!(reader.i32(), Ok(slice.len() as i32 - 4));
            assert_eq!(reader.i32(), Ok(7));
            assert_eq!(reader.tags(), Ok(()));
            assert_eq!(reader.string(), Ok("topic"));
            assert_eq!(reader.nullable_string(), Ok(None));
            assert_eq!(reader.count(1), Ok(2));
            assert_eq!(reader.nullable_count(1), Ok(None));
            assert_eq!(reader.i64(), Ok(-5));
            assert_eq!(reader.bool(), Ok(true));
            assert_eq!(reader.tags(), Ok(()));
            assert_eq!(reader.remaining(), 0);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        assert_eq!(cut_to_max("äöü"), "äöü");
        assert_eq!(cut_to_max(&"ä".repeat(20_000)).len(), 32_766);
    }

    #[test]
    fn varints_are_as_short_as_can_be() {
        let mut writer = Writer::response(0, false, true, 0);
        for value in [0, 127, 128, 16_384, u32::MAX] {
            writer.unsigned_varint(value);
        }
        let slice = writer.finish();
        assert_eq!(slice[8..], [0, 0x7f, 0x80, 1, 0x80, 0x80, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    }

    #[test]
    fn the_frame_counts_what_is_sent_in_between() {
        let mut writer = Writer::response(0, false, false, 0);
        writer.i16(1);
        assert_eq!(writer.finish_with(1000)[..4], 1006_i32.to_be_bytes());
    }
}
