//! A topic's settings as names and values: how they are stored, and how Kafka's admin requests speak of them.

use std::fmt;

use crate::config::TopicConfig;
use crate::limits::{BATCH_BYTES_MAX, SEGMENT_BYTES_MAX, SETTING_BYTES_MAX, SETTINGS_PER_TOPIC_MAX};
use crate::types::Durability;

/// What a setting's text may be.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A whole number within these bounds.
    Whole(i64, i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One or more of these words, with commas between them.
    SomeOf(&'static [&'static str]),
    /// Any words, with commas between them.
    Words,
}

impl Values {
    /// Whether the text is one of them.
    pub fn admit(self, text: &str) -> bool {
        match self {
            Values::Whole(min, max) => text.parse().is_ok_and(|value: i64| (min..=max).contains(&value)),
            Values::Ratio => text.parse().is_ok_and(|value: f64| (0.0..=1.0).contains(&value)),
            Values::OneOf(words) => words.contains(&text),
            Values::SomeOf(words) => text.split(',').all(|word| words.contains(&word.trim())),
            Values::Words => true,
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Values::Whole(min, i64::MAX) => write!(f, "a whole number of at least {min}"),
            Values::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Values::Ratio => f.write_str("a number from 0 to 1"),
            Values::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Values::SomeOf(words) => {
                write!(f, "one or more of {}, with commas between them", words.join(", "))
            }
            Values::Words => f.write_str("words with commas between them"),
        }
    }
}

/// One setting of [`TopicConfig`].
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name for it.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
    /// Its value, as text.
    pub get: fn(&TopicConfig) -> String,
    /// Sets it to one of its values.
    put: fn(&mut TopicConfig, &str) -> Option<()>,
}

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Sets it; `None` if the text is none of its values, and then nothing has changed.
    fn set(&self, config: &mut TopicConfig, text: &str) -> Option<()> {
        if self.values.admit(text) { (self.put)(config, text) } else { None }
    }
}

const INT_MAX: i64 = i32::MAX as i64;

/// Every setting that the engine heeds. A host may store others beside them.
pub static SETTINGS: [Setting; 11] = [
    Setting {
        name: "segment.bytes",
        values: Values::Whole(14, SEGMENT_BYTES_MAX as i64),
        get: |config| config.segment_bytes.to_string(),
        put: |config, text| text.parse().ok().map(|bytes| config.segment_bytes = bytes),
    },
    Setting {
        name: "segment.ms",
        values: Values::Whole(1, i64::MAX),
        get: |config| config.segment_ms.to_string(),
        put: |config, text| text.parse().ok().map(|ms| config.segment_ms = ms),
    },
    Setting {
        name: "retention.ms",
        values: Values::Whole(-1, i64::MAX),
        get: |config| config.retention_ms.to_string(),
        put: |config, text| text.parse().ok().map(|ms| config.retention_ms = ms),
    },
    Setting {
        name: "retention.bytes",
        values: Values::Whole(-1, i64::MAX),
        get: |config| config.retention_bytes.to_string(),
        put: |config, text| text.parse().ok().map(|bytes| config.retention_bytes = bytes),
    },
    Setting {
        name: "max.message.bytes",
        values: Values::Whole(0, BATCH_BYTES_MAX as i64),
        get: |config| config.max_message_bytes.to_string(),
        put: |config, text| text.parse().ok().map(|bytes| config.max_message_bytes = bytes),
    },
    Setting {
        name: "index.interval.bytes",
        values: Values::Whole(0, INT_MAX),
        get: |config| config.index_interval_bytes.to_string(),
        put: |config, text| text.parse().ok().map(|bytes| config.index_interval_bytes = bytes),
    },
    Setting {
        name: "message.timestamp.type",
        values: Values::OneOf(&["CreateTime", "LogAppendTime"]),
        get: |config| if config.log_append_time { "LogAppendTime" } else { "CreateTime" }.to_owned(),
        put: |config, text| {
            config.log_append_time = text == "LogAppendTime";
            Some(())
        },
    },
    Setting {
        name: "message.timestamp.before.max.ms",
        values: Values::Whole(0, i64::MAX),
        get: |config| config.timestamp_before_max_ms.to_string(),
        put: |config, text| text.parse().ok().map(|ms| config.timestamp_before_max_ms = ms),
    },
    Setting {
        name: "message.timestamp.after.max.ms",
        values: Values::Whole(0, i64::MAX),
        get: |config| config.timestamp_after_max_ms.to_string(),
        put: |config, text| text.parse().ok().map(|ms| config.timestamp_after_max_ms = ms),
    },
    Setting {
        name: "cleanup.policy",
        values: Values::SomeOf(&["compact", "delete"]),
        get: |config| {
            match (config.compacts, config.deletes) {
                (true, true) => "compact,delete",
                (true, false) => "compact",
                (false, _) => "delete",
            }
            .to_owned()
        },
        put: |config, text| {
            config.compacts = text.contains("compact");
            config.deletes = text.contains("delete");
            Some(())
        },
    },
    Setting {
        name: "millstream.durability.min",
        values: Values::OneOf(&["memory", "written", "durable"]),
        get: |config| {
            match config.durability_min {
                Durability::Memory => "memory",
                Durability::Written => "written",
                Durability::Durable => "durable",
            }
            .to_owned()
        },
        put: |config, text| {
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
        if let Some(setting) = Setting::find(name) {
            setting.set(config, value).ok_or_else(|| name.clone())?;
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
            timestamp_before_max_ms: 3,
            timestamp_after_max_ms: 4,
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
