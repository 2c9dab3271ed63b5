//! Reading what a client sent. Nothing is copied, nothing is allocated, and no length or count is trusted.

use std::fmt;
use std::ops::Range;

use millstream_engine::types::TopicId;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Reads primitives from the front of a message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// A reader of a message in its flexible form or not.
    pub fn new(bytes: &'a [u8], flexible: bool) -> Reader<'a> {
        Reader { bytes, position: 0, flexible }
    }

    /// Goes on in the flexible form, or not: a request's body may differ from its header.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let bytes = self
            .position
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.position..end))
            .ok_or(Malformed("the message ends too early"))?;
        self.position += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take returns as many bytes as asked for"))
    }

    /// An INT8.
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// An INT16.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// An INT32.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// An INT64.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A BOOLEAN: any value but zero is true.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.i8()? != 0)
    }

    /// A UUID.
    pub fn uuid(&mut self) -> Result<TopicId, Malformed> {
        Ok(TopicId(self.array()?))
    }

    /// An `UNSIGNED_VARINT` of at most 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in (0..u32::BITS).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint is longer than 32 bits"))
    }

    /// A length or count: compact ones are stored one higher, so that zero is null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, Malformed> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else if short {
            i64::from(self.i16()?)
        } else {
            i64::from(self.i32()?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed("a length is negative")),
        }
    }

    /// A `NULLABLE_STRING`.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let Some(len) = self.length(true)? else { return Ok(None) };
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a string is not UTF-8"))?;
        if text.len() > i16::MAX as usize {
            return Err(Malformed("a string is longer than 32767 bytes"));
        }
        Ok(Some(text))
    }

    /// A STRING.
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        self.nullable_string()?.ok_or(Malformed("a string is null"))
    }

    /// `NULLABLE_BYTES` or RECORDS, as their place in the message.
    pub fn nullable_bytes(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let Some(len) = self.length(false)? else { return Ok(None) };
        let start = self.position;
        self.take(len)?;
        Ok(Some(start..self.position))
    }

    /// The count of a nullable ARRAY whose elements take at least `element_bytes` each. A count that the rest of the
    /// message cannot hold is an error, so a loop over it is bounded by what has arrived.
    pub fn nullable_count(&mut self, element_bytes: usize) -> Result<Option<usize>, Malformed> {
        let Some(count) = self.length(false)? else { return Ok(None) };
        if count.saturating_mul(element_bytes.max(1)) > self.remaining() {
            return Err(Malformed("an array has more elements than the message has room for"));
        }
        Ok(Some(count))
    }

    /// The count of an ARRAY, as [`Reader::nullable_count`].
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, Malformed> {
        self.nullable_count(element_bytes)?.ok_or(Malformed("an array is null"))
    }

    /// Skips the tagged fields that end a structure of a flexible message. None of those that exist means anything to a
    /// broker that is alone.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.tagged()?;
        }
        Ok(())
    }

    /// One of the tagged fields that end a structure of a flexible message: its tag and its bytes.
    pub fn tagged(&mut self) -> Result<(u32, &'a [u8]), Malformed> {
        let tag = self.unsigned_varint()?;
        let len = self.unsigned_varint()?;
        Ok((tag, self.take(len as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_cannot_be_is_an_error_before_anything_is_reserved() {
        let mut plain = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0], false);
        assert!(plain.count(1).is_err());
        let mut compact = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], true);
        assert!(compact.count(1).is_err());
        assert_eq!(Reader::new(&[0, 0, 0, 2, 9, 9], false).count(1), Ok(2));
        assert!(Reader::new(&[0, 0, 0, 2, 9, 9], false).count(2).is_err());
    }

    #[test]
    fn null_and_empty_are_told_apart() {
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string(), Ok(None));
        assert_eq!(Reader::new(&[0, 0], false).nullable_string(), Ok(Some("")));
        assert_eq!(Reader::new(&[0], true).nullable_string(), Ok(None));
        assert_eq!(Reader::new(&[1], true).nullable_string(), Ok(Some("")));
        assert!(Reader::new(&[0], true).string().is_err());
        assert_eq!(Reader::new(&[0], true).nullable_count(1), Ok(None));
        assert_eq!(Reader::new(&[1], true).nullable_count(1), Ok(Some(0)));
    }

    #[test]
    fn negative_lengths_other_than_null_are_errors() {
        assert!(Reader::new(&[0xff, 0xfe], false).nullable_string().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).nullable_bytes().is_err());
        assert!(Reader::new(&[0x80, 0, 0, 0], false).nullable_count(1).is_err());
    }

    #[test]
    fn a_varint_ends_within_32_bits() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).unsigned_varint(), Ok(u32::MAX));
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], true).unsigned_varint().is_err());
        assert!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], true).unsigned_varint().is_err());
        assert!(Reader::new(&[0x80], true).unsigned_varint().is_err());
    }

    #[test]
    fn tagged_fields_are_skipped_and_a_lying_one_is_found_out() {
        let mut reader = Reader::new(&[2, 0, 1, 0xaa, 7, 0, 0x55], true);
        assert_eq!(reader.tags(), Ok(()));
        assert_eq!(reader.i8(), Ok(0x55));
        assert!(Reader::new(&[1, 0, 200], true).tags().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], true).tags().is_err());
    }

    #[test]
    fn bytes_are_named_by_their_place() {
        let mut reader = Reader::new(&[9, 0, 0, 0, 3, 1, 2, 3], false);
        reader.i8().unwrap();
        assert_eq!(reader.nullable_bytes(), Ok(Some(5..8)));
    }
}
