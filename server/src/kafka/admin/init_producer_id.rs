//! `InitProducerId`: an id for an idempotent producer. Transactions are not served yet; a producer that wants them is told
//! so in the one code that makes the common clients give up at once instead of trying again.

use millstream_engine::shard::request::{Reply, Request};

use super::super::codec::{Malformed, Reader};
use super::super::{Context, Done, ErrorCode, code};
use super::Admin;

/// What a missing id or epoch is on the wire.
const NONE: i64 = -1;

/// A request for an id.
#[derive(Debug)]
pub struct InitProducerId {
    transactional: bool,
}

impl InitProducerId {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<InitProducerId, Malformed> {
        let transactional = reader.nullable_string()?.is_some();
        let _transaction_timeout_ms = reader.i32()?;
        if version >= 3 {
            // Who has an id wants it back with a higher epoch; without transactions a new id does as well.
            let _producer_id = reader.i64()?;
            let _producer_epoch = reader.i16()?;
        }
        reader.tags()?;
        Ok(InitProducerId { transactional })
    }
}

fn answer(context: &Context<'_>, id: Result<u64, ErrorCode>) -> Done {
    let mut writer = context.response(32);
    writer.i32(0);
    writer.error(id.err().unwrap_or(ErrorCode::None));
    writer.i64(id.map_or(NONE, u64::cast_signed));
    writer.i16(if id.is_ok() { 0 } else { NONE as i16 });
    writer.tags();
    Done::answer(writer)
}

impl Admin for InitProducerId {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        if self.transactional {
            return Some(answer(context, Err(ErrorCode::TransactionalIdAuthorizationFailed)));
        }
        context.engine.change_metadata(0, Request::NewProducerId);
        None
    }

    fn on_reply(&mut self, _: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let id = match reply {
            Reply::ProducerId(id) => Ok(id),
            Reply::Refused(refusal) => Err(code(&refusal)),
            other => panic!("a producer's id was answered {other:?}"),
        };
        Some(answer(context, id))
    }
}
