//! What connections ask of a coordinator, and what they are answered: closed enums, the whole contract between the two.

use std::sync::Arc;

use millstream_engine::reactor::app::AppToken;
use millstream_engine::types::{ShardId, TopicId};

use super::offsets::Committed;

/// What there is to say of partitions, under the names of their topics.
pub type ByTopic<P> = Vec<(Arc<str>, Vec<P>)>;

/// What the hosts of two shards tell each other about groups.
#[derive(Debug)]
pub enum Message {
    /// A question; answered by exactly one [`Message::Answer`] with its token.
    Ask(AppToken, Question),
    /// Nobody waits any more for the answer to that question about that group. It is still given, at once.
    Cancel(AppToken, Arc<str>),
    /// The answer.
    Answer(AppToken, Answer),
}

/// Who waits for an answer: a shard, and how it calls the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The shard.
    pub shard: ShardId,
    /// Its name for the question.
    pub token: AppToken,
}

/// A question.
#[derive(Debug)]
pub enum Question {
    /// Be a member of the next generation: [`Outcome::Joined`] when it has begun.
    Join(Join),
    /// Learn one's assignment, the leader by giving everybody theirs: [`Outcome::Synced`].
    Sync(Sync),
    /// Still alive: [`Outcome::Done`].
    Heartbeat(Heartbeat),
    /// Members go: [`Outcome::Left`].
    Leave(Leave),
    /// Note how far a group has read: [`Outcome::Committed`] when that is durable.
    Commit(Commit),
    /// Ask how far it has read: [`Outcome::Offsets`].
    Offsets(Offsets),
    /// Everything about a group: [`Outcome::Described`].
    Describe(Arc<str>),
    /// The groups of the shard that is asked: [`Outcome::Listed`].
    List,
    /// Forget a group: [`Outcome::Done`] when that is durable.
    Delete(Arc<str>),
    /// Forget how far it has read: [`Outcome::Committed`] when that is durable.
    DeleteOffsets(DeleteOffsets),
}

impl Question {
    /// The group that it is about; `None` if about all.
    pub fn group(&self) -> Option<&Arc<str>> {
        match self {
            Question::Join(join) => Some(&join.group),
            Question::Sync(sync) => Some(&sync.group),
            Question::Heartbeat(heartbeat) => Some(&heartbeat.group),
            Question::Leave(leave) => Some(&leave.group),
            Question::Commit(commit) => Some(&commit.group),
            Question::Offsets(offsets) => Some(&offsets.group),
            Question::Describe(group) | Question::Delete(group) => Some(group),
            Question::DeleteOffsets(delete) => Some(&delete.group),
            Question::List => None,
        }
    }
}

/// See [`Question::Join`].
#[derive(Clone, Debug)]
pub struct Join {
    /// The group.
    pub group: Arc<str>,
    /// Who it has been so far; empty for a newcomer.
    pub member_id: Arc<str>,
    /// The name under which it comes back after a restart (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// What the client calls itself.
    pub client_id: Box<str>,
    /// Where it connects from.
    pub client_host: Box<str>,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// What sort of group it takes this for.
    pub protocol_type: Arc<str>,
    /// Ways to assign that it knows, preferred ones first, with what each wants to know of it.
    pub protocols: Vec<(Arc<str>, Arc<[u8]>)>,
    /// Whether a newcomer can be told to come back with an id (KIP-394).
    pub takes_id_first: bool,
    /// Whether a leader can be told to leave the assignment as it is (KIP-814).
    pub skips_assignment: bool,
}

/// See [`Question::Sync`].
#[derive(Clone, Debug)]
pub struct Sync {
    /// The group.
    pub group: Arc<str>,
    /// Who asks.
    pub member: Member,
    /// The sort of group that it takes this for, if it says so.
    pub protocol_type: Option<Arc<str>>,
    /// The way to assign that it takes for chosen, if it says so.
    pub protocol: Option<Arc<str>>,
    /// Everybody's part, from the leader.
    pub assignments: Vec<(Arc<str>, Arc<[u8]>)>,
}

/// A member, as it sees itself.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name.
    pub instance_id: Option<Arc<str>>,
    /// The generation that it believes in.
    pub generation: i32,
}

/// See [`Question::Heartbeat`].
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The group.
    pub group: Arc<str>,
    /// Whose.
    pub member: Member,
}

/// See [`Question::Leave`].
#[derive(Clone, Debug)]
pub struct Leave {
    /// The group.
    pub group: Arc<str>,
    /// Who goes: ids, empty for whoever has that lasting name.
    pub members: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// See [`Question::Commit`].
#[derive(Clone, Debug)]
pub struct Commit {
    /// The group.
    pub group: Arc<str>,
    /// Who commits. A generation of -1 and no id stand for a consumer that does without a group.
    pub member: Member,
    /// How far what has been read.
    pub topics: Vec<TopicCommit>,
}

/// How far the partitions of one topic have been read.
#[derive(Clone, Debug)]
pub struct TopicCommit {
    /// The topic's name.
    pub name: Arc<str>,
    /// Its incarnation, as the asker knows it.
    pub id: TopicId,
    /// Its partitions, and how far each has been read.
    pub partitions: Vec<(i32, Position)>,
}

/// How far a partition has been read, as the client says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// Whatever the client wants to find again.
    pub metadata: Box<str>,
}

