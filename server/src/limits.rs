//! Every bound in the host, and the relations between them that the code relies on. The engine has its own.

use std::time::Duration;

use millstream_engine::time::Nanos;

/// Connections that one shard serves. One more is closed as it is accepted.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

/// Requests of one connection that are under way or answered but not yet sent. At this many, reading is off.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;
/// Bytes of those requests. Past this, reading is off; one request may be larger than this on its own.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 32 << 20;
/// Bytes of answers of one connection that wait to be sent. Past this, reading is off.
pub const RESPONSE_BYTES_WAITING_MAX: usize = 8 << 20;
/// How long a connection may take none of its answers while those of its shard are many, in ms. Then whoever has taken none for
/// longest, and has its share of them, is hung up on.
pub const ANSWERS_UNTAKEN_MS: u64 = 2_000;
/// How often such are looked for, in ms.
pub const ANSWERS_LOOK_MS: u64 = 100;
/// Connections that are let in at once when there is room for answers again.
pub const LET_IN_AT_ONCE: usize = 100;
/// What a partly arrived request gets reserved at first; more as its bytes come in, so that a length alone costs nothing.
pub const PARTIAL_RESERVE_BYTES: usize = 256 << 10;
/// A partly arrived request of at least this size is received into a room of its own, in one piece,
pub const FRAME_IN_ROOM_BYTES_MIN: usize = 64 << 10;
/// and one of at most this size: twice what Kafka's producers send at once.
pub const FRAME_IN_ROOM_BYTES_MAX: usize = 2 << 20;
/// Of `queued.max.request.bytes`, this share may be rooms; requests that find none are put together elsewhere.
pub const ROOMS_SHARE: usize = 2;
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
/// Settings that one request may name, over all its topics.
pub const SETTINGS_PER_REQUEST_MAX: usize = 100_000;
/// Topics that one metadata request may create. The others are answered "no leader yet", and come with the retry.
pub const CREATIONS_PER_REQUEST_MAX: usize = 64;

/// Bytes that one fetch gives, whatever the client would take; one batch may come with them. Kafka's `fetch.max.bytes`.
pub const FETCH_BYTES_MAX: u64 = 55 << 20;
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
/// Bytes of a request's body under `/api`: definitions may be large.
pub const HTTP_BODY_BYTES_MAX: usize = 20 << 20;
/// A body of which any number of connections may have one.
pub const HTTP_SMALL_BODY_BYTES: usize = 64 << 10;
/// How long a request's body may take to come.
pub const HTTP_BODY_WAIT: Duration = Duration::from_secs(30);
/// Bytes of an answer: a list that is longer has to be asked for in pages.
pub const HTTP_ANSWER_BYTES_MAX: usize = 256 << 20;
/// Requests under `/api` that are worked on at a time. More wait for their turn.
pub const MANAGEMENT_REQUESTS_MAX: usize = 4;
/// How long a shard may take to answer the management thread.
pub const MANAGEMENT_WAIT: Duration = Duration::from_secs(30);
/// Queues that one shard is asked about at once.
pub const MANAGEMENT_ASKED_MAX: usize = 500;
/// Objects of a list that are written without looking whether there is something else to do.
pub const MANAGEMENT_ROWS_AT_ONCE: usize = 500;
/// Objects on a page, as in RabbitMQ.
pub const MANAGEMENT_PAGE_MAX: usize = 500;
/// Objects whose numbers are looked at again and again, for their rates.
pub const SAMPLED_MAX: usize = 20_000;
/// Numbers that are kept of all of them, over time; but two looks at each are.
pub const SAMPLED_NUMBERS_MAX: usize = 1_000_000;
/// Looks at an object that are kept, one every five seconds.
pub const SAMPLES_KEPT_MAX: usize = 121;
/// Messages that one request may get out of a queue.
pub const MANAGEMENT_MESSAGES_MAX: usize = 1_000;
/// Bytes of these.
pub const MANAGEMENT_MESSAGES_BYTES_MAX: usize = 32 << 20;
/// Edits of definitions that are made in one change.
pub const DEFINITIONS_EDITS_AT_ONCE: usize = 1_000;
/// Looks at the shards, about one per second, after which one that has not turned is taken to be stuck.
pub const STUCK_LOOKS: u32 = 10;

