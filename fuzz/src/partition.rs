//! Names and text files of a partition's directory.

use millstream_engine::format::partition::{
    DirName, base64, decode_leader_epochs, decode_metadata, deleted_dir_name, deleted_file_name, dir_name,
    encode_leader_epochs, encode_metadata, file_name, is_topic_name, parse_base64, parse_dir_name,
    parse_file_name,
};

/// A name that is read is written the same way; a text that is read is written to what reads the same.
pub fn run(bytes: &[u8]) {
    if let Some(id) = decode_metadata(bytes) {
        assert_eq!(decode_metadata(encode_metadata(id).as_bytes()), Some(id));
    }
    if let Some(epochs) = decode_leader_epochs(bytes) {
        assert_eq!(decode_leader_epochs(encode_leader_epochs(&epochs).as_bytes()), Some(epochs));
    }
    let Ok(name) = str::from_utf8(bytes) else { return };
    match parse_dir_name(name) {
        Some(DirName::Live { topic, index }) => assert_eq!(dir_name(&topic, index), name),
        Some(DirName::Deleted { topic, index, id }) => assert_eq!(deleted_dir_name(&topic, index, id), name),
        None => {}
    }
    if let Some(found) = parse_file_name(name) {
        let write = if found.deleted { deleted_file_name } else { file_name };
        assert_eq!(write(found.base_offset, found.file), name);
    }
    if let Some(id) = parse_base64(name) {
        assert_eq!(base64(id), name);
    }
    assert!(!is_topic_name(name) || !name.contains('/'));
}
