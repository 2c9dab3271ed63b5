//! Kafka's error codes, as far as this broker answers them, and what each of the engine's refusals means to a client.
//! Source: Kafka's documentation, "Error Codes".

use std::borrow::Cow;

use millstream_engine::error::Refusal;

use crate::coordinator::GroupError;

/// What a client is told. The value is the code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(i16)]
pub enum ErrorCode {
    /// All is well.
    #[default]
    None = 0,
    /// The offset lies outside the log.
    OffsetOutOfRange = 1,
    /// The bytes fail their checksum.
    CorruptMessage = 2,
    /// No such topic or partition here.
    UnknownTopicOrPartition = 3,
    /// Not led yet; ask again.
    LeaderNotAvailable = 5,
    /// Not done in time; try again.
    RequestTimedOut = 7,
    /// The batch is larger than the topic allows.
    MessageTooLarge = 10,
    /// The text that goes with an offset is too long.
    OffsetMetadataTooLarge = 12,
    /// The coordinator is still reading what it has stored.
    CoordinatorLoadInProgress = 14,
    /// There is no coordinator now; ask again.
    CoordinatorNotAvailable = 15,
    /// The group has another coordinator.
    NotCoordinator = 16,
    /// No topic can have this name.
    InvalidTopic = 17,
    /// `acks` is none of -1, 0, 1.
    InvalidRequiredAcks = 21,
    /// That generation of the group is over.
    IllegalGeneration = 22,
    /// No way to assign is known to all members.
    InconsistentGroupProtocol = 23,
    /// No group can have this name.
    InvalidGroupId = 24,
    /// The group has no such member.
    UnknownMemberId = 25,
    /// The session timeout is out of range.
    InvalidSessionTimeout = 26,
    /// The group forms its next generation; join it.
    RebalanceInProgress = 27,
    /// The offsets to be stored are too large.
    InvalidCommitOffsetSize = 28,
    /// A client's timestamp is too far from the broker's clock.
    InvalidTimestamp = 32,
    /// The version of this API is not served.
    UnsupportedVersion = 35,
    /// The topic exists.
    TopicAlreadyExists = 36,
    /// The number of partitions is out of range.
    InvalidPartitions = 37,
    /// There are not as many nodes as copies were asked for.
    InvalidReplicationFactor = 38,
    /// A partition cannot be placed where it was asked for.
    InvalidReplicaAssignment = 39,
    /// A setting is out of range.
    InvalidConfig = 40,
    /// The request contradicts itself.
    InvalidRequest = 42,
    /// The topic's settings forbid it.
    PolicyViolation = 44,
    /// A sequence is missing before this one.
    OutOfOrderSequenceNumber = 45,
    /// Stored before.
    DuplicateSequenceNumber = 46,
    /// The producer has been replaced by a newer one.
    InvalidProducerEpoch = 47,
    /// There is no such transaction.
    InvalidTxnState = 48,
    /// The client may not use this transactional id.
    TransactionalIdAuthorizationFailed = 53,
    /// The disk, or the shard, does not store.
    KafkaStorageError = 56,
    /// The group has members.
    NonEmptyGroup = 68,
    /// There is no such group.
    GroupIdNotFound = 69,
    /// There is no such fetch session.
    FetchSessionIdNotFound = 70,
    /// The client knows an older leader.
    FencedLeaderEpoch = 74,
    /// The client knows a newer leader than we do.
    UnknownLeaderEpoch = 75,
    /// This version of the API does not carry this compression.
    UnsupportedCompressionType = 76,
    /// Join again with the id that is given here.
    MemberIdRequired = 79,
    /// The group has as many members as it may have.
    GroupMaxSizeReached = 81,
    /// Another instance has taken this one's name over.
    FencedInstanceId = 82,
    /// The partition is led by whom it should be.
    ElectionNotNeeded = 84,
    /// Members of the group read the topic.
    GroupSubscribedToTopic = 86,
    /// The records may not be stored.
    InvalidRecord = 87,
    /// No topic with this id.
    UnknownTopicId = 100,
    /// The other sort of endpoint was asked for than this one is.
    MismatchedEndpointType = 114,
    /// There is no such sort of endpoint.
    UnsupportedEndpointType = 115,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }
}

/// Why a part of a request was not done, in a code for the client and in words for its user.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the client acts on.
    pub error: ErrorCode,
    /// What its user reads.
    pub message: Cow<'static, str>,
}

impl Failure {
    /// A code and its explanation.
    pub fn new(error: ErrorCode, message: impl Into<Cow<'static, str>>) -> Failure {
        Failure { error, message: message.into() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(ErrorCode::from(&refusal), refusal.to_string())
    }
}

impl From<&Refusal> for ErrorCode {
    fn from(refusal: &Refusal) -> ErrorCode {
        match refusal {
            Refusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Refusal::UnknownTopic(_) => ErrorCode::UnknownTopicId,
            Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
            Refusal::InvalidTopicName => ErrorCode::InvalidTopic,
            Refusal::InvalidPartitions | Refusal::TooManyPartitions => ErrorCode::InvalidPartitions,
            Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
            // Consumers give up on it with a clear message; any other code for damage on disk makes them retry for ever.
            Refusal::CorruptBatch(_) | Refusal::CorruptData => ErrorCode::CorruptMessage,
            Refusal::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
            Refusal::InvalidTimestamp => ErrorCode::InvalidTimestamp,
            Refusal::InvalidRecord(_) => ErrorCode::InvalidRecord,
            Refusal::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            Refusal::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            Refusal::DuplicateSequence => ErrorCode::DuplicateSequenceNumber,
            Refusal::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Refusal::DiskFull | Refusal::Poisoned | Refusal::ReadFailed => ErrorCode::KafkaStorageError,
            // No request of this protocol is refused so: they are about queues.
            Refusal::UnknownQueue
            | Refusal::QueueExists(_)
            | Refusal::InvalidQueue(_)
            | Refusal::TooManyQueues
            | Refusal::QueueFull
            | Refusal::QueueInUse
            | Refusal::QueueNotEmpty
            | Refusal::UnknownConsumer
            | Refusal::ConsumerExists
            | Refusal::MessageTooLarge { .. }
            | Refusal::Conflict
            | Refusal::Unsupported => ErrorCode::InvalidRequest,
            // Every client retries this one after a pause, which is what helps.
            Refusal::Busy => ErrorCode::RequestTimedOut,
        }
    }
}

impl From<&GroupError> for ErrorCode {
    fn from(error: &GroupError) -> ErrorCode {
        match error {
            GroupError::Loading => ErrorCode::CoordinatorLoadInProgress,
            GroupError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::InvalidGroup => ErrorCode::InvalidGroupId,
            GroupError::UnknownMember => ErrorCode::UnknownMemberId,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::TooLarge => ErrorCode::InvalidCommitOffsetSize,
            GroupError::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            GroupError::NotEmpty => ErrorCode::NonEmptyGroup,
            GroupError::NotFound => ErrorCode::GroupIdNotFound,
            GroupError::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
            GroupError::Full => ErrorCode::GroupMaxSizeReached,
            GroupError::Fenced => ErrorCode::FencedInstanceId,
            GroupError::Subscribed => ErrorCode::GroupSubscribedToTopic,
            GroupError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            GroupError::Invalid => ErrorCode::InvalidRequest,
        }
    }
}
