//! Kafka's error codes, as far as this broker answers them, and what each of the engine's refusals means to a client.
//! Source: Kafka's documentation, "Error Codes".

use millstream_engine::error::Refusal;

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
    /// No topic can have this name.
    InvalidTopic = 17,
    /// `acks` is none of -1, 0, 1.
    InvalidRequiredAcks = 21,
    /// The version of this API is not served.
    UnsupportedVersion = 35,
    /// The topic exists.
    TopicAlreadyExists = 36,
    /// The number of partitions is out of range.
    InvalidPartitions = 37,
    /// A setting is out of range.
    InvalidConfig = 40,
    /// The request contradicts itself.
    InvalidRequest = 42,
    /// A sequence is missing before this one.
    OutOfOrderSequenceNumber = 45,
    /// Stored before.
    DuplicateSequenceNumber = 46,
    /// The producer has been replaced by a newer one.
    InvalidProducerEpoch = 47,
    /// There is no such transaction.
    InvalidTxnState = 48,
    /// The disk, or the shard, does not store.
    KafkaStorageError = 56,
    /// There is no such fetch session.
    FetchSessionIdNotFound = 70,
    /// The client knows an older leader.
    FencedLeaderEpoch = 74,
    /// The client knows a newer leader than we do.
    UnknownLeaderEpoch = 75,
    /// This version of the API does not carry this compression.
    UnsupportedCompressionType = 76,
    /// The records may not be stored.
    InvalidRecord = 87,
    /// No topic with this id.
    UnknownTopicId = 100,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }
}

impl From<&Refusal> for ErrorCode {
    fn from(refusal: &Refusal) -> ErrorCode {
        match refusal {
            Refusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Refusal::UnknownTopic(_) => ErrorCode::UnknownTopicId,
            Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
            Refusal::InvalidTopicName => ErrorCode::InvalidTopic,
            Refusal::InvalidPartitions => ErrorCode::InvalidPartitions,
            Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
            // Consumers give up on it with a clear message; any other code for damage on disk makes them retry for ever.
            Refusal::CorruptBatch(_) | Refusal::CorruptData => ErrorCode::CorruptMessage,
            Refusal::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
            Refusal::InvalidRecord(_) => ErrorCode::InvalidRecord,
            Refusal::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            Refusal::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            Refusal::DuplicateSequence => ErrorCode::DuplicateSequenceNumber,
            Refusal::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Refusal::DiskFull | Refusal::Poisoned | Refusal::ReadFailed => ErrorCode::KafkaStorageError,
            // Every client retries this one after a pause, which is what helps.
            Refusal::Busy => ErrorCode::RequestTimedOut,
        }
    }
}
