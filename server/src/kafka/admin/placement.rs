//! Where partitions are to be placed. There is one node, so that this can only be right or wrong.

use super::super::codec::{Malformed, Reader};
use super::super::{ErrorCode, Failure};

/// Reads the nodes that one partition is to be placed on.
pub fn read_nodes(reader: &mut Reader<'_>) -> Result<Vec<i32>, Malformed> {
    (0..reader.count(4)?).map(|_| reader.i32()).collect()
}

/// Checks that a partition is to be on the one node that there is.
pub fn check_nodes(nodes: &[i32], node_id: u32) -> Result<(), Failure> {
    if nodes == [node_id as i32] {
        return Ok(());
    }
    let message = format!("the only node is {node_id}: a partition cannot be placed on {nodes:?}");
    Err(Failure::new(ErrorCode::InvalidReplicaAssignment, message))
}

/// Checks how many copies there are to be; -1 leaves it to the broker. `clamps` says that more than there can be are as
/// many as there can be.
pub fn check_replication(factor: i16, clamps: bool) -> Result<(), Failure> {
    match factor {
        -1 | 1 => Ok(()),
        2.. if clamps => Ok(()),
        2.. => Err(Failure::new(
            ErrorCode::InvalidReplicationFactor,
            format!("replication factor {factor} is larger than the number of nodes, which is 1"),
        )),
        _ => Err(Failure::new(
            ErrorCode::InvalidReplicationFactor,
            "a replication factor is positive, or -1 for the broker's",
        )),
    }
}
