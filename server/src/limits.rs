//! Every bound in the host, and the relations between them that the code relies on. The engine has its own.

use std::time::Duration;

/// Connections that one shard serves. One more is closed as it is accepted.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

/// Requests of one connection that are under way or answered but not yet sent. At this many, reading is off.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;
/// Bytes of those requests. Past this, reading is off; one request may be larger than this on its own.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 32 << 20;
/// Bytes of answers of one connection that wait to be sent. Past this, reading is off.
pub const RESPONSE_BYTES_WAITING_MAX: usize = 8 << 20;
/// What a partly arrived request gets reserved at first; more as its bytes come in, so that a length alone costs nothing.
pub const PARTIAL_RESERVE_BYTES: usize = 256 << 10;
/// The largest request that any configuration may allow.
pub const REQUEST_BYTES_MAX: usize = 1 << 30;

/// Bytes that one gathered send takes; a single slice may be larger.
pub const SEND_BYTES: usize = 1 << 20;
/// Slices that one gathered send takes; the kernel's own limit is 1024.
pub const SEND_SLICES_MAX: usize = 512;

/// Partitions that one request may name, over all its topics.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 20_000;
/// Topics that one request may name.
pub const TOPICS_PER_REQUEST_MAX: usize = 10_000;
/// Topics that one metadata request may create. The others are answered "no leader yet", and come with the retry.
pub const CREATIONS_PER_REQUEST_MAX: usize = 64;

/// Bytes of one fetch that may be in memory before it is sent: the first chunk of each partition's answer. At this many
/// the partitions further back get nothing this time.
pub const FETCH_BYTES_HELD_MAX: usize = 4 << 20;
/// Reads that one fetch has under way.
pub const FETCH_READS_IN_FLIGHT_MAX: usize = 64;

/// A batch up to this size is searched on the shard's thread; a larger or a compressed one on a helper.
pub const SEARCH_INLINE_BYTES_MAX: usize = 64 << 10;
/// What a batch may decompress to when it is searched by time.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// HTTP connections at a time. One more is closed as it is accepted.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Bytes of an HTTP request before its body, of which none is read.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// How long an HTTP connection may take to send that, or be silent.
pub const HTTP_HEAD_WAIT: Duration = Duration::from_secs(20);
/// How long an HTTP connection is served, and how long an answer under way may take after that.
pub const HTTP_LIFE: Duration = Duration::from_mins(5);
/// See [`HTTP_LIFE`].
pub const HTTP_LIFE_GRACE: Duration = Duration::from_secs(10);
/// Looks at the shards, about one per second, after which one that has not turned is taken to be stuck.
pub const STUCK_LOOKS: u32 = 10;

const _: () = assert!(SEND_SLICES_MAX <= 1024, "the kernel takes at most 1024 slices at once");
const _: () = assert!(
    FETCH_BYTES_HELD_MAX <= RESPONSE_BYTES_WAITING_MAX,
    "one fetch alone does not turn reading off for longer than its send takes"
);
const _: () = assert!(
    SEND_BYTES >= millstream_engine::limits::READ_CHUNK_BYTES,
    "a chunk of a read plan is sent in one piece"
);
const _: () =
    assert!(REQUEST_BYTES_MAX <= i32::MAX as usize, "a frame's length field is a signed 32-bit number");
const _: () = assert!(
    REQUEST_BYTES_MAX > millstream_engine::limits::BATCH_BYTES_MAX,
    "a frame can hold the largest batch"
);
