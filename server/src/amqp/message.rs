//! What is kept with a message, behind which its body is: exchange and routing key, then its properties, each as it came.
//!
//! ```text
//! exchange     short string
//! routing key  short string
//! properties   flags u16, then what they announce; to the end
//! ```
//!
//! A delivery's method ends with the first two and its content header with the third, so both are copied as they are.

use super::codec::{Malformed, Properties, Reader, Writer};

/// The parts of what is kept with a message.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Where it was published.
    pub exchange: &'a [u8],
    /// By which key.
    pub routing_key: &'a [u8],
    /// Both, as they stand in a method.
    pub address: &'a [u8],
    /// Flags and properties.
    pub properties: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Takes it apart.
    pub fn read(header: &'a [u8]) -> Result<Stored<'a>, Malformed> {
        let mut reader = Reader::new(header);
        let exchange = reader.short_string()?;
        let routing_key = reader.short_string()?;
        let properties = reader.rest();
        let (address, _) = header.split_at(header.len() - properties.len());
        Ok(Stored { exchange, routing_key, address, properties })
    }

    /// Its properties, each by name.
    pub fn properties(&self) -> Result<Properties<'a>, Malformed> {
        Properties::read(self.properties)
    }
}

/// Appends what is kept with a message.
pub fn write(bytes: &mut Vec<u8>, exchange: &[u8], routing_key: &[u8], properties: &[u8]) {
    let mut writer = Writer::new(bytes);
    writer.short_string(exchange);
    writer.short_string(routing_key);
    writer.bytes(properties);
}
