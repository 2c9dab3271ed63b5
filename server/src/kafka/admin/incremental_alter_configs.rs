//! `IncrementalAlterConfigs` (KIP-339): single settings of a resource; what is not named stays. Words are added to and
//! taken from a list as this shard knows it: of two such requests for one list at the same time the later one counts.

use super::super::codec::{Malformed, Reader};
use super::Room;
use super::altering::{Altering, Edit};
use crate::limits::TOPICS_PER_REQUEST_MAX;

/// Reads a request.
pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<Altering, Malformed> {
    let count = reader.count(4)?;
    if count > TOPICS_PER_REQUEST_MAX {
        return Err(Malformed("the request names too many resources"));
    }
    let mut altering = Altering::new(false);
    let mut room = Room::new();
    for _ in 0..count {
        let kind = reader.i8()?;
        let name = reader.string()?;
        let mut edits = Vec::new();
        for _ in 0..room.take(reader.count(3)?)? {
            let name = reader.string()?.to_owned();
            let operation = reader.i8()?;
            let value = reader.nullable_string()?.map(str::to_owned);
            reader.tags()?;
            let edit = match operation {
                0 => Edit::Set(value),
                1 => Edit::Delete,
                2 => Edit::Append(value),
                3 => Edit::Subtract(value),
                unknown => Edit::Unknown(unknown),
            };
            edits.push((name, edit));
        }
        reader.tags()?;
        altering.push(kind, name, edits);
    }
    let validate_only = reader.bool()?;
    reader.tags()?;
    Ok(altering.validate_only(validate_only))
}
