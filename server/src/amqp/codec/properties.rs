//! A content's header: how long its body is, and its properties, which are passed on as they came.

use super::method::BASIC_CLASS;
use super::reader::{Malformed, Reader};
use super::table::Table;

/// A content header frame's payload.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Bytes of the body.
    pub body_bytes: u64,
    /// The flags of the properties and the properties, as they came.
    pub raw: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads a payload. The properties are not looked at.
    pub fn read(payload: &'a [u8]) -> Result<Header<'a>, Malformed> {
        let mut reader = Reader::new(payload);
        let class = reader.u16()?;
        let _weight = reader.u16()?;
        let body_bytes = reader.u64()?;
        if class != BASIC_CLASS {
            return Err(Malformed);
        }
        Ok(Header { body_bytes, raw: reader.rest() })
    }
}

/// The properties of a message, each as it came, if it is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties<'a> {
    /// The MIME type of the body.
    pub content_type: Option<&'a [u8]>,
    /// How the body is encoded.
    pub content_encoding: Option<&'a [u8]>,
    /// Whatever the sender says.
    pub headers: Option<Table<'a>>,
    /// 2 for a message that is to be there after a restart.
    pub delivery_mode: Option<u8>,
    /// Higher goes first.
    pub priority: Option<u8>,
    /// Which request this answers.
    pub correlation_id: Option<&'a [u8]>,
    /// Where an answer is to go.
    pub reply_to: Option<&'a [u8]>,
    /// Milliseconds to live, as a decimal number.
    pub expiration: Option<&'a [u8]>,
    /// The sender's name for the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// What kind of message this is.
    pub kind: Option<&'a [u8]>,
    /// Who sent it; checked against who is logged in.
    pub user_id: Option<&'a [u8]>,
    /// What sent it.
    pub app_id: Option<&'a [u8]>,
    /// Used by nobody.
    pub cluster_id: Option<&'a [u8]>,
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Bit 1 is unused, and bit 0 says that more flags follow, of which there are none.
const UNKNOWN: u16 = 0b11;

impl<'a> Properties<'a> {
    /// Reads flags and properties.
    pub fn read(raw: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        let mut reader = Reader::new(raw);
        let flags = reader.u16()?;
        if flags & UNKNOWN != 0 {
            return Err(Malformed);
        }
        let mut properties = Properties::default();
        if flags == 0 {
            return Ok(properties);
        }
        let has = |flag| flags & flag != 0;
        if has(CONTENT_TYPE) {
            properties.content_type = Some(reader.short_string()?);
        }
        if has(CONTENT_ENCODING) {
            properties.content_encoding = Some(reader.short_string()?);
        }
        if has(HEADERS) {
            properties.headers = Some(reader.table()?);
        }
        if has(DELIVERY_MODE) {
            properties.delivery_mode = Some(reader.u8()?);
        }
        if has(PRIORITY) {
            properties.priority = Some(reader.u8()?);
        }
        if has(CORRELATION_ID) {
            properties.correlation_id = Some(reader.short_string()?);
        }
        if has(REPLY_TO) {
            properties.reply_to = Some(reader.short_string()?);
        }
        if has(EXPIRATION) {
            properties.expiration = Some(reader.short_string()?);
        }
        if has(MESSAGE_ID) {
            properties.message_id = Some(reader.short_string()?);
        }
        if has(TIMESTAMP) {
            properties.timestamp = Some(reader.u64()?);
        }
        if has(KIND) {
            properties.kind = Some(reader.short_string()?);
        }
        if has(USER_ID) {
            properties.user_id = Some(reader.short_string()?);
        }
        if has(APP_ID) {
            properties.app_id = Some(reader.short_string()?);
        }
        if has(CLUSTER_ID) {
            properties.cluster_id = Some(reader.short_string()?);
        }
        Ok(properties)
    }

    /// Whether the message is to be there after a restart.
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(2)
    }

    /// Appends flags and properties.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let mut flags = 0;
        let start = bytes.len();
        let mut writer = super::writer::Writer::new(bytes);
        writer.u16(0);
        let short = |writer: &mut super::writer::Writer<'_>, flag, value: Option<&[u8]>| {
            value.map_or(0, |value| {
                writer.short_string(value);
                flag
            })
        };
        flags |= short(&mut writer, CONTENT_TYPE, self.content_type);
        flags |= short(&mut writer, CONTENT_ENCODING, self.content_encoding);
        if let Some(headers) = self.headers {
            writer.table(headers);
            flags |= HEADERS;
        }
        if let Some(mode) = self.delivery_mode {
            writer.u8(mode);
            flags |= DELIVERY_MODE;
        }
        if let Some(priority) = self.priority {
            writer.u8(priority);
            flags |= PRIORITY;
        }
        flags |= short(&mut writer, CORRELATION_ID, self.correlation_id);
        flags |= short(&mut writer, REPLY_TO, self.reply_to);
        flags |= short(&mut writer, EXPIRATION, self.expiration);
        flags |= short(&mut writer, MESSAGE_ID, self.message_id);
        if let Some(timestamp) = self.timestamp {
            writer.u64(timestamp);
            flags |= TIMESTAMP;
        }
        flags |= short(&mut writer, KIND, self.kind);
        flags |= short(&mut writer, USER_ID, self.user_id);
        flags |= short(&mut writer, APP_ID, self.app_id);
        flags |= short(&mut writer, CLUSTER_ID, self.cluster_id);
        let place = bytes.get_mut(start..start + 2).expect("it was written above");
        place.copy_from_slice(&flags.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::{TableWriter, Value};

    #[test]
    fn properties_come_back_as_they_were_written() {
        let headers = TableWriter::default().with("k", Value::Void);
        let properties = Properties {
            headers: Some(headers.table()),
            delivery_mode: Some(2),
            reply_to: Some(b"q"),
            timestamp: Some(7),
            cluster_id: Some(b"c"),
            ..Properties::default()
        };
        let mut raw = Vec::new();
        properties.write(&mut raw);
        let read = Properties::read(&raw).unwrap();
        assert_eq!(format!("{read:?}"), format!("{properties:?}"));
        assert!(read.is_persistent());
    }

    #[test]
    fn flags_that_nobody_knows_are_malformed() {
        assert_eq!(Properties::read(&[0, 1]).unwrap_err(), Malformed);
        assert_eq!(Properties::read(&[0x80, 0, 5]).unwrap_err(), Malformed);
    }
}
