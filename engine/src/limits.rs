//! Every bound in the engine, and the relations between them that the code relies on.
//!
//! A queue, buffer, window or loop that is not bounded by a number here (or by a key of [`crate::config`]) is a bug.

use crate::time::Nanos;

/// The unit of disk I/O: O_DIRECT's alignment, and what a crash keeps or loses as a whole.
pub const BLOCK_BYTES: usize = 4096;

/// A huge page of the architectures that we run on. Where it is another, slabs are aligned to this all the same.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Pools take memory of this size and more from the system itself, a huge page at a time.
pub const MAPPED_MEMORY_BYTES_MIN: usize = 64 << 10;

/// The size of a journal file. Small enough to recycle often, large enough that switching files is rare.
pub const JOURNAL_FILE_BYTES: u64 = 16 << 20;
/// What a node gives its journals, all together, if nobody says how much: at most this, and 1/16 of memory.
pub const JOURNALS_BYTES_DEFAULT_MAX: u64 = 1 << 30;
/// A journal starts with this many files and grows in the background.
pub const JOURNAL_FILES_MIN: usize = 2;
/// A group of this size is written as soon as the one before it is durable. A smaller one waits for what the turn brings:
/// those who are answered in it may have more, and one commit for all is cheaper than two.
pub const GROUP_TARGET_BYTES: usize = 256 << 10;
/// A group never grows past this, header and padding included.
pub const GROUP_BYTES_MAX: usize = 1 << 20;
/// A journal may always grow to this many files: one fills, one is being freed, one is in reserve, one is free.
pub const JOURNAL_FILES_ROOM: usize = 4;
/// Groups are packed into slabs of this size; the slabs are the tail cache afterwards.
pub const JOURNAL_SLAB_BYTES: usize = 4 << 20;
/// The tail in memory begins with this share of what it may take, a shard's part of the journal, and grows if readers come late.
pub const TAIL_SHARE_AT_LEAST: usize = 8;
/// How often the tail shrinks, by a sixteenth.
pub const TAIL_SHRINKS_EVERY: Nanos = Nanos::from_millis(10_000);
/// Groups in flight to one journal. Recovery knows it: only this many groups may be torn.
pub const GROUPS_IN_FLIGHT: usize = 1;

/// One write to a segment.
pub const SEGMENT_WRITE_BYTES: usize = 256 << 10;
/// Segments that a shard drains at a time.
pub const SEGMENTS_DRAINING_MAX: usize = 4;
/// Writes that each of them has in flight. A file that grows is written by one at a time, whatever is submitted: more of
/// them only keep the disk from the commits.
pub const SEGMENT_WRITES_IN_FLIGHT: usize = 2;
/// Segment writes in flight per shard, all together.
pub const STAGED_WRITES_MAX: usize = SEGMENTS_DRAINING_MAX * SEGMENT_WRITES_IN_FLIGHT;
/// Failed flushes of one segment, each retried into a new file, before the shard is poisoned.
pub const SEGMENT_FLUSH_FAILURES_MAX: u32 = 3;
/// Segment files have 32-bit positions, as Kafka's do.
pub const SEGMENT_BYTES_MAX: u64 = (1 << 31) - 1;
/// The sealed checksum file covers the log and its indexes in blocks of this size.
pub const SUM_BLOCK_BYTES: usize = 64 << 10;

/// One chunk of a read: what a single send may pin.
pub const READ_CHUNK_BYTES: usize = 256 << 10;
/// Cold reads that a shard has under way: as many as keep the disk busy.
pub const COLD_READS_IN_FLIGHT: usize = 3;
/// The same while there are commits, whose writes wait behind them.
pub const COLD_READS_BESIDE_COMMITS: usize = 1;
/// A chunk of a cold read while there are commits: a commit's write waits until the disk has served it.
pub const COLD_CHUNK_BESIDE_COMMITS_BYTES: usize = 128 << 10;
/// Chunks that are read ahead of a reader, as far as it has said that it will want them, if nobody else waits.
pub const READ_AHEADS: usize = 3;
/// Chunks that were read ahead and wait to be asked for, per shard.
pub const READ_AHEAD_CHUNKS_MAX: usize = 8;
/// Cold reads that wait for their turn; more are refused.
pub const COLD_READS_WAITING_MAX: usize = 4096;
/// Files that a shard keeps open for reading.
pub const OPEN_SEGMENTS_MAX: usize = 256;

