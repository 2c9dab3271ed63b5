//! `DescribeConfigs`: every setting of a topic or of the node, what it is, and who says so.

use std::collections::BTreeSet;

use super::super::codec::{Malformed, Reader, Writer};
use super::super::{Context, Done, ErrorCode, Failure};
use super::settings::{Resource, Row, find, rows};
use super::topic_settings::Source;
use super::{Admin, Room, write_outcome};
use crate::limits::TOPICS_PER_REQUEST_MAX;

/// The first version that may want documentation, and tells what kind of value a setting has.
const DOCUMENTED_FROM: i16 = 3;

/// A request for settings.
#[derive(Debug)]
pub struct DescribeConfigs {
    resources: Vec<Wanted>,
    wants_synonyms: bool,
    wants_documentation: bool,
}

#[derive(Debug)]
struct Wanted {
    kind: i8,
    name: String,
    /// `None` means every setting.
    keys: Option<Vec<String>>,
}

impl DescribeConfigs {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<DescribeConfigs, Malformed> {
        let count = reader.count(3)?;
        if count > TOPICS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many resources"));
        }
        let mut resources = Vec::with_capacity(count);
        let mut room = Room::new();
        for _ in 0..count {
            let kind = reader.i8()?;
            let name = reader.string()?.to_owned();
            let keys = match reader.nullable_count(1)? {
                None => None,
                Some(keys) => {
                    let keys = room.take(keys)?;
                    Some((0..keys).map(|_| Ok(reader.string()?.to_owned())).collect::<Result<_, _>>()?)
                }
            };
            reader.tags()?;
            resources.push(Wanted { kind, name, keys });
        }
        let wants_synonyms = reader.bool()?;
        let wants_documentation = version >= DOCUMENTED_FROM && reader.bool()?;
        reader.tags()?;
        Ok(DescribeConfigs { resources, wants_synonyms, wants_documentation })
    }

    fn write_row(&self, writer: &mut Writer, version: i16, row: &Row) {
        let value = row.values.first();
        writer.string(row.name);
        writer.nullable_string(value.map(|value| &*value.text));
        writer.bool(row.read_only);
        writer.i8(value.map_or(Source::Default, |value| value.source) as i8);
        // No setting is a secret.
        writer.bool(false);
        let synonyms = if self.wants_synonyms { &row.values[..] } else { &[] };
        writer.count(synonyms.len());
        for synonym in synonyms {
            writer.string(synonym.name);
            writer.nullable_string(Some(&synonym.text));
            writer.i8(synonym.source as i8);
            writer.tags();
        }
        if version >= DOCUMENTED_FROM {
            writer.i8(row.kind as i8);
            writer.nullable_string(self.wants_documentation.then_some(row.about));
        }
        writer.tags();
    }
}

impl Admin for DescribeConfigs {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let version = context.header.version;
        let mut writer = context.response(4096 * self.resources.len().min(64));
        writer.i32(0);
        writer.count(self.resources.len());
        let mut told = BTreeSet::new();
        for wanted in &self.resources {
            let found = if told.insert((wanted.kind, &wanted.name)) {
                find(wanted.kind, &wanted.name, &metadata).map(|resource| match resource {
                    // What is set for the whole cluster, which is nothing.
                    Resource::EveryNode => Vec::new(),
                    resource => rows(&resource, context.config, &metadata),
                })
            } else {
                let message = "the request names the resource more than once";
                Err(Failure::new(ErrorCode::InvalidRequest, message))
            };
            write_outcome(&mut writer, &found);
            writer.i8(wanted.kind);
            writer.string(&wanted.name);
            let mut rows = found.unwrap_or_default();
            if let Some(keys) = &wanted.keys {
                rows.retain(|row| keys.iter().any(|key| key == row.name));
            }
            writer.count(rows.len());
            for row in &rows {
                self.write_row(&mut writer, version, row);
            }
            writer.tags();
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}

/// A resource of a sort that has no settings here.
pub(super) fn unsupported(kind: i8) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, format!("resources of type {kind} have no settings here"))
}
