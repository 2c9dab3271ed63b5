//! `ApiVersions`: what a client asks first. Its response header is the oldest one in every version, because a client
//! must be able to read it before it knows ours (KIP-511).

use super::api::{APIS, Ready};
use super::codec::{Malformed, Reader, Writer};
use super::{Context, Done, ErrorCode};

/// The first version in which the client says what it is, and in which the answer is of the flexible form.
const CLIENT_SOFTWARE_FROM: i16 = 3;

/// Reads a request.
pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Ready, Malformed> {
    if version >= CLIENT_SOFTWARE_FROM {
        let name = reader.string()?;
        let software_version = reader.string()?;
        reader.tags()?;
        if !is_valid_software(name) || !is_valid_software(software_version) {
            return Ok(Ready::InvalidClient);
        }
    }
    Ok(Ready::ApiVersions)
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_valid_software(name: &str) -> bool {
    let ends = [name.bytes().next(), name.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// The table.
pub fn answer(context: &Context<'_>) -> Done {
    write(context, context.header.version, ErrorCode::None, true)
}

/// The client's name or version is not well-formed.
pub fn answer_invalid_client(context: &Context<'_>) -> Done {
    write(context, context.header.version, ErrorCode::InvalidRequest, false)
}

/// The table in its oldest form, so that the client can choose a version that both know.
pub fn answer_too_new(context: &Context<'_>) -> Done {
    write(context, 0, ErrorCode::UnsupportedVersion, true)
}

fn write(context: &Context<'_>, version: i16, error: ErrorCode, table: bool) -> Done {
    let flexible = version >= CLIENT_SOFTWARE_FROM;
    let mut writer = Writer::response(context.header.correlation_id, false, flexible, 16 + 7 * APIS.len());
    writer.error(error);
    let apis = if table { APIS } else { &[] };
    writer.count(apis.len());
    for api in apis {
        writer.i16(api.key);
        writer.i16(*api.versions.start());
        writer.i16(*api.versions.end());
        writer.tags();
    }
    if version >= 1 {
        writer.i32(0);
    }
    writer.tags();
    Done::answer(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_name_of_letters_digits_dots_and_dashes() {
        for name in ["librdkafka", "apache-kafka-java", "a", "2.0.2", "v1-rc.1"] {
            assert!(is_valid_software(name), "{name}");
        }
        for name in ["", "-a", "a-", ".", "a b", "ä", "a_b"] {
            assert!(!is_valid_software(name), "{name}");
        }
    }
}