/// Bytes that the scrub reads in a second, at most.
pub const SCRUB_BYTES_PER_SECOND: usize = 4 << 20;
/// What each of its steps counts for, however little it reads.
pub const SCRUB_STEP_BYTES_MIN: usize = 64 << 10;
/// Logs that the scrub looks at for something to read, in one turn.
pub const SCRUB_LOGS_PER_TURN: usize = 1_000;

/// Bytes of segments that a shard maps; the kernel's page tables for them take 1/512 of that.
pub const MAPPED_BYTES_MAX: usize = 16 << 30;
/// Maps that may wait for slow readers to be unmapped. At this many, no more segments are mapped.
pub const MAPS_IDLE_MAX: usize = 64;

/// Messages in a mailbox ring between two shards, each way and kind.
pub const MAILBOX_SLOTS: usize = 1024;
/// Messages of one kind that may wait for one shard, over all its peers: many shards have smaller rings.
pub const MAILBOX_SLOTS_INBOUND_MAX: usize = 16 << 10;
/// Messages in the smallest ring, among as many shards as there may be.
pub const MAILBOX_SLOTS_MIN: usize = 64;
/// Messages that a turn takes from its mailboxes at a time.
pub const MAIL_PER_ROUND: usize = 1024;
/// How often a turn looks into its mailboxes: a request and its answer, within one shard, in one turn.
pub const MAIL_ROUNDS_PER_TURN: usize = 4;
/// What other threads have to say to the host of one shard, and it has not heard yet.
pub const CALLS_WAITING_MAX: usize = 1024;
/// Completions that one turn takes before it looks at its other work.
pub const COMPLETIONS_PER_TURN: usize = 512;

/// Operations queued between two submissions; more are submitted at once.
pub const RING_ENTRIES: u32 = 512;
/// Completions that the ring holds before the kernel keeps them aside.
pub const RING_COMPLETIONS: u32 = 4096;
/// Workers that the kernel may start for a ring's blocking disk work: the commit's flush, a write and a flush each for
/// [`SEGMENTS_DRAINING_MAX`] segments, the checkpoint's, a directory's, and the slow lane.
pub const DISK_WORKERS_MAX: u32 = 16;
/// The same for everything that is no disk. Sockets are polled, so hardly any is ever needed.
pub const OTHER_WORKERS_MAX: u32 = 2;
/// Reads of cold bytes and changes of names (open, rename, unlink, close) in flight at a time. Each may hold a worker
/// and the device for milliseconds, and the commit's flush needs both.
pub const SLOW_LANE_IN_FLIGHT: usize = 4;
/// Slabs that a helper makes ready before it looks for other work.
pub const WARM_SLABS_MAX: usize = 4;
/// Helper threads of a shard, for offloaded jobs.
pub const HELPER_THREADS: usize = 2;

/// Memory is lent to the kernel for incoming bytes in blocks of this size.
pub const RECEIVE_BLOCK_BYTES: usize = 64 << 10;
/// Blocks lent at a time, if the receive budget allows twice as many. A power of two.
pub const RECEIVE_BLOCKS_MAX: usize = 64;
/// What is left of a block is lent again if it is at least this much.
pub const RECEIVE_REST_BYTES_MIN: usize = 4 << 10;
/// What is received behind something large that had a room of its own: enough to see how long the next one is.
pub const RECEIVE_HEAD_BYTES: usize = 4 << 10;
/// Slices gathered into one call; the kernel takes no more (`IOV_MAX`).
pub const SEND_SLICES_MAX: usize = 1024;
/// A send that has been under way for this long is slow: its slices are copied, so that the journal's slabs go home.
pub const SLOW_SEND: Nanos = Nanos::from_millis(100);
/// A send that has been under way for this long is stuck: while reads wait for memory, whoever is stuck for longest loses its
/// connection, which gives back what its answers take.
pub const STUCK_SEND: Nanos = Nanos::from_millis(2_000);
/// How often hosts are asked to let go of what waits to be sent, while reads wait for memory.
pub const LET_GO_EVERY: Nanos = Nanos::from_millis(100);
/// A slice that keeps at most this much memory is not worth a copy.
pub const LOOSE_BYTES: usize = 2 * READ_CHUNK_BYTES;
/// How long a peer is silent before the kernel asks its machine whether it is there, so that one that has vanished does not keep
/// its connection for good where no protocol misses it,
pub const PEER_PROBED: Nanos = Nanos::from_millis(300_000);
/// how often it asks again,
pub const PEER_PROBED_AGAIN: Nanos = Nanos::from_millis(60_000);
/// and when it gives a connection up: after so long without an answer, or without the peer taking anything of what it is sent.
/// As long as RabbitMQ waits for a consumer to acknowledge.
pub const PEER_MISSED: Nanos = Nanos::from_millis(1_800_000);
/// Connections that wait to be accepted.
pub const LISTEN_BACKLOG: i32 = 4096;