/// See [`Question::Offsets`].
#[derive(Clone, Debug)]
pub struct Offsets {
    /// The group.
    pub group: Arc<str>,
    /// Of which topics and partitions; `None` means all that are known.
    pub topics: Option<ByTopic<i32>>,
}

/// See [`Question::DeleteOffsets`].
#[derive(Clone, Debug)]
pub struct DeleteOffsets {
    /// The group.
    pub group: Arc<str>,
    /// Of which topics and partitions.
    pub topics: ByTopic<i32>,
}

/// The answer to a question.
pub type Answer = Result<Outcome, GroupError>;

/// What came of a question.
#[derive(Debug)]
pub enum Outcome {
    /// The next generation has begun.
    Joined(Joined),
    /// One's part.
    Synced(Synced),
    /// For each that was to leave, whether it did.
    Left(Vec<Result<(), GroupError>>),
    /// For each partition, in the order asked.
    Committed(Vec<Result<(), GroupError>>),
    /// Topics and partitions, in the order asked; `None` where nothing was committed.
    Offsets(ByTopic<(i32, Option<Committed>)>),
    /// A group.
    Described(Description),
    /// Groups of one shard.
    Listed(Vec<Listing>),
    /// Done.
    Done,
}

/// See [`Outcome::Joined`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Its number.
    pub generation: i32,
    /// What sort of group it is.
    pub protocol_type: Option<Arc<str>>,
    /// The way to assign that was chosen.
    pub protocol: Option<Arc<str>>,
    /// Who is to assign.
    pub leader: Arc<str>,
    /// Who the asker is.
    pub member_id: Arc<str>,
    /// Whether the leader is to leave the assignment as it is.
    pub skip_assignment: bool,
    /// For the leader: everybody, with what the way to assign wants to know of them.
    pub members: Vec<JoinedMember>,
}

/// A member, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name.
    pub instance_id: Option<Arc<str>>,
    /// What the way to assign wants to know of it.
    pub metadata: Arc<[u8]>,
}

/// See [`Outcome::Synced`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    /// What sort of group it is.
    pub protocol_type: Option<Arc<str>>,
    /// The way to assign that was chosen.
    pub protocol: Option<Arc<str>>,
    /// One's part.
    pub assignment: Arc<[u8]>,
}

/// See [`Outcome::Described`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its state, as Kafka calls it.
    pub state: &'static str,
    /// What sort of group it is; empty if it only keeps offsets.
    pub protocol_type: Arc<str>,
    /// The way to assign; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// Who is in it.
    pub members: Vec<DescribedMember>,
}

/// A member of a [`Description`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name.
    pub instance_id: Option<Arc<str>>,
    /// What its client calls itself.
    pub client_id: Box<str>,
    /// Where it connected from.
    pub client_host: Box<str>,
    /// What the way to assign wants to know of it; empty unless the group is stable.
    pub metadata: Arc<[u8]>,
    /// Its part; empty unless the group is stable.
    pub assignment: Arc<[u8]>,
}

/// See [`Outcome::Listed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Its name.
    pub group: Arc<str>,
    /// What sort of group it is.
    pub protocol_type: Arc<str>,
    /// Its state, as Kafka calls it.
    pub state: &'static str,
}

/// Why a question was not answered as hoped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupError {
    /// What was stored of the group is still being read.
    Loading,
    /// Try again: something is missing that is about to be there, or a limit is reached.
    NotAvailable,
    /// The group does not live on the shard that was asked.
    NotCoordinator,
    /// That generation is over, or yet to come.
    IllegalGeneration,
    /// No way to assign is known to everybody, or the group is of another sort.
    InconsistentProtocol,
    /// No group has this name.
    InvalidGroup,
    /// No such member.
    UnknownMember,
    /// The session timeout is out of range.
    InvalidSessionTimeout,
    /// The next generation is being formed: join it.
    RebalanceInProgress,
    /// A commit, or a member's metadata, is too large.
    TooLarge,
    /// The text that goes with an offset is too long.
    MetadataTooLarge,
    /// The group has members.
    NotEmpty,
    /// There is no such group.
    NotFound,
    /// Come back with this id.
    MemberIdRequired(Arc<str>),
    /// There are too many members.
    Full,
    /// Another instance has taken the lasting name over.
    Fenced,
    /// Members read that topic.
    Subscribed,
    /// There is no such topic, or it is another one by now.
    UnknownTopic,
    /// The request contradicts itself.
    Invalid,
}
