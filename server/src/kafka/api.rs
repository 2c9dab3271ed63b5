//! The one table of APIs. What is advertised, how a request's form is found and who reads it all come from here.

use std::ops::RangeInclusive;

use millstream_engine::buffer::Slice;

use super::admin::{self, work};
use super::codec::{Malformed, Reader};
use super::{Context, Done, Work, api_versions, fetch, groups, list_offsets, metadata, produce};

/// An API.
#[derive(Debug)]
pub struct Api {
    /// Its key on the wire.
    pub key: i16,
    /// Its name in Kafka's documentation.
    pub name: &'static str,
    /// What is advertised.
    pub versions: RangeInclusive<i16>,
    /// The first version that is served. Older ones are read and refused, each partition by itself.
    pub served_from: i16,
    /// The first version in the flexible form.
    pub flexible_from: i16,
    /// Reads a request's body, of any version from 0 to the last one advertised.
    pub(super) read: fn(&Slice, Reader<'_>, i16) -> Result<Work, Malformed>,
    /// Answers versions that are not known yet, where the answer's form is known all the same.
    pub(super) too_new: Option<Ready>,
}

impl Api {
    /// Whether a version is of the flexible form.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

/// A request whose answer needs nothing from the engine.
#[derive(Clone, Copy, Debug)]
pub enum Ready {
    /// The table of APIs.
    ApiVersions,
    /// `ApiVersions` from a client whose name cannot be.
    InvalidClient,
    /// The table of APIs for a client that is too new: in the oldest form.
    ApiVersionsTooNew,
    /// A fetch in a version that is too new.
    FetchTooNew,
    /// A metadata request in a version that is too new.
    MetadataTooNew,
}

impl Ready {
    /// The answer.
    pub fn answer(self, context: &Context<'_>) -> Done {
        match self {
            Ready::ApiVersions => api_versions::answer(context),
            Ready::InvalidClient => api_versions::answer_invalid_client(context),
            Ready::ApiVersionsTooNew => api_versions::answer_too_new(context),
            Ready::FetchTooNew => fetch::answer_too_new(context),
            Ready::MetadataTooNew => metadata::answer_too_new(context),
        }
    }
}

/// Every API that is served, by key.
pub static APIS: &[Api] = &[
    Api {
        key: 0,
        name: "Produce",
        // Older clients of librdkafka switch compression off unless version 0 is advertised (KAFKA-18659).
        versions: 0..=9,
        served_from: 3,
        flexible_from: 9,
        read: |frame, reader, version| produce::Produce::read(frame, reader, version).map(Work::Produce),
        too_new: None,
    },
    Api {
        key: 1,
        name: "Fetch",
        versions: 4..=12,
        served_from: 4,
        flexible_from: 12,
        read: |_, reader, version| fetch::Fetch::read(reader, version).map(Work::Fetch),
        too_new: Some(Ready::FetchTooNew),
    },
    Api {
        key: 2,
        name: "ListOffsets",
        versions: 1..=10,
        served_from: 1,
        flexible_from: 6,
        read: |_, reader, version| list_offsets::ListOffsets::read(reader, version).map(Work::ListOffsets),
        too_new: None,
    },
    Api {
        key: 3,
        name: "Metadata",
        versions: 0..=12,
        served_from: 0,
        flexible_from: 9,
        read: |_, reader, version| metadata::MetadataRequest::read(reader, version).map(Work::Metadata),
        too_new: Some(Ready::MetadataTooNew),
    },
    Api {
        key: 8,
        name: "OffsetCommit",
        versions: 2..=8,
        served_from: 2,
        flexible_from: 8,
        read: |_, reader, version| groups::OffsetCommit::read(reader, version),
        too_new: None,
    },
    Api {
        key: 9,
        name: "OffsetFetch",
        versions: 1..=8,
        served_from: 1,
        flexible_from: 6,
        read: |_, reader, version| groups::OffsetFetch::read(reader, version),
        too_new: None,
    },
    Api {
        key: 10,
        name: "FindCoordinator",
        versions: 0..=4,
        served_from: 0,
        flexible_from: 3,
        read: |_, reader, version| groups::FindCoordinator::read(reader, version).map(Work::FindCoordinator),
        too_new: None,
    },
    Api {
        key: 11,
        name: "JoinGroup",
        // Older clients of librdkafka switch GSSAPI off unless version 0 is advertised (KAFKA-19444).
        versions: 0..=9,
        served_from: 0,
        flexible_from: 6,
        read: groups::JoinGroup::read,
        too_new: None,
    },
    Api {
        key: 12,
        name: "Heartbeat",
        versions: 0..=4,
        served_from: 0,
        flexible_from: 4,
        read: |_, reader, version| groups::Heartbeat::read(reader, version),
        too_new: None,
    },
    Api {
        key: 13,
        name: "LeaveGroup",
        versions: 0..=5,
        served_from: 0,
        flexible_from: 4,
        read: |_, reader, version| groups::LeaveGroup::read(reader, version),
        too_new: None,
    },
    Api {
        key: 14,
        name: "SyncGroup",
        versions: 0..=5,
        served_from: 0,
        flexible_from: 4,
        read: groups::SyncGroup::read,
        too_new: None,
    },
    Api {
        key: 15,
        name: "DescribeGroups",
        versions: 0..=5,
        served_from: 0,
        flexible_from: 5,
        read: |_, reader, version| groups::DescribeGroups::read(reader, version),
        too_new: None,
    },
    Api {
        key: 16,
        name: "ListGroups",
        versions: 0..=4,
        served_from: 0,
        flexible_from: 3,
        read: |_, reader, version| groups::ListGroups::read(reader, version),
        too_new: None,
    },
    Api {
        key: 18,
        name: "ApiVersions",
        versions: 0..=4,
        served_from: 0,
        flexible_from: 3,
        read: |_, reader, version| api_versions::read(reader, version).map(Work::Ready),
        too_new: Some(Ready::ApiVersionsTooNew),
    },
    Api {
        key: 19,
        name: "CreateTopics",
        versions: 2..=7,
        served_from: 2,
        flexible_from: 5,
        read: |_, reader, version| admin::create_topics::CreateTopics::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 20,
        name: "DeleteTopics",
        versions: 1..=6,
        served_from: 1,
        flexible_from: 4,
        read: |_, reader, version| admin::delete_topics::DeleteTopics::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 21,
        name: "DeleteRecords",
        versions: 0..=2,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, version| admin::delete_records::DeleteRecords::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 22,
        name: "InitProducerId",
        versions: 0..=4,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, version| admin::init_producer_id::InitProducerId::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 23,
        name: "OffsetForLeaderEpoch",
        versions: 2..=4,
        served_from: 2,
        flexible_from: 4,
        read: |_, reader, version| {
            admin::offset_for_leader_epoch::OffsetForLeaderEpoch::read(reader, version).map(work)
        },
        too_new: None,
    },
    Api {
        key: 32,
        name: "DescribeConfigs",
        versions: 1..=4,
        served_from: 1,
        flexible_from: 4,
        read: |_, reader, version| admin::describe_configs::DescribeConfigs::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 33,
        name: "AlterConfigs",
        versions: 0..=2,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, version| admin::alter_configs::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 35,
        name: "DescribeLogDirs",
        versions: 1..=4,
        served_from: 1,
        flexible_from: 2,
        read: |_, reader, version| admin::describe_log_dirs::DescribeLogDirs::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 37,
        name: "CreatePartitions",
        versions: 0..=3,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, version| {
            admin::create_partitions::CreatePartitions::read(reader, version).map(work)
        },
        too_new: None,
    },
    Api {
        key: 42,
        name: "DeleteGroups",
        versions: 0..=2,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, _| groups::DeleteGroups::read(reader),
        too_new: None,
    },
    Api {
        key: 43,
        name: "ElectLeaders",
        versions: 0..=2,
        served_from: 0,
        flexible_from: 2,
        read: |_, reader, version| admin::elect_leaders::ElectLeaders::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 44,
        name: "IncrementalAlterConfigs",
        versions: 0..=1,
        served_from: 0,
        flexible_from: 1,
        read: |_, reader, version| admin::incremental_alter_configs::read(reader, version).map(work),
        too_new: None,
    },
    Api {
        key: 46,
        name: "ListPartitionReassignments",
        versions: 0..=0,
        served_from: 0,
        flexible_from: 0,
        read: |_, reader, version| {
            admin::list_partition_reassignments::ListPartitionReassignments::read(reader, version).map(work)
        },
        too_new: None,
    },
    Api {
        key: 47,
        name: "OffsetDelete",
        versions: 0..=0,
        served_from: 0,
        // It has no flexible version.
        flexible_from: i16::MAX,
        read: |_, reader, _| groups::OffsetDelete::read(reader),
        too_new: None,
    },
    Api {
        key: 60,
        name: "DescribeCluster",
        versions: 0..=1,
        served_from: 0,
        flexible_from: 0,
        read: |_, reader, version| admin::describe_cluster::DescribeCluster::read(reader, version).map(work),
        too_new: None,
    },
];

/// The API with that key.
pub(super) fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key == key)
}

/// Its place in the table.
pub(super) fn place(key: i16) -> Option<usize> {
    APIS.iter().position(|api| api.key == key)
}

/// Whether a version of an API is served, not only advertised.
pub(super) fn is_served(context: &Context<'_>) -> bool {
    find(context.header.api_key).is_some_and(|api| context.header.version >= api.served_from)
}