/// The largest record batch that any configuration may allow.
pub const BATCH_BYTES_MAX: usize = 100 << 20;
/// Batches that an idempotent producer's state remembers; clients keep at most this many in flight.
pub const PRODUCER_BATCHES: usize = 5;
/// Producers that one shard remembers, over all its partitions; the least recent goes first.
pub const PRODUCERS_PER_SHARD_MAX: usize = 100_000;
/// Leader epochs that a log remembers the starts of; the oldest goes first.
pub const LEADER_EPOCHS_PER_LOG_MAX: usize = 1_000;
/// Partitions that one request may ask the extents of.
pub const EXTENTS_PER_REQUEST_MAX: usize = 1_000;
/// A topic name's length, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Partitions that one topic may have.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;
/// Partitions that a node may have, over all topics: each costs every start and every checkpoint some memory.
pub const PARTITIONS_PER_NODE_MAX: u32 = 100_000;
/// Queues that a node may have.
pub const QUEUES_PER_NODE_MAX: usize = 1_000_000;
/// Queues of one shard that one message may be published to.
pub const QUEUES_PER_PUBLISH_MAX: usize = 1_024;
/// Messages that a queue looks at in one turn; what is left waits for the next.
pub const QUEUE_WORK_PER_TURN: usize = 1_024;
/// Deliveries that a shard is told of together, in one piece of memory that is small enough to be used again.
pub const DELIVERIES_TOLD_TOGETHER: usize = 512;
/// How long a settlement may wait for company in the journal, and so what a crash may take back of them.
pub const SETTLEMENT_DELAY: Nanos = Nanos::from_millis(5);
/// Bytes of settlements that wait for no company.
pub const SETTLEMENT_BYTES_MAX: usize = 64 << 10;
/// It is recorded ahead of deliveries how far they may have come, by so many messages: after a crash so many may count as
/// delivered that were not.
pub const MARK_AHEAD: u64 = 4_096;
/// Groups with messages that a shard reads back at a time.
pub const QUEUE_READS_IN_FLIGHT: usize = 4;
/// How often a group with messages is tried to be read, with growing rests in between (three seconds in all), before it counts
/// as lost.
pub const QUEUE_READ_ATTEMPTS_MAX: u32 = 7;
/// Groups that may be lost in a life of a shard. At one more the disk is sick, and the shard is poisoned.
pub const QUEUE_GROUPS_LOST_MAX: usize = 16;
/// Bytes of groups that were read back and are kept for what else is wanted of them.
pub const QUEUE_GROUPS_CACHED_BYTES: usize = 16 << 20;
/// Messages still wanted in the journal files to be recycled are carried forward up to so many bytes; more are moved to
/// files of their own. A file in which a quarter of that is wanted is given up, and they are carried.
pub const CARRIED_MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// And up to this part of the journal.
pub const CARRIED_JOURNAL_SHARE: u64 = 16;
/// A file for messages that outlive their place in the journal is not written on past this.
pub const MESSAGE_FILE_BYTES: u64 = 64 << 20;
/// What may wait in a queue before its publishers are asked to wait, too, until half of it has gone: its bytes, and some more for
/// each message.
pub const FLOW_BYTES_MAX: u64 = 4 << 20;
/// The same while memory for messages that are not kept fills.
pub const FLOW_BYTES_MIN: u64 = 128 << 10;
/// What each message counts for in that, beside its bytes.
pub const FLOW_MESSAGE_BYTES: u64 = 256;
/// How long publishers wait until it is looked whether anything comes of it: whether consumers of their queue have been given so
/// much,
pub const FLOW_LOOK: Nanos = Nanos::from_millis(100);
/// as this,
pub const FLOW_TAKEN_BYTES_MIN: u64 = 64 << 10;
/// and all consumers of the shard this much: it has enough to do.
pub const FLOW_TAKEN_OF_SHARD_BYTES_MIN: u64 = 4 << 20;
/// How long publishers wait at most, whatever comes of it. Then they are let alone
pub const FLOW_HELD: Nanos = Nanos::from_millis(1_000);
/// for at least so long,
pub const FLOW_SPARED: Nanos = Nanos::from_millis(1_000);
/// and if nothing comes of it time and again, for up to so long.
pub const FLOW_SPARED_MAX: Nanos = Nanos::from_millis(64_000);
/// Queues whose messages are counted at a time, for metrics.
pub const QUEUES_COUNTED_AT_ONCE: usize = 1_000;
/// Queues that one request may ask about.
pub const QUEUES_PER_REQUEST_MAX: usize = 1_000;
/// Leaving messages of one shard that its host is asked about at a time; the others wait in their queues.
pub const LEAVING_TOLD_MAX: usize = 256;
/// The same of one queue, before it is another one's turn.
pub const LEAVING_TOLD_PER_QUEUE_MAX: usize = 32;
/// Leaving messages that could not go: so many of a shard its host is asked about again in a second.
pub const LEAVING_AGAIN_MAX: usize = 1_024;
/// Names of messages that came from queues of other shards and may come once more, per shard. At so many no more are let in.
pub const MOVED_NAMES_MAX: usize = 65_536;
/// Queues that have these messages, of all names. At so many no more are let in.
pub const MOVED_PLACES_MAX: usize = 1 << 20;
/// Names that one shard asks another about at a time.
pub const MOVED_NAMES_PER_QUESTION_MAX: usize = 1_024;
/// A queue's name: what the host puts into it.
pub const QUEUE_NAME_BYTES_MAX: usize = 1_024;
/// The key of one of the host's entries, and its value.
pub const ENTRY_KEY_BYTES_MAX: usize = 4_096;
/// The value of one of the host's entries.
pub const ENTRY_VALUE_BYTES_MAX: usize = 1 << 20;
/// Guards and edits, all together, in one change of metadata.
pub const EDITS_PER_CHANGE_MAX: usize = 100_000;
/// What the entries and names in one change may have together.
pub const CHANGE_BYTES_MAX: usize = 64 << 20;
/// Things that changes of metadata which wait may touch together to be written and applied as one.
pub const METADATA_CHANGES_PER_FRAME: usize = 1_000;
/// The names and values of those.
pub const METADATA_FRAME_BYTES: usize = 1 << 20;
/// Changes of metadata that a snapshot remembers, for hosts that want to know what is new.
pub const METADATA_CHANGES_REMEMBERED: usize = 1_024;
/// A message's header and body.
pub const MESSAGE_BYTES_MAX: usize = 100 << 20;
/// A message's header.
pub const MESSAGE_HEADER_BYTES_MAX: usize = 256 << 10;
/// Settings that one topic may have.
pub const SETTINGS_PER_TOPIC_MAX: usize = 64;
/// A setting's name, and its value: what a length on the wire can say.
pub const SETTING_BYTES_MAX: usize = 32_767;
/// Ids for idempotent producers that are written down as used at a time. A start skips what is left of them.
pub const PRODUCER_IDS_PER_RECORD: u64 = 1_000;
/// Chunks of a queue's index, of 64 messages each, that are paged out and in together.
pub const PAGE_CHUNKS: usize = 64;
/// Chunks with ready messages that stay: those that are delivered first. Half as far ahead, pages are asked for.
pub const PAGE_CHUNKS_AHEAD: usize = 128;
/// Bytes of the file of pages that a page has to itself, whole blocks: as much as one can take.
pub const PAGE_SLOT_BYTES: usize = 21 * BLOCK_BYTES;
/// A queue whose index takes less keeps all of it in memory.
pub const PAGED_QUEUE_BYTES_MIN: usize = 8 << 10;
/// Pages that a shard reads and writes at a time.
pub const PAGES_IN_FLIGHT: usize = 8;
/// Bytes of messages in pieces that a shard puts together in one turn, or one piece more.
pub const COPIED_BYTES_PER_TURN: usize = 1 << 20;
/// What messages in pieces may take per shard that were put together and are being sent.
pub const LARGE_MESSAGES_BYTES_MAX: usize = 256 << 20;
/// Messages that are not kept over a restart lie in memory in slabs of this size, unless one is larger.
pub const PASSING_SLAB_BYTES: usize = 256 << 10;
/// Groups of them that a shard writes at a time, while memory for them is short.
pub const PASSING_WRITES_IN_FLIGHT: usize = 4;
/// Chunks that are looked at for ones that can be paged out, at a time.
pub const PAGE_CHUNKS_LOOKED_AT: usize = 4096;
/// Slots that partitions are placed on. A multiple of every sensible number of shards, so that they stay even.
pub const SLOTS: u32 = 5040;
/// Bytes that the metadata log is written in advance with. When they are used up it is folded into the snapshot.
pub const METADATA_LOG_BYTES: u64 = 1 << 20;
/// Deletions that are forgotten at a time.
pub const DELETIONS_FORGOTTEN_MAX: usize = 1_000;
/// Changes of metadata that wait for their turn; more are refused.
pub const METADATA_CHANGES_WAITING_MAX: usize = 10_000;
/// Shards in one process.
pub const SHARDS_MAX: u16 = 256;

