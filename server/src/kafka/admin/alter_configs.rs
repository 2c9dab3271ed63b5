//! `AlterConfigs`: all settings of a resource at once; what is not named is unset.

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
    let mut altering = Altering::new(true);
    let mut room = Room::new();
    for _ in 0..count {
        let kind = reader.i8()?;
        let name = reader.string()?;
        let mut edits = Vec::new();
        for _ in 0..room.take(reader.count(2)?)? {
            let name = reader.string()?.to_owned();
            edits.push((name, Edit::Set(reader.nullable_string()?.map(str::to_owned))));
            reader.tags()?;
        }
        reader.tags()?;
        altering.push(kind, name, edits);
    }
    let validate_only = reader.bool()?;
    reader.tags()?;
    Ok(altering.validate_only(validate_only))
}
