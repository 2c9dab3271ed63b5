//! What `AlterConfigs` and `IncrementalAlterConfigs` have in common: each resource is changed whole or not at all.

use std::collections::BTreeMap;

use millstream_engine::error::Refusal;
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::{Reply, Request};

use super::super::{Context, Done, ErrorCode, Failure};
use super::settings::{Resource, find};
use super::topic_settings::{TopicSetting, check, values_of};
use super::{Admin, unanswered, write_outcome};
use crate::config::ServerConfig;
use millstream_engine::format::settings::Values;

/// What is to become of a setting.
#[derive(Debug)]
pub enum Edit {
    /// It is this.
    Set(Option<String>),
    /// It is what it would be had nobody set it.
    Delete,
    /// Its list has these words, too.
    Append(Option<String>),
    /// Its list has these words no more.
    Subtract(Option<String>),
    /// Of a kind that nobody knows.
    Unknown(i8),
}

/// A request to change settings.
#[derive(Debug)]
pub struct Altering {
    resources: Vec<Altered>,
    /// Whether settings that are not named are unset.
    replace: bool,
    validate_only: bool,
    /// Changes that are not answered.
    waiting: usize,
}

#[derive(Debug)]
struct Altered {
    kind: i8,
    name: String,
    edits: Vec<(String, Edit)>,
    outcome: Result<(), Failure>,
}

impl Altering {
    /// A request that changes nothing yet.
    pub fn new(replace: bool) -> Altering {
        Altering { resources: Vec::new(), replace, validate_only: false, waiting: 0 }
    }

    /// Adds a resource.
    pub fn push(&mut self, kind: i8, name: &str, edits: Vec<(String, Edit)>) {
        self.resources.push(Altered { kind, name: name.to_owned(), edits, outcome: unanswered() });
    }

    /// The request, read whole.
    #[must_use]
    pub fn validate_only(mut self, validate_only: bool) -> Altering {
        self.validate_only = validate_only;
        self
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let mut writer = context.response(64 * self.resources.len());
        writer.i32(0);
        writer.count(self.resources.len());
        for resource in &self.resources {
            write_outcome(&mut writer, &resource.outcome);
            writer.i8(resource.kind);
            writer.string(&resource.name);
            writer.tags();
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl Altered {
    /// What the engine is to be asked.
    fn check(&self, replace: bool, context: &Context<'_>, metadata: &Metadata) -> Result<Request, Failure> {
        let topic = match find(self.kind, &self.name, metadata)? {
            Resource::Topic(topic) => topic,
            Resource::Node | Resource::EveryNode => {
                let message =
                    "a node's settings stand in its configuration file, which is read when it starts";
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
        };
        let mut changes: Vec<(String, Option<String>)> = Vec::with_capacity(self.edits.len());
        for (name, edit) in &self.edits {
            if changes.iter().any(|(changed, _)| changed == name) {
                let message = format!("the request names {name} more than once");
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
            let value = edit.value(name, &topic, context.config)?;
            match &value {
                Some(value) => check(name, value)?,
                // What a later version has set may be unset.
                None if topic.setting(name).is_some() || TopicSetting::find(name).is_some() => {}
                None => check(name, "")?,
            }
            changes.push((name.clone(), value));
        }
        Ok(Request::ConfigureTopic { topic: topic.id, changes, replace })
    }
}

impl Edit {
    /// What the setting is afterwards; `None` if it is unset.
    fn value(&self, name: &str, topic: &Topic, config: &ServerConfig) -> Result<Option<String>, Failure> {
        let (words, appends) = match self {
            Edit::Delete => return Ok(None),
            Edit::Set(Some(value)) => return Ok(Some(value.clone())),
            Edit::Append(Some(words)) => (words, true),
            Edit::Subtract(Some(words)) => (words, false),
            Edit::Set(None) | Edit::Append(None) | Edit::Subtract(None) => {
                let message = format!("Null value not supported for topic configs: {name}");
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
            Edit::Unknown(operation) => {
                let message = format!("Unknown operation type {operation}");
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
        };
        let Some(setting) = TopicSetting::find(name) else {
            check(name, "")?;
            return Ok(None);
        };
        if !matches!(setting.values(), Values::SomeOf(_) | Values::Words) {
            let message = format!("{name} is no list: it can be set, not added to or taken from");
            return Err(Failure::new(ErrorCode::InvalidConfig, message));
        }
        let now = values_of(setting, &topic.settings, config);
        let now = now.first().map(|value| &*value.text).unwrap_or_default();
        let split = |text: &'_ str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let mut list = split(now);
        for word in split(words) {
            list.retain(|held| appends || *held != word);
            if appends && !list.contains(&word) {
                list.push(word);
            }
        }
        Ok(Some(list.join(",")))
    }
}

impl Admin for Altering {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut named: BTreeMap<(i8, String), usize> = BTreeMap::new();
        for resource in &self.resources {
            *named.entry((resource.kind, resource.name.clone())).or_default() += 1;
        }
        for (place, resource) in self.resources.iter_mut().enumerate() {
            let times = named.get(&(resource.kind, resource.name.clone()));
            let request = if times.is_some_and(|times| *times > 1) {
                let message = "the request names the resource more than once";
                Err(Failure::new(ErrorCode::InvalidRequest, message))
            } else {
                resource.check(self.replace, context, &metadata)
            };
            match request {
                Ok(_) if self.validate_only => resource.outcome = Ok(()),
                Ok(request) => {
                    context.engine.change_metadata(place as u32, request);
                    self.waiting += 1;
                }
                Err(failure) => resource.outcome = Err(failure),
            }
        }
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let resource = self.resources.get_mut(place as usize).expect("its own place was asked for");
        resource.outcome = match reply {
            Reply::Done => Ok(()),
            Reply::Refused(Refusal::UnknownTopic(_)) => {
                Err(Failure::new(ErrorCode::UnknownTopicOrPartition, "there is no such topic any more"))
            }
            Reply::Refused(refusal) => Err(refusal.into()),
            other => panic!("a change of settings was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