const _: () =
    assert!(GROUP_TARGET_BYTES <= GROUP_BYTES_MAX, "a group may not be asked to pass its own limit");
const _: () = assert!(GROUP_BYTES_MAX as u64 <= JOURNAL_FILE_BYTES, "a group lies within one file");
const _: () =
    assert!(JOURNAL_SLAB_BYTES.is_multiple_of(BLOCK_BYTES), "groups start at block boundaries in memory too");
const _: () = assert!(JOURNAL_SLAB_BYTES >= 2 * GROUP_BYTES_MAX, "a group fills while another is in flight");
const _: () =
    assert!(GROUP_BYTES_MAX.is_multiple_of(BLOCK_BYTES) && SEGMENT_WRITE_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(GROUPS_IN_FLIGHT == 1, "recovery's decision table is written for one group in flight");
const _: () = assert!(RECEIVE_BLOCKS_MAX.is_power_of_two() && RECEIVE_BLOCKS_MAX <= 1 << 15);
const _: () = assert!(
    DISK_WORKERS_MAX as usize >= 4 + 2 * SEGMENTS_DRAINING_MAX + SLOW_LANE_IN_FLIGHT,
    "cold reads leave room for the commit's flush"
);
const _: () = assert!(
    READ_CHUNK_BYTES.is_multiple_of(SUM_BLOCK_BYTES)
        && COLD_CHUNK_BESIDE_COMMITS_BYTES.is_multiple_of(SUM_BLOCK_BYTES),
    "the scrub reads whole blocks of sums"
);
const _: () = assert!(LOOSE_BYTES < JOURNAL_SLAB_BYTES, "a slow send may not keep a slab of the journal");
const _: () = assert!(PAGE_CHUNKS <= u16::MAX as usize && PAGE_CHUNKS <= PAGE_CHUNKS_LOOKED_AT);
const _: () = assert!(JOURNAL_FILES_MIN >= 2, "one file fills while the other is recycled");
const _: () = assert!(MAILBOX_SLOTS.is_power_of_two() && MAILBOX_SLOTS_MIN.is_power_of_two(), "rings mask");
const _: () = assert!(
    MAILBOX_SLOTS_MIN * SHARDS_MAX as usize <= MAILBOX_SLOTS_INBOUND_MAX,
    "the smallest rings keep the bound"
);
