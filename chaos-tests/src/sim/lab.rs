//! What everything in a run shares: its plan, its network, its notes, and the doors by which clients reach nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::id::{GroupId, NodeId, RegionId, SessionId, ShardId};
use model::time::UnixMillis;
use parking_lot::Mutex;
use raft::log_time::ClusterClock;
use raft::service::Service;
use raft::transport::ca::{Authority, ClusterName, Identity, Validity};
use raft::transport::testing::Net;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::{self, BEGIN};
use super::coverage::Coverage;
use super::plan::Plan;
use super::record::Op;
use super::trace::Trace;
use crate::invariants::ledger_exact::Ledger;

/// Nodes that have keys; more than ever join in one run.
const IDENTITIES: u64 = 24;

/// Certificates for all nodes of all runs: making them takes longer than a run may.
#[derive(Debug)]
pub struct Credentials {
    pub(super) authority: Arc<Authority>,
    identities: BTreeMap<NodeId, Identity>,
}

impl Credentials {
    /// New ones.
    ///
    /// # Panics
    /// When keys cannot be made.
    #[must_use]
    pub fn make() -> Arc<Self> {
        let name: ClusterName = "simulation".parse().expect("a cluster's name");
        let now = BEGIN.0 / 1000;
        let authority = Authority::create(name, now).expect("an authority is made");
        let validity = Validity { now, days: 30 };
        let identity = |node| {
            let identity = authority.identity(NodeId(node), validity);
            (NodeId(node), identity.expect("an identity is made"))
        };
        let identities = (1..=IDENTITIES).map(identity).collect();
        Arc::new(Self {
            authority: Arc::new(authority),
            identities,
        })
    }

    pub(super) fn identity(&self, node: NodeId) -> Identity {
        let identity = self.identities.get(&node);
        identity.expect("fewer nodes join than have keys").clone()
    }
}

/// A node as clients see it.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) service: Arc<Service>,
    pub(super) clock: Arc<ClusterClock>,
    /// Cancelled when the node dies: what was asked has no answer then.
    pub(super) dead: CancellationToken,
}

/// What a run shares.
pub(super) struct Lab {
    pub(super) plan: Plan,
    pub(super) credentials: Arc<Credentials>,
    pub(super) trace: Trace,
    pub(super) began: Instant,
    pub(super) net: Net,
    pub(super) doors: Mutex<BTreeMap<NodeId, Door>>,
    pub(super) ops: Mutex<Vec<Op>>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) coverage: Coverage,
    pub(super) tasks: TaskTracker,
}

impl Lab {
    pub(super) fn new(plan: Plan, credentials: Arc<Credentials>, keep: usize) -> Arc<Self> {
        let trace = Trace::new(keep);
        let net = Net::new(plan.seed);
        let notes = trace.clone();
        net.observe(Arc::new(move |from: NodeId, to: NodeId, bytes| {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            notes.note("net", [from.0, to.0, bytes, 0]);
        }));
        net.set_links(plan.link.clone());
        Arc::new(Self {
            plan,
            credentials,
            trace,
            began: Instant::now(),
            net,
            doors: Mutex::default(),
            ops: Mutex::default(),
            ledger: Mutex::default(),
            coverage: Coverage::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// The time that a perfect clock shows.
    pub(super) fn true_time(&self) -> UnixMillis {
        clock::true_time(self.began)
    }
}

/// The region of all runs.
pub(super) fn region() -> RegionId {
    RegionId::new(1).expect("one is a region")
}

/// A shard's group.
pub(super) fn shard(number: u16) -> GroupId {
    GroupId::Shard(region(), ShardId(number))
}

/// The group of a session.
pub(super) fn group_of(session: SessionId, shards: u16) -> GroupId {
    model::placement::group_of(session, shards)
}
