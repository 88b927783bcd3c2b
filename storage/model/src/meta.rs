//! The meta group's state machine: regions, nodes, shard map and join tokens. Small, whole in one value, off every
//! data path.
//!
//! A node's id is given out here and never again (`design.md`, section 7). A command that does not fit the state is
//! refused with a reason and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::codec;
use crate::id::{GroupId, NodeId, RegionId, RequestId};
use crate::placement;
use crate::state::{Key, StateError, StateRead, StateWrite};
use crate::time::UnixMillis;

/// How many admissions are remembered, so that a retried one gets the same node id.
const MAX_ADMISSIONS: usize = 64;
/// How many join tokens may be valid at a time.
const MAX_TOKENS: usize = 64;

/// One entry of the meta group's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MetaEntry {
    /// The behavior version under which the commands are applied.
    pub behavior: u16,
    /// The leader's log time.
    pub log_time: UnixMillis,
    /// Applied in order.
    pub commands: Vec<MetaCommand>,
}

/// Where a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeAddress {
    /// QUIC between nodes, `host:port`.
    pub peer: String,
    /// The gateway, as a whole URL.
    pub http: String,
    /// The admin listener, as a whole URL.
    pub admin: String,
    /// The failure domain.
    pub zone: String,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodePhase {
    /// Admitted; takes replicas.
    Active,
    /// Gives its replicas away, then goes.
    Leaving,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// Its region.
    pub region: RegionId,
    /// Where it is reached.
    pub address: NodeAddress,
    /// Where it is in its life.
    pub phase: NodePhase,
}

/// A region and the number of its shards, which never changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RegionRecord {
    /// For people.
    pub name: String,
    /// How many shards its slots are divided into.
    pub shards: u16,
}

/// All that the meta group knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct MetaState {
    /// Random, made with the cluster; all zero before bootstrap.
    pub cluster: [u8; 16],
    /// Never goes back.
    pub log_time: UnixMillis,
    /// The next node id to give out.
    pub next_node: u64,
    /// The regions.
    pub regions: BTreeMap<RegionId, RegionRecord>,
    /// The nodes that belong to the cluster.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Ids that belonged to the cluster. They are refused for good.
    pub removed: BTreeSet<NodeId>,
    /// The replicas that each group should have.
    pub replicas: BTreeMap<GroupId, Vec<NodeId>>,
    /// Hashes of valid join tokens, and when they end.
    pub tokens: BTreeMap<[u8; 32], UnixMillis>,
    /// The newest admissions, by request, oldest first.
    pub admissions: Vec<(RequestId, NodeId)>,
}

/// One change of the meta group's state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MetaCommand {
    /// The first command of a cluster: its first region and nodes.
    Bootstrap {
        /// Random.
        cluster: [u8; 16],
        /// The first region's number.
        region: RegionId,
        /// The first region.
        record: RegionRecord,
        /// Its first nodes, which hold every group.
        nodes: Vec<(NodeId, NodeAddress)>,
    },
    /// Makes a join token valid.
    AddToken {
        /// Hash of the token.
        hash: [u8; 32],
        /// When it ends, in log time.
        until: UnixMillis,
    },
    /// Gives a new node its id. The token is used up.
    Admit {
        /// The same for every retry.
        request: RequestId,
        /// Hash of the token that it showed.
        token: [u8; 32],
        /// The region it will serve.
        region: RegionId,
        /// Where it is reached.
        address: NodeAddress,
        /// The node whose place it takes: one with a lost or refused disk.
        replaces: Option<NodeId>,
    },
    /// A node is reached elsewhere from now on.
    Readdress {
        /// The node.
        node: NodeId,
        /// Where.
        address: NodeAddress,
    },
    /// A node gives its replicas away, then goes.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// The replicas that a group should have from now on.
    Place {
        /// The group.
        group: GroupId,
        /// Its replicas.
        replicas: Vec<NodeId>,
    },
    /// A node that has no replica left is gone, and its id with it.
    Remove {
        /// The node.
        node: NodeId,
    },
}

/// What became of a meta command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MetaOutcome {
    /// Carried out.
    Done,
    /// The node has this id.
    Admitted(NodeId),
    /// Nothing was changed, for this reason.
    Refused(String),
}

