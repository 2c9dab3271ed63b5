//! What stands before every request. Source: Kafka's documentation, "Headers"; KIP-511 for `ApiVersions`.

use super::codec::{Malformed, Reader};

/// The fields that every request starts with, in every version of every API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: i16,
    /// Which version of it.
    pub version: i16,
    /// Returned with the response.
    pub correlation_id: i32,
}

impl RequestHeader {
    /// Reads the fixed part. It can be read even if the API is unknown.
    pub fn read(reader: &mut Reader<'_>) -> Result<RequestHeader, Malformed> {
        Ok(RequestHeader { api_key: reader.i16()?, version: reader.i16()?, correlation_id: reader.i32()? })
    }

    /// Reads what follows the fixed part: the client's id, a plain string even in flexible requests, and tagged fields
    /// in those. Leaves the reader at the body, in the body's form.
    pub fn read_rest(reader: &mut Reader<'_>, flexible: bool) -> Result<(), Malformed> {
        reader.set_flexible(false);
        reader.nullable_string()?;
        reader.set_flexible(flexible);
        reader.tags()
    }
}
