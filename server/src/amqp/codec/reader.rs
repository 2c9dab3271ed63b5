//! Reading AMQP's primitive types, each read checked against what is left.

use std::fmt;

use super::table::Table;
use crate::limits::AMQP_TABLE_DEPTH_MAX;

/// What was to be read is not there, or is nothing that AMQP knows: a syntax error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed")
    }
}

impl std::error::Error for Malformed {}

/// Bytes, and how far they have been read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The octet that flags are taken from, and how many of it have been.
    flags: u8,
    flags_taken: u8,
}

impl<'a> Reader<'a> {
    /// Reads these bytes from their start.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, flags: 0, flags_taken: 8 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        self.flags_taken = 8;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N).map(|bytes| *bytes.first_chunk().expect("as many were taken"))
    }

    /// An octet.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// A short integer.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A long integer.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A long long integer.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A flag. Up to eight in a row share an octet.
    pub fn bit(&mut self) -> Result<bool, Malformed> {
        if self.flags_taken == 8 {
            self.flags = self.u8()?;
            self.flags_taken = 0;
        }
        let bit = self.flags >> self.flags_taken & 1 == 1;
        self.flags_taken += 1;
        Ok(bit)
    }

    /// A string of up to 255 bytes.
    pub fn short_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// A string with a 32-bit length.
    pub fn long_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    /// A field table, all of it checked.
    pub fn table(&mut self) -> Result<Table<'a>, Malformed> {
        let bytes = self.long_string()?;
        Table::checked(bytes, AMQP_TABLE_DEPTH_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_share_octets_until_something_else_is_read() {
        let mut reader = Reader::new(&[0b101, 7, 0b1]);
        assert_eq!((reader.bit(), reader.bit(), reader.bit()), (Ok(true), Ok(false), Ok(true)));
        assert_eq!(reader.u8(), Ok(7));
        assert_eq!(reader.bit(), Ok(true));
        assert!(reader.is_empty());
        assert_eq!(reader.bit(), Ok(false), "the octet has seven more");
    }

    #[test]
    fn what_is_not_there_is_malformed() {
        assert_eq!(Reader::new(&[3, 1, 2]).short_string(), Err(Malformed));
        assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 1]).long_string(), Err(Malformed));
        assert_eq!(Reader::new(&[1]).u16(), Err(Malformed));
        assert_eq!(Reader::new(&[]).bit(), Err(Malformed));
    }
}
