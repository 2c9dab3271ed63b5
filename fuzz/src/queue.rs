//! A queue's state machine beside a model of it. The bytes are the operations.

use millstream_tests::queue_model;

/// More operations than these show nothing new, and the model is slow.
const BYTES_MAX: usize = 4096;

/// They agree on everything that is to be done, and on how the queue stands after each operation.
pub fn run(bytes: &[u8]) {
    queue_model::run(bytes.get(..BYTES_MAX).unwrap_or(bytes));
}
