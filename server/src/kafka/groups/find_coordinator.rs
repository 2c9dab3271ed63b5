//! `FindCoordinator`: which broker coordinates a group. There is only this one; but asking is what makes groups their home.

use millstream_engine::error::Refusal;
use millstream_engine::shard::request::Reply;

use crate::coordinator::topic;
use crate::kafka::codec::{Malformed, Reader, Writer};
use crate::kafka::{Context, Done, ErrorCode};
use crate::limits::GROUPS_PER_REQUEST_MAX;

/// The first version that asks for several at once (KIP-699).
const SEVERAL_FROM: i16 = 4;
/// What is coordinated: groups, transactions.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// A request for coordinators.
#[derive(Debug)]
pub struct FindCoordinator {
    keys: Vec<Box<str>>,
    kind: i8,
    error: ErrorCode,
    /// In words, if there are any.
    message: Option<&'static str>,
}

impl FindCoordinator {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<FindCoordinator, Malformed> {
        let mut keys = Vec::new();
        if version < SEVERAL_FROM {
            keys.push(reader.string()?.into());
        }
        let kind = if version >= 1 { reader.i8()? } else { GROUP };
        if version >= SEVERAL_FROM {
            for _ in 0..reader.count(1)? {
                if keys.len() >= GROUPS_PER_REQUEST_MAX {
                    return Err(Malformed("the request names too many groups"));
                }
                keys.push(reader.string()?.into());
            }
        }
        reader.tags()?;
        Ok(FindCoordinator { keys, kind, error: ErrorCode::None, message: None })
    }

    /// Makes the topic that groups are kept in, if there is none.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        if self.kind == TRANSACTION {
            // What `InitProducerId` would answer, too: every other code makes librdkafka ask again until its user's time
            // is up.
            self.error = ErrorCode::TransactionalIdAuthorizationFailed;
            self.message = Some("transactions are not served yet");
        } else if self.kind != GROUP {
            self.error = ErrorCode::InvalidRequest;
            self.message = Some("only groups have coordinators here");
        } else if topic::find(&context.engine.metadata()).is_none() {
            let partitions = context.config.groups.offsets_partitions;
            context.engine.create_topic(0, topic::NAME, Some(partitions), topic::settings());
            return None;
        }
        Some(self.answer(context))
    }

    /// Takes the answer to the creation.
    pub fn on_reply(&mut self, reply: &Reply, context: &Context<'_>) -> Done {
        self.error = match reply {
            Reply::TopicCreated(_) | Reply::Refused(Refusal::TopicExists(_)) => ErrorCode::None,
            Reply::Refused(refusal) => {
                tracing::warn!(%refusal, "the topic that groups are kept in could not be made");
                ErrorCode::CoordinatorNotAvailable
            }
            other => panic!("a creation was answered {other:?}"),
        };
        self.answer(context)
    }

    fn answer(&self, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let mut writer = context.response(64 + 64 * self.keys.len());
        if version >= 1 {
            writer.i32(0);
        }
        if version < SEVERAL_FROM {
            writer.error(self.error);
            if version >= 1 {
                writer.nullable_string(self.message);
            }
            self.write_node(&mut writer, context);
        } else {
            writer.count(self.keys.len());
            for key in &self.keys {
                writer.string(key);
                self.write_node(&mut writer, context);
                writer.error(self.error);
                writer.nullable_string(self.message);
                writer.tags();
            }
        }
        writer.tags();
        Done::answer(writer)
    }

    fn write_node(&self, writer: &mut Writer, context: &Context<'_>) {
        if self.error == ErrorCode::None {
            let (host, port) = context.config.advertised(context.local);
            writer.i32(context.engine.metadata().node_id as i32);
            writer.string(&host);
            writer.i32(i32::from(port));
        } else {
            writer.i32(-1);
            writer.string("");
            writer.i32(-1);
        }
    }
}
