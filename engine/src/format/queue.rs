//! What is stored of a queue as such: its settings, in the metadata log.
//!
//! The number of settings that are set (2 bytes), then each: which (2 bytes), value (8 bytes). Little-endian:
//!
//! | which | setting | value |
//! |---|---|---|
//! | 1 | ready messages at most | their number |
//! | 2 | bytes of ready messages at most | their number |
//! | 3 | overflow, if not drop-head | 1 reject, 2 reject and dead-letter |
//! | 4 | messages' time to live | ms |
//! | 5 | the queue's expiry | ms |
//! | 6 | highest priority | 0 to 255 |
//! | 7 | single active consumer | 1 |
//! | 8 | delivery limit | deliveries |
//! | 9 | dead letters | 1 |
//! | 10 | consumer timeout | ms |
//!
//! A new setting comes with an incompatible feature in the manifest.

use zerocopy::byteorder::little_endian::{U16, U64};

use super::take::take;
use crate::config::{Overflow, QueueSettings};

/// Appends a queue's settings.
pub fn encode_settings(out: &mut Vec<u8>, settings: &QueueSettings) {
    let overflow = match settings.overflow {
        Overflow::DropHead => None,
        Overflow::RejectPublish => Some(1),
        Overflow::RejectPublishDeadLetter => Some(2),
    };
    let set: Vec<(u16, u64)> = [
        (1, settings.max_messages),
        (2, settings.max_bytes),
        (3, overflow),
        (4, settings.message_ttl_ms),
        (5, settings.expires_ms),
        (6, settings.max_priority.map(u64::from)),
        (7, settings.single_active_consumer.then_some(1)),
        (8, settings.delivery_limit.map(u64::from)),
        (9, settings.dead_letter.then_some(1)),
        (10, settings.consumer_timeout_ms),
    ]
    .into_iter()
    .filter_map(|(which, value)| Some((which, value?)))
    .collect();
    out.extend_from_slice(&(set.len() as u16).to_le_bytes());
    for (which, value) in set {
        out.extend_from_slice(&which.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Takes a queue's settings off the front of `bytes`.
pub fn decode_settings(bytes: &mut &[u8]) -> Option<QueueSettings> {
    let mut settings = QueueSettings::default();
    let mut last = 0;
    for _ in 0..take::<U16>(bytes)?.get() {
        let (which, value) = (take::<U16>(bytes)?.get(), take::<U64>(bytes)?.get());
        if std::mem::replace(&mut last, which) >= which {
            return None;
        }
        match (which, value) {
            (1, value) => settings.max_messages = Some(value),
            (2, value) => settings.max_bytes = Some(value),
            (3, 1) => settings.overflow = Overflow::RejectPublish,
            (3, 2) => settings.overflow = Overflow::RejectPublishDeadLetter,
            (4, value) => settings.message_ttl_ms = Some(value),
            (5, value) => settings.expires_ms = Some(value),
            (6, value) => settings.max_priority = Some(u8::try_from(value).ok()?),
            (7, 1) => settings.single_active_consumer = true,
            (8, value) => settings.delivery_limit = Some(u32::try_from(value).ok()?),
            (9, 1) => settings.dead_letter = true,
            (10, value) => settings.consumer_timeout_ms = Some(value),
            _ => return None,
        }
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_give_back_what_was_put_in() {
        let all = QueueSettings {
            max_messages: Some(0),
            max_bytes: Some(u64::MAX),
            overflow: Overflow::RejectPublishDeadLetter,
            message_ttl_ms: Some(1),
            expires_ms: Some(2),
            max_priority: Some(255),
            single_active_consumer: true,
            delivery_limit: Some(20),
            dead_letter: true,
            consumer_timeout_ms: Some(3),
        };
        let reject = QueueSettings { overflow: Overflow::RejectPublish, ..QueueSettings::default() };
        for settings in [QueueSettings::default(), reject, all] {
            let mut bytes = Vec::new();
            encode_settings(&mut bytes, &settings);
            bytes.push(7);
            let mut rest = &bytes[..];
            assert_eq!((decode_settings(&mut rest), rest), (Some(settings), &[7][..]));
            for len in 0..bytes.len() - 1 {
                assert_eq!(decode_settings(&mut &bytes[..len]), None);
            }
        }
    }

    #[test]
    fn what_is_out_of_range_unknown_or_told_twice_is_no_setting() {
        for set in [
            &[(3_u16, 3_u64)][..],
            &[(6, 256)],
            &[(7, 0)],
            &[(8, 1 << 32)],
            &[(0, 1)],
            &[(11, 1)],
            &[(1, 1), (1, 1)],
        ] {
            let mut bytes = (set.len() as u16).to_le_bytes().to_vec();
            for (which, value) in set {
                bytes.extend_from_slice(&which.to_le_bytes());
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            assert_eq!(decode_settings(&mut &bytes[..]), None, "{set:?}");
        }
    }
}