impl MetaState {
    /// The meta group's state; empty before bootstrap.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn load(state: &impl StateRead) -> Result<Self, StateError> {
        Ok(state
            .get(&Key::Meta)?
            .map(|bytes| codec::decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }

    /// Whether a cluster was made.
    #[must_use]
    pub fn is_bootstrapped(&self) -> bool {
        !self.regions.is_empty()
    }
}

/// Applies one entry; one outcome for each command.
///
/// # Errors
/// Only when the state cannot be read.
pub fn apply(
    state: &mut impl StateWrite,
    entry: &MetaEntry,
) -> Result<Vec<MetaOutcome>, StateError> {
    let mut meta = MetaState::load(state)?;
    meta.log_time = meta.log_time.max(entry.log_time);
    let outcomes = entry
        .commands
        .iter()
        .map(|command| match meta.change(command) {
            Ok(outcome) => outcome,
            Err(reason) => MetaOutcome::Refused(reason.to_owned()),
        })
        .collect();
    state.put(Key::Meta, codec::encode(&meta));
    Ok(outcomes)
}

impl MetaState {
    fn change(&mut self, command: &MetaCommand) -> Result<MetaOutcome, &'static str> {
        match command {
            MetaCommand::Bootstrap {
                cluster,
                region,
                record,
                nodes,
            } => self.bootstrap(*cluster, *region, record, nodes),
            MetaCommand::AddToken { hash, until } => self.add_token(*hash, *until),
            MetaCommand::Admit {
                request,
                token,
                region,
                address,
                replaces,
            } => {
                if let Some((_, node)) = self.admissions.iter().find(|(id, _)| id == request) {
                    return Ok(MetaOutcome::Admitted(*node));
                }
                let node = self.admit(token, *region, address, *replaces)?;
                self.admissions.push((*request, node));
                if self.admissions.len() > MAX_ADMISSIONS {
                    self.admissions.remove(0);
                }
                Ok(MetaOutcome::Admitted(node))
            }
            MetaCommand::Readdress { node, address } => {
                self.node(*node)?.address = address.clone();
                Ok(MetaOutcome::Done)
            }
            MetaCommand::Leave { node } => {
                self.node(*node)?.phase = NodePhase::Leaving;
                Ok(MetaOutcome::Done)
            }
            MetaCommand::Place { group, replicas } => {
                if replicas.is_empty() || replicas.iter().any(|node| !self.nodes.contains_key(node))
                {
                    return Err("a replica's node does not belong to the cluster");
                }
                self.replicas.insert(*group, replicas.clone());
                Ok(MetaOutcome::Done)
            }
            MetaCommand::Remove { node } => {
                if self
                    .replicas
                    .values()
                    .any(|replicas| replicas.contains(node))
                {
                    return Err("the node still has replicas");
                }
                self.nodes.remove(node).ok_or("no such node")?;
                self.removed.insert(*node);
                Ok(MetaOutcome::Done)
            }
        }
    }

    fn bootstrap(
        &mut self,
        cluster: [u8; 16],
        region: RegionId,
        record: &RegionRecord,
        nodes: &[(NodeId, NodeAddress)],
    ) -> Result<MetaOutcome, &'static str> {
        if self.is_bootstrapped() {
            return if self.cluster == cluster {
                Ok(MetaOutcome::Done)
            } else {
                Err("another cluster was made here")
            };
        }
        if record.shards == 0 || nodes.is_empty() {
            return Err("a region has at least one shard and one node");
        }
        self.cluster = cluster;
        self.next_node = nodes
            .iter()
            .map(|(node, _)| node.0)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let ids: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        for (node, address) in nodes {
            let phase = NodePhase::Active;
            self.nodes.insert(
                *node,
                NodeRecord {
                    region,
                    address: address.clone(),
                    phase,
                },
            );
        }
        self.replicas.insert(GroupId::Meta, ids.clone());
        for group in placement::groups(region, record.shards) {
            self.replicas.insert(group, ids.clone());
        }
        self.regions.insert(region, record.clone());
        Ok(MetaOutcome::Done)
    }

    fn add_token(
        &mut self,
        hash: [u8; 32],
        until: UnixMillis,
    ) -> Result<MetaOutcome, &'static str> {
        let now = self.log_time;
        self.tokens.retain(|_, end| *end > now);
        if self.tokens.len() >= MAX_TOKENS {
            return Err("too many join tokens are valid");
        }
        self.tokens.insert(hash, until);
        Ok(MetaOutcome::Done)
    }

    fn admit(
        &mut self,
        token: &[u8; 32],
        region: RegionId,
        address: &NodeAddress,
        replaces: Option<NodeId>,
    ) -> Result<NodeId, &'static str> {
        if !self.regions.contains_key(&region) {
            return Err("no such region");
        }
        let end = self
            .tokens
            .get(token)
            .copied()
            .ok_or("the join token is not valid")?;
        if end <= self.log_time {
            return Err("the join token has expired");
        }
        if let Some(old) = replaces {
            self.node(old)?.phase = NodePhase::Leaving;
        }
        self.tokens.remove(token);
        let node = NodeId(self.next_node);
        self.next_node = self.next_node.saturating_add(1);
        let phase = NodePhase::Active;
        self.nodes.insert(
            node,
            NodeRecord {
                region,
                address: address.clone(),
                phase,
            },
        );
        Ok(node)
    }

    fn node(&mut self, node: NodeId) -> Result<&mut NodeRecord, &'static str> {
        self.nodes.get_mut(&node).ok_or("no such node")
    }
}