/// Groups that one shard coordinates.
pub const GROUPS_PER_SHARD_MAX: usize = 100_000;
/// Members that any configuration may allow a group to have.
pub const MEMBERS_PER_GROUP_MAX: usize = 10_000;
/// Bytes that one member may bring: what its ways to assign want to know of it.
pub const MEMBER_BYTES_MAX: usize = 1 << 20;
/// Ways to assign that one member may know.
pub const PROTOCOLS_PER_MEMBER_MAX: usize = 100;
/// Bytes that the members of one group may bring and be given, all together.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes that the members of all groups of a shard may bring and be given before no more join.
pub const GROUPS_BYTES_PER_SHARD_MAX: usize = 256 << 20;
/// States of one group that may wait to be stored before nobody joins it.
pub const GROUP_STORES_WAITING_MAX: usize = 16;
/// A group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 1024;
/// What a client calls itself, as far as it is kept; and a member's lasting name, as in Kafka.
pub const CLIENT_NAME_BYTES_MAX: usize = 249;
/// Members that one request may name.
pub const MEMBERS_PER_REQUEST_MAX: usize = MEMBERS_PER_GROUP_MAX;
/// Groups that one request may name.
pub const GROUPS_PER_REQUEST_MAX: usize = 1_000;
/// The text that goes with a committed offset, as in Kafka.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;
/// Partitions whose offsets one group may commit.
pub const OFFSETS_PER_GROUP_MAX: usize = 50_000;
/// Bytes that the committed offsets of all groups of a shard may take in memory before nothing is committed that makes
/// them more. What is being stored meanwhile comes on top.
pub const OFFSETS_BYTES_PER_SHARD_MAX: usize = 256 << 20;
/// Changes of groups and offsets are stored in batches of about this size.
pub const OFFSETS_BATCH_BYTES: usize = 256 << 10;
/// Bytes of one commit: it is stored as a whole.
pub const OFFSETS_UNIT_BYTES_MAX: usize = 16 << 20;
/// Bytes of changes that may wait to be stored, over all groups of a shard.
pub const OFFSETS_WAITING_BYTES_MAX: usize = 64 << 20;
/// What the offsets topic holds is written again when it has grown by this many times as much since the last time,
pub const OFFSETS_SNAPSHOT_RATIO: u64 = 4;
/// and by at least this much.
pub const OFFSETS_SNAPSHOT_BYTES_MIN: u64 = 2 << 20;
/// Partitions of the offsets topic that a shard reads at a time.
pub const OFFSETS_LOADS_IN_FLIGHT: usize = 8;
/// Groups whose offsets' age is looked at in one step.
pub const GROUPS_EXPIRED_AT_ONCE: usize = 100;

