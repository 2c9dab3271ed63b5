//! Writing AMQP's primitive types and frames.

use super::method::Method;
use super::table::Table;
use super::{FRAME_END, FRAME_HEARTBEAT, FRAME_METHOD};

/// Appends to a buffer. Callers keep strings within what their length fields can say.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    flags_written: u8,
}

impl<'a> Writer<'a> {
    /// Appends to these bytes.
    pub fn new(bytes: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { bytes, flags_written: 0 }
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.flags_written = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// An octet.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// A short integer.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// A long integer.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A long long integer.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A flag; up to eight in a row share an octet.
    pub fn bit(&mut self, value: bool) {
        let place = self.flags_written % 8;
        match self.bytes.last_mut() {
            Some(octet) if place != 0 => *octet |= u8::from(value) << place,
            _ => self.bytes.push(u8::from(value)),
        }
        self.flags_written = place + 1;
    }

    /// A string of up to 255 bytes.
    pub fn short_string(&mut self, value: &[u8]) {
        self.u8(u8::try_from(value.len()).expect("a short string has up to 255 bytes"));
        self.bytes(value);
    }

    /// A string with a 32-bit length.
    pub fn long_string(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("a long string has less than 4 GiB"));
        self.bytes(value);
    }

    /// A field table.
    pub fn table(&mut self, value: Table<'_>) {
        self.long_string(value.raw());
    }

    /// A frame around what `payload` writes.
    pub fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Writer<'_>)) {
        self.u8(kind);
        self.u16(channel);
        let start = self.bytes.len();
        self.u32(0);
        payload(self);
        let len = (self.bytes.len() - start - 4) as u32;
        let place = self.bytes.get_mut(start..start + 4).expect("it was written above");
        place.copy_from_slice(&len.to_be_bytes());
        self.u8(FRAME_END);
    }

    /// A frame with a method.
    pub fn method(&mut self, channel: u16, method: &Method<'_>) {
        self.frame(FRAME_METHOD, channel, |writer| method.write(writer));
    }

    /// A heartbeat.
    pub fn heartbeat(&mut self) {
        self.frame(FRAME_HEARTBEAT, 0, |_| {});
    }
}
