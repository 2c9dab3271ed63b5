//! `DescribeCluster`: the one node (KIP-700).

use super::super::codec::{Malformed, Reader};
use super::super::metadata::{ALL_CLUSTER_OPERATIONS, NOT_ASKED};
use super::super::{Context, Done, ErrorCode, Failure};
use super::{Admin, write_outcome};

/// The first version that says what sort of endpoint is wanted (KIP-919).
const ENDPOINT_FROM: i16 = 1;
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// A request for the nodes.
#[derive(Debug)]
pub struct DescribeCluster {
    wants_operations: bool,
    endpoint: i8,
}

impl DescribeCluster {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<DescribeCluster, Malformed> {
        let wants_operations = reader.bool()?;
        let endpoint = if version >= ENDPOINT_FROM { reader.i8()? } else { BROKERS };
        reader.tags()?;
        Ok(DescribeCluster { wants_operations, endpoint })
    }
}

impl Admin for DescribeCluster {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let outcome = match self.endpoint {
            BROKERS => Ok(()),
            CONTROLLERS => {
                Err(Failure::new(ErrorCode::MismatchedEndpointType, "this is a broker's endpoint"))
            }
            _ => Err(Failure::new(ErrorCode::UnsupportedEndpointType, "there is no such endpoint")),
        };
        let mut writer = context.response(128);
        writer.i32(0);
        write_outcome(&mut writer, &outcome);
        if context.header.version >= ENDPOINT_FROM {
            writer.i8(BROKERS);
        }
        let node_id = metadata.node_id as i32;
        writer.string(&metadata.cluster_id.to_string());
        writer.i32(node_id);
        writer.count(usize::from(outcome.is_ok()));
        if outcome.is_ok() {
            let (host, port) = context.config.advertised(context.local);
            writer.i32(node_id);
            writer.string(&host);
            writer.i32(i32::from(port));
            writer.nullable_string(None);
            writer.tags();
        }
        writer.i32(if self.wants_operations { ALL_CLUSTER_OPERATIONS } else { NOT_ASKED });
        writer.tags();
        Some(Done::answer(writer))
    }
}
