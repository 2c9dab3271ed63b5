//! Which topics a consumer reads. It is the clients' own business, told among them in the metadata that they join with;
//! the broker looks into it only to keep offsets that are still needed. Source: Kafka's schema
//! `ConsumerProtocolSubscription`.

use crate::kafka::codec::{Malformed, Reader};

/// The sort of groups whose metadata has this form.
pub const CONSUMER: &str = "consumer";

/// The topics that a member's metadata names, in any version of it.
pub fn topics(metadata: &[u8]) -> Result<Vec<&str>, Malformed> {
    let mut reader = Reader::new(metadata, false);
    let _version = reader.i16()?;
    let count = reader.count(2)?;
    (0..count).map(|_| reader.string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_are_read_and_the_rest_is_not_looked_at() {
        assert_eq!(topics(b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff"), Ok(vec!["a", "bc"]));
        assert!(topics(b"\0\x01\0\0\0\x02\0\x01a").is_err());
        assert!(topics(b"").is_err());
    }
}
