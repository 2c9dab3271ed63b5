//! A topic's settings as names and values: how they are stored, and how Kafka's admin requests speak of them.

use crate::config::TopicConfig;
use crate::limits::{BATCH_BYTES_MAX, SEGMENT_BYTES_MAX, SETTING_BYTES_MAX, SETTINGS_PER_TOPIC_MAX};
use crate::types::Durability;

/// One setting of [`TopicConfig`].
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name for it.
    pub name: &'static str,
    /// Its value, as text.
    pub get: fn(&TopicConfig) -> String,
    /// Sets it; `None` if the text is no such value or out of range, and then nothing has changed.
    pub set: fn(&mut TopicConfig, &str) -> Option<()>,
}

/// Every setting that the engine heeds. A host may store others beside them.
pub const SETTINGS: [Setting; 9] = [
    Setting {
        name: "segment.bytes",
        get: |config| config.segment_bytes.to_string(),
        set: |config, text| {
            config.segment_bytes = parse_within(text, 14, SEGMENT_BYTES_MAX as i64)? as u32;
            Some(())
        },
    },
    Setting {
        name: "segment.ms",
        get: |config| config.segment_ms.to_string(),
        set: |config, text| {
            config.segment_ms = parse_within(text, 1, i64::MAX)?;
            Some(())
        },
    },
    Setting {
        name: "retention.ms",
        get: |config| config.retention_ms.to_string(),
        set: |config, text| {
            config.retention_ms = parse_within(text, -1, i64::MAX)?;
            Some(())
        },
    },
    Setting {
        name: "retention.bytes",
        get: |config| config.retention_bytes.to_string(),
        set: |config, text| {
            config.retention_bytes = parse_within(text, -1, i64::MAX)?;
            Some(())
        },
    },
    Setting {
        name: "max.message.bytes",
        get: |config| config.max_message_bytes.to_string(),
        set: |config, text| {
            config.max_message_bytes = parse_within(text, 0, BATCH_BYTES_MAX as i64)? as u32;
            Some(())
        },
    },
    Setting {
        name: "index.interval.bytes",
        get: |config| config.index_interval_bytes.to_string(),
        set: |config, text| {
            config.index_interval_bytes = parse_within(text, 0, i64::from(i32::MAX))? as u32;
            Some(())
        },
    },
    Setting {
        name: "message.timestamp.type",
        get: |config| if config.log_append_time { "LogAppendTime" } else { "CreateTime" }.to_owned(),
        set: |config, text| {
            config.log_append_time = match text {
                "LogAppendTime" => true,
                "CreateTime" => false,
                _ => return None,
            };
            Some(())
        },
    },
    Setting {
        name: "cleanup.policy",
        get: |config| {
            match (config.compacts, config.deletes) {
                (true, true) => "compact,delete",
                (true, false) => "compact",
                (false, _) => "delete",
            }
            .to_owned()
        },
        set: |config, text| {
            let policies: Vec<&str> = text.split(',').map(str::trim).collect();
            if !policies.iter().all(|policy| matches!(*policy, "compact" | "delete")) {
                return None;
            }
            config.compacts = policies.contains(&"compact");
            config.deletes = policies.contains(&"delete");
            Some(())
        },
    },
    Setting {
        name: "millstream.durability.min",
        get: |config| {
            match config.durability_min {
                Durability::Memory => "memory",
                Durability::Written => "written",
                Durability::Durable => "durable",
            }
            .to_owned()
        },
        set: |config, text| {
            config.durability_min = match text {
                "memory" => Durability::Memory,
                "written" => Durability::Written,
                "durable" => Durability::Durable,
                _ => return None,
            };
            Some(())
        },
    },
];

/// Settings by name, in the table's order.
pub fn to_pairs(config: &TopicConfig) -> Vec<(String, String)> {
    SETTINGS.iter().map(|setting| (setting.name.to_owned(), (setting.get)(config))).collect()
}

