//! Taking values off the front of bytes that may be anything.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

/// Takes a value of fixed size.
pub(crate) fn take<T: FromBytes>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = T::read_from_prefix(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

/// Takes bytes behind their 32-bit length.
pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take::<U32>(bytes)?.get() as usize;
    bytes.split_off(..len)
}

/// Takes a string behind its 16-bit length.
pub(crate) fn take_str<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(take::<U16>(bytes)?.get());
    str::from_utf8(bytes.split_off(..len)?).ok()
}

/// Appends bytes behind their 32-bit length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("what is stored is far smaller than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a string behind its 16-bit length.
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    let len =
        u16::try_from(text.len()).expect("names and settings are limited to 64 KiB where they are accepted");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_taken_and_no_more() {
        let mut out = Vec::new();
        put_str(&mut out, "naïve");
        put_bytes(&mut out, b"bytes");
        let mut rest = &out[..];
        assert_eq!(take_str(&mut rest), Some("naïve"));
        assert_eq!(take_bytes(&mut rest), Some(&b"bytes"[..]));
        assert_eq!((take::<u8>(&mut rest), rest.len()), (None, 0));
    }

    #[test]
    fn lengths_past_the_end_and_bad_text_are_noticed() {
        assert_eq!(take_bytes(&mut &[4, 0, 0, 0, 1, 2, 3][..]), None);
        assert_eq!(take_bytes(&mut &[0xff; 7][..]), None);
        assert_eq!(take_str(&mut &[1, 0][..]), None);
        assert_eq!(take_str(&mut &[1, 0, 0xff][..]), None);
    }
}
