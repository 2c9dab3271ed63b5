//! The records inside a batch, once decompressed.
//!
//! Every integer but the attributes is a zig-zag varint: 7 bits per byte, least significant first, the top bit set in all
//! but the last; `n` is stored as `2n` and `-n` as `2n - 1`.
//!
//! | field | size |
//! |---|---|
//! | bytes after this field | varint, 32 bits |
//! | attributes: 0, none are defined | 1 byte |
//! | timestamp less the batch's base timestamp, in ms | varint, 64 bits |
//! | offset less the batch's base offset | varint, 32 bits |
//! | length of the key, -1 for none; the key | varint, 32 bits; bytes |
//! | length of the value, -1 for none; the value | varint, 32 bits; bytes |
//! | headers | varint, 32 bits |
//! | for each: length of its key; the key; length of its value, -1 for none; the value | |
//!
//! Source: Kafka's documentation, "Record".

use super::batch::BatchError;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    /// Its offset less the batch's base offset. Never negative.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp, in ms.
    pub timestamp_delta: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// How many headers it has.
    pub headers: u32,
}

/// Iterates over records. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    left: u32,
    failed: bool,
}

/// The `count` records that `bytes` holds, uncompressed. That nothing follows the last of them is checked.
pub fn records_in(bytes: &[u8], count: u32) -> Records<'_> {
    Records { bytes, left: count, failed: false }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = if self.left > 0 {
            self.left -= 1;
            read_record(&mut self.bytes)
        } else if self.bytes.is_empty() {
            return None;
        } else {
            Err("bytes follow the last record")
        };
        self.failed = read.is_err();
        Some(read.map_err(BatchError::CorruptStructure))
    }
}

fn read_record<'a>(bytes: &mut &'a [u8]) -> Result<RecordView<'a>, &'static str> {
    let mut body = read_bytes(bytes)?.ok_or("a record's length is negative")?;
    let _attributes = body.split_off_first().ok_or("a record is cut short")?;
    let timestamp_delta = read_varlong(&mut body)?;
    let offset_delta = read_varint(&mut body)?;
    if offset_delta < 0 {
        return Err("a record's offset delta is negative");
    }
    let key = read_bytes(&mut body)?;
    let value = read_bytes(&mut body)?;
    let headers =
        u32::try_from(read_varint(&mut body)?).map_err(|_| "a record's header count is negative")?;
    for _ in 0..headers {
        read_bytes(&mut body)?.ok_or("a header has no key")?;
        read_bytes(&mut body)?;
    }
    if !body.is_empty() {
        return Err("bytes follow a record's headers");
    }
    Ok(RecordView { offset_delta, timestamp_delta, key, value, headers })
}

/// Bytes behind their length; `None` for a length of -1.
fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    match read_varint(bytes)? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| "a length within a record is negative")?;
            bytes.split_off(..len).map(Some).ok_or("a record is cut short")
        }
    }
}

fn read_varint(bytes: &mut &[u8]) -> Result<i32, &'static str> {
    i32::try_from(read_varlong(bytes)?).map_err(|_| "a number within a record is past 32 bits")
}

fn read_varlong(bytes: &mut &[u8]) -> Result<i64, &'static str> {
    let mut zigzag = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first().ok_or("a record is cut short")?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        zigzag |= bits << shift;
        if byte < 0x80 {
            return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    Err("a number within a record is past 64 bits")
}

/// Appends one record.
pub(super) fn write_record(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, Option<&[u8]>)],
) {
    let mut body = vec![0];
    write_varlong(&mut body, timestamp_delta);
    write_varlong(&mut body, i64::from(offset_delta));
    write_bytes(&mut body, key);
    write_bytes(&mut body, value);
    write_varlong(&mut body, headers.len() as i64);
    for (name, value) in headers {
        write_bytes(&mut body, Some(name.as_bytes()));
        write_bytes(&mut body, *value);
    }
    write_bytes(out, Some(&body));
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    write_varlong(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn write_varlong(out: &mut Vec<u8>, number: i64) {
    let mut zigzag = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_record(&mut bytes, 0, 0, Some(b"key"), Some(b"value"), &[("h", Some(b"x")), ("none", None)]);
        write_record(&mut bytes, 1, -5, None, None, &[]);
        write_record(&mut bytes, 70_000, i64::MAX, Some(b""), Some(&[7; 300]), &[]);
        bytes
    }

    fn first_error(bytes: &[u8], count: u32) -> Option<&'static str> {
        records_in(bytes, count).find_map(Result::err).map(|error| error.what())
    }

    #[test]
    fn records_round_trip() {
        let bytes = encoded();
        let read: Vec<_> = records_in(&bytes, 3).map(Result::unwrap).collect();
        let record = |offset_delta, timestamp_delta, key, value, headers| RecordView {
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        };
        assert_eq!(
            read,
            [
                record(0, 0, Some(&b"key"[..]), Some(&b"value"[..]), 2),
                record(1, -5, None, None, 0),
                record(70_000, i64::MAX, Some(b""), Some(&[7; 300]), 0),
            ]
        );
    }

    #[test]
    fn numbers_have_their_documented_bytes() {
        for (number, expected) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[128, 1]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut bytes = Vec::new();
            write_varlong(&mut bytes, number);
            assert_eq!(bytes, expected, "{number}");
            assert_eq!(read_varlong(&mut &bytes[..]), Ok(number));
        }
        let past = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(read_varlong(&mut &past[..]).is_err());
    }

    #[test]
    fn cut_records_and_wrong_counts_are_errors() {
        let bytes = encoded();
        for len in 0..bytes.len() {
            assert!(first_error(&bytes[..len], 3).is_some(), "{len} bytes");
        }
        assert_eq!(first_error(&bytes, 2), Some("bytes follow the last record"));
        assert_eq!(first_error(&bytes, u32::MAX), Some("a record is cut short"));
    }

    #[test]
    fn numbers_that_no_record_has_are_errors() {
        // Length 6, then: attributes, timestamp, offset, key length, value length, header count.
        assert_eq!(first_error(&[12, 0, 0, 0, 1, 1, 0], 1), None);
        assert_eq!(first_error(&[1], 1), Some("a record's length is negative"));
        assert_eq!(first_error(&[3], 1), Some("a length within a record is negative"));
        assert_eq!(first_error(&[12, 0, 0, 1, 1, 1, 0], 1), Some("a record's offset delta is negative"));
        assert_eq!(first_error(&[12, 0, 0, 0, 3, 1, 0], 1), Some("a length within a record is negative"));
        assert_eq!(first_error(&[12, 0, 0, 0, 1, 2, 0], 1), Some("a record is cut short"));
        assert_eq!(first_error(&[12, 0, 0, 0, 1, 1, 1], 1), Some("a record's header count is negative"));
        assert_eq!(first_error(&[14, 0, 0, 0, 1, 1, 2, 1], 1), Some("a header has no key"));
        assert_eq!(first_error(&[14, 0, 0, 0, 1, 1, 0, 0], 1), Some("bytes follow a record's headers"));
    }
}