/// Sets what the pairs say, in their order. Names that are not in the table are left to the caller.
///
/// # Errors
/// The name of the first setting whose value is out of its range.
pub fn apply_pairs(config: &mut TopicConfig, pairs: &[(String, String)]) -> Result<(), String> {
    for (name, value) in pairs {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
            (setting.set)(config, value).ok_or_else(|| name.clone())?;
        }
    }
    Ok(())
}

/// Sets what the pairs say over `defaults`, and checks that they can be stored.
///
/// # Errors
/// The name of the first setting whose value is out of its range, or which is too long or one too many.
pub fn configured(defaults: &TopicConfig, pairs: &[(String, String)]) -> Result<TopicConfig, String> {
    let too_long = |text: &str| text.len() > SETTING_BYTES_MAX;
    if let Some((name, _)) = pairs.iter().find(|(name, value)| too_long(name) || too_long(value)) {
        return Err(name.clone());
    }
    if let Some((name, _)) = pairs.get(SETTINGS_PER_TOPIC_MAX) {
        return Err(name.clone());
    }
    let mut config = defaults.clone();
    apply_pairs(&mut config, pairs)?;
    Ok(config)
}

fn parse_within(text: &str, min: i64, max: i64) -> Option<i64> {
    text.parse().ok().filter(|value| (min..=max).contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_survives_as_text() {
        let config = TopicConfig {
            segment_bytes: 1 << 20,
            segment_ms: 1,
            retention_ms: -1,
            retention_bytes: 7,
            max_message_bytes: 100,
            index_interval_bytes: 0,
            log_append_time: true,
            deletes: true,
            compacts: true,
            durability_min: Durability::Written,
        };
        let mut read = TopicConfig::default();
        apply_pairs(&mut read, &to_pairs(&config)).unwrap();
        assert_eq!(read, config);
    }

    #[test]
    fn unknown_names_are_passed_over_and_bad_values_are_named() {
        let mut config = TopicConfig::default();
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(apply_pairs(&mut config, &pair("a.later.version", "yes")), Ok(()));
        for (name, value) in [
            ("segment.bytes", "13"),
            ("segment.bytes", "2147483648"),
            ("segment.ms", "0"),
            ("retention.ms", "-2"),
            ("retention.bytes", "lots"),
            ("max.message.bytes", "-1"),
            ("max.message.bytes", "104857601"),
            ("index.interval.bytes", ""),
            ("message.timestamp.type", "logappendtime"),
            ("cleanup.policy", ""),
            ("cleanup.policy", "compact,squash"),
        ] {
            assert_eq!(apply_pairs(&mut config, &pair(name, value)), Err(name.to_owned()), "{value}");
        }
        assert_eq!(config, TopicConfig::default());
    }

    #[test]
    fn policies_are_read_in_any_order_and_written_in_one() {
        for (text, written) in
            [("delete", "delete"), ("compact", "compact"), ("delete, compact", "compact,delete")]
        {
            let pairs = [("cleanup.policy".to_owned(), text.to_owned())];
            let config = configured(&TopicConfig::default(), &pairs).unwrap();
            assert!(to_pairs(&config).contains(&("cleanup.policy".to_owned(), written.to_owned())));
        }
    }

    #[test]
    fn what_is_too_long_or_one_too_many_is_not_stored() {
        let pair = |name: &str, len| (name.to_owned(), "v".repeat(len));
        let configured = |pairs: &[_]| configured(&TopicConfig::default(), pairs).map(|_| ());
        assert_eq!(configured(&[pair("a", SETTING_BYTES_MAX)]), Ok(()));
        assert_eq!(configured(&[pair("a", SETTING_BYTES_MAX + 1)]), Err("a".to_owned()));
        let many: Vec<_> = (0..=SETTINGS_PER_TOPIC_MAX).map(|number| pair(&number.to_string(), 1)).collect();
        assert_eq!(configured(&many[1..]), Ok(()));
        assert_eq!(configured(&many), Err(SETTINGS_PER_TOPIC_MAX.to_string()));
    }
}
