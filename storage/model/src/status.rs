//! What `GET /admin/v1/cluster` says: the published schema, filled in by `raft` and shown by `pspd cluster status`; and what
//! `GET /admin/v1/hashes` says.
//!
//! All of it is one node's view. Fields are only added, never renamed.

use serde::{Deserialize, Serialize};

/// The cluster, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's random id, in hex.
    pub cluster: String,
    /// The node that answers.
    pub node: u64,
    /// Its region.
    pub region: u16,
    /// Shards of the region.
    pub shards: u16,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeStatus>,
    /// The groups, the meta group first.
    pub groups: Vec<GroupStatus>,
}

/// A node, as another sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: u64,
    /// Where other nodes reach it.
    pub peer: String,
    /// Its gateway's URL.
    pub http: String,
    /// Its admin listener's URL.
    pub admin: String,
    /// Its failure domain.
    pub zone: String,
    /// `active` or `leaving`.
    pub phase: String,
    /// Whether the node that answers has a connection to it.
    pub reachable: bool,
    /// Round trip to it in microseconds, if known.
    pub rtt_micros: Option<u64>,
    /// How many groups it leads, as far as the node that answers knows.
    pub leads: u64,
}

/// A group, as one replica or a bystander sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// `meta`, or region and shard as in `r1-s0`.
    pub group: String,
    /// The node that leads it.
    pub leader: Option<u64>,
    /// The Raft term.
    pub term: u64,
    /// The newest index in this replica's log.
    pub last_index: u64,
    /// The newest index known to be committed.
    pub committed_index: u64,
    /// The newest index applied here.
    pub applied_index: u64,
    /// The newest index that a snapshot here has.
    pub snapshot_index: u64,
    /// Bytes of log kept here.
    pub log_bytes: u64,
    /// The group's replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// A replica of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its node.
    pub node: u64,
    /// `voter` or `learner`.
    pub role: String,
    /// The newest index that it has, if the node that answers leads the group.
    pub matched_index: Option<u64>,
    /// How many entries it is behind the leader's log, if the node that answers leads the group.
    pub lag: Option<u64>,
}

/// What the replicas on one node hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHashes {
    /// The node that answers.
    pub node: u64,
    /// Its replicas, the meta group's first.
    pub groups: Vec<StateHash>,
}

/// What one replica holds: replicas of a group with the same applied index have the same hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// `meta`, or region and shard as in `r1-s0`.
    pub group: String,
    /// The index that was applied last when the state was looked at.
    pub applied_index: u64,
    /// A hash of all replicated state, in hex; none when it could not be read, or not in time.
    pub hash: Option<String>,
    /// How many keys it covers.
    pub keys: u64,
    /// Why there is no hash.
    pub error: Option<String>,
}