/// Tables and arrays within each other in a field table.
pub const AMQP_TABLE_DEPTH_MAX: usize = 64;
/// What a partly arrived frame gets reserved at first; more as its bytes come in.
pub const AMQP_PARTIAL_RESERVE_BYTES: usize = 4 << 10;
/// Routes that a shard remembers until something changes.
pub const AMQP_ROUTES_CACHED: usize = 1 << 14;
/// The largest weight of a binding at a hashing exchange.
pub const AMQP_HASH_WEIGHT_MAX: u64 = 10_000;
/// A body up to this size is copied beside its header; a larger one is passed on where it lies.
pub const AMQP_BODY_COPIED_BYTES_MAX: usize = 4 << 10;
/// Bytes that wait to be sent on a connection before its consumers are granted no more.
pub const AMQP_SEND_BYTES_WAITING_MAX: usize = 1 << 20;
/// Bytes that wait to be sent on a connection, or for room in a prefetch, before what comes for its consumers goes back to its
/// queue. Then there are many consumers, or their messages are large.
pub const AMQP_SEND_BYTES_GIVEN_BACK: usize = 32 << 20;
/// The same, before a connection is hung up on whose consumers do not acknowledge, so that nothing can go back.
pub const AMQP_SEND_BYTES_HUNG_UP: usize = 128 << 20;
/// What all connections of a shard have to send. At this many, those with more than their share are taken for congested.
pub const AMQP_SEND_BYTES_PER_SHARD_MAX: usize = 512 << 20;
/// Deliveries are written into pieces of this size, which the allocator has at hand.
pub const AMQP_SEND_PIECE_BYTES: usize = 64 << 10;
/// Messages that may be on their way to a consumer without a prefetch.
pub const AMQP_WINDOW_MESSAGES: u32 = 2_048;
/// The same, of one of very many consumers.
pub const AMQP_WINDOW_MESSAGES_MIN: u32 = 16;
/// Bytes that may be on their way to a consumer, and one message more.
pub const AMQP_WINDOW_BYTES: u32 = 512 << 10;
/// The same, of one of very many consumers.
pub const AMQP_WINDOW_BYTES_MIN: u32 = 4 << 10;
/// What is shared out among the consumers of a connection,
pub const AMQP_WINDOWS_BYTES_PER_CONNECTION: usize = 8 << 20;
/// and among those of a shard.
pub const AMQP_WINDOWS_BYTES_PER_SHARD: usize = 256 << 20;
/// Deliveries of one connection that are not settled. At this many, its consumers are granted no more, and nothing can be got.
pub const AMQP_UNACKED_PER_CONNECTION_MAX: usize = 1 << 18;
/// The same of all connections of a shard: those with more than their share are granted no more.
pub const AMQP_UNACKED_PER_SHARD_MAX: usize = 1 << 22;
/// Places of settled deliveries that a channel keeps among those that are not settled, and as many more as there are of these.
pub const AMQP_SETTLED_PLACES_MIN: usize = 1 << 10;
/// A message's body: RabbitMQ's default.
pub const AMQP_MESSAGE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of what one connection has begun and not ended: messages that arrive, and transactions that are not committed. How much
/// all connections of a shard may have of that is configured.
pub const AMQP_UNFINISHED_BYTES_MAX: usize = 64 << 20;
/// Messages of one connection that wait for their confirms. Past this, reading is off.
pub const AMQP_UNCONFIRMED_MAX: usize = 1 << 18;
/// Keys of one message: its own, and those in its headers.
pub const AMQP_KEYS_PER_MESSAGE_MAX: usize = 1_000;
/// Consumers of one connection,
pub const AMQP_CONSUMERS_PER_CONNECTION_MAX: usize = 10_000;
/// and of all connections of a shard.
pub const AMQP_CONSUMERS_PER_SHARD_MAX: usize = 500_000;
/// Channels of all connections of a shard.
pub const AMQP_CHANNELS_PER_SHARD_MAX: usize = 1 << 18;
/// Bindings that are looked at for one connection, and queues that are found, before others have their turn.
pub const AMQP_WORK_PER_STEP: usize = 20_000;
/// Queues in all routes that a shard remembers.
pub const AMQP_ROUTES_CACHED_QUEUES: usize = 1 << 18;
/// Exchanges of a node,
pub const AMQP_EXCHANGES_MAX: usize = 100_000;
/// its bindings,
pub const AMQP_BINDINGS_MAX: usize = 1_000_000;
/// those of one exchange,
pub const AMQP_BINDINGS_PER_EXCHANGE_MAX: usize = 100_000;
/// and vhosts.
pub const AMQP_VHOSTS_MAX: usize = 10_000;
/// Deaths that a message's headers tell of: the newest.
pub const AMQP_DEATHS_TOLD_MAX: usize = 128;
/// How often the disk is looked at, for publishers that had better wait, and what could not be done is tried again, in ms.
pub const AMQP_TICK_MS: u64 = 500;
/// The largest frame of a connection: what is offered,
pub const AMQP_FRAME_BYTES_MAX: usize = 128 << 10;
/// the least that a client may want,
pub const AMQP_FRAME_BYTES_MIN: usize = 4096;
/// and what may come before that is settled: a token as password needs some room.
pub const AMQP_FRAME_BYTES_BEFORE_TUNE: usize = 8192;
/// Channels of one connection.
pub const AMQP_CHANNELS_PER_CONNECTION_MAX: u16 = 2047;
/// How long a connection may take to open, in ms.
pub const AMQP_HANDSHAKE_MS: u64 = 10_000;
/// How long the answer to a close is waited for, in ms.
pub const AMQP_CLOSE_WAIT_MS: u64 = 5_000;
/// Bytes of messages that a connection has on their way to queues. Past this, reading is off.
pub const AMQP_PUBLISHING_BYTES_MAX: usize = 8 << 20;
/// The same of all connections of a shard: from those with more than their share nothing is read.
pub const AMQP_PUBLISHING_BYTES_PER_SHARD_MAX: usize = 256 << 20;
/// While so much is on its way, bodies are copied, so that they do not keep what is received into.
pub const AMQP_PUBLISHING_BYTES_SHARED_MAX: usize = 16 << 20;
/// Bytes that wait to be sent on a connection. Past this, what comes is not looked at.
pub const AMQP_SEND_BYTES_MAX: usize = 8 << 20;
/// How long a client that is not read from, and so cannot be heard, may take nothing of what it is sent; or for twice its
/// heartbeat, if that is longer. A send that is under way, of up to [`SEND_BYTES`], counts as taken when all of it is.
pub const AMQP_TAKEN_WAIT: Nanos = Nanos::from_millis(60_000);
/// Bytes that may arrive on a connection while it waits for an operation, or for what was sent to be taken. Past this, reading is
/// off.
pub const AMQP_STALLED_BYTES_MAX: usize = 128 << 10;
/// The same when the node stops, which is not to take long.
pub const AMQP_STOP_WAIT_MS: u64 = 1_000;
/// Small pieces of a body, one behind the other, before they become one.
pub const AMQP_SMALL_PIECES_MAX: usize = 1024;
/// How often an operation looks anew because others have changed what it relies on.
pub const AMQP_OPERATION_TRIES_MAX: u32 = 16;
/// Consumers that are told of when it is told of one connection.
pub const AMQP_CONSUMERS_REPORTED_MAX: usize = 10_000;
/// Looks at a policy, for an exchange or a queue, in one turn after policies have changed.
pub const AMQP_POLICY_LOOKS_PER_TURN: usize = 2_000;
/// Edits that tidy up, or let other policies hold, in one change.
pub const AMQP_TIDYING_EDITS_MAX: usize = 1_000;
/// Connections, channels and consumers that are told of at once, and one connection more.
pub const AMQP_REPORTS_AT_ONCE: usize = 1_000;
/// A binding's arguments: they are a part of its name.
pub const AMQP_BINDING_ARGUMENTS_BYTES_MAX: usize = 3 << 10;

const _: () = assert!(
    OFFSETS_PER_GROUP_MAX * (GROUP_NAME_BYTES_MAX + millstream_engine::limits::TOPIC_NAME_BYTES_MAX + 64)
        < millstream_engine::limits::BATCH_BYTES_MAX,
    "all offsets of a group are forgotten in one batch"
);
const _: () = assert!(
    GROUP_BYTES_MAX + MEMBERS_PER_GROUP_MAX * (4 * CLIENT_NAME_BYTES_MAX + 256)
        < millstream_engine::limits::BATCH_BYTES_MAX,
    "a group's state is stored in one batch"
);
const _: () = assert!(
    FETCH_BYTES_MAX as usize + millstream_engine::limits::BATCH_BYTES_MAX < i32::MAX as usize / 2,
    "an answer's length is a signed 32-bit number"
);
const _: () = assert!(
    AMQP_UNFINISHED_BYTES_MAX as u64 >= 2 * AMQP_MESSAGE_BYTES_MAX,
    "the largest message arrives whatever else is arriving, within reason"
);
const _: () = assert!(
    AMQP_SEND_BYTES_WAITING_MAX < AMQP_SEND_BYTES_MAX
        && AMQP_SEND_BYTES_MAX < AMQP_SEND_BYTES_GIVEN_BACK
        && AMQP_SEND_BYTES_GIVEN_BACK < AMQP_SEND_BYTES_HUNG_UP,
    "first nothing more is granted, then nothing is read, then deliveries go back, then the connection ends"
);
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
