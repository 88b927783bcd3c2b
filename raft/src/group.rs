//! A shard's group and the meta group, as the rest of the crate uses them: propose, and read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::id::{GroupId, NodeId};
use model::meta::{MetaCommand, MetaOutcome, MetaState};
use model::shard::{Command, Outcome, ShardHead, next_due};
use model::state::StateRead;
use model::time::UnixMillis;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::host::Space;
use crate::log_time::LeaderTime;
use crate::machine::Seen;
use crate::proposer::{Kind, MetaKind, Proposer, ShardKind};
use crate::reads::PeerReads;
use crate::replica::{NoIndex, Replica};
use crate::shard::{BarrierError, Closed, ProposeError, ShardGroup};
use crate::watch;

/// How long to wait before asking again when nobody leads.
const AGAIN: Duration = Duration::from_millis(10);

/// How far the leader's log time may be ahead of the clocks that a follower knows: what they may be off, and what a probe and a
/// slew cannot see.
const FOLLOWER_SPREAD: Duration = Duration::from_secs(1);

/// A replica of a shard's group.
pub(crate) struct ShardReplica {
    pub(crate) replica: Arc<Replica>,
    pub(crate) proposer: Proposer<ShardKind>,
    pub(crate) reads: Arc<PeerReads>,
    pub(crate) space: Arc<Space>,
}

impl ShardReplica {
    /// Proposes a sweep when something is due. Only does anything on the leader.
    pub(crate) async fn sweep(&self) {
        let due = || next_due(&Seen(self.replica.parts.store.current().view()));
        while let Some(now) = self.replica.time.next()
            && self.replica.role().ready
        {
            match due() {
                Ok(Some(at)) if at <= now => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(group = %self.id(), %error, "due items cannot be read");
                    return;
                }
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            match self.proposer.propose(Some(Command::Sweep), deadline).await {
                Ok(Some(Outcome::Done { swept })) if swept > 0 => {}
                _ => return,
            }
        }
    }
}

#[async_trait]
impl ShardGroup for ShardReplica {
    fn id(&self) -> GroupId {
        self.replica.parts.group
    }

    fn is_leader(&self) -> bool {
        self.replica.leads()
    }

    fn leader(&self) -> Option<NodeId> {
        self.replica.role().leader
    }

    async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        if !self.is_leader() {
            let leader = self
                .leader()
                .filter(|leader| *leader != self.replica.parts.me);
            return Err(ProposeError::NotLeader { leader });
        }
        let log = &self.replica.parts.log;
        let frees = matches!(command, Command::Delete { .. } | Command::Sweep);
        let me = self.replica.parts.me;
        let refuses = || self.space.refuses(me, || self.replica.voters());
        if !frees && (log.no_room() || refuses()) {
            return Err(ProposeError::DiskFull);
        }
        // Held until it is durable, or was not appended.
        let weight = ShardKind::weight(&command);
        let _admission = log.admit(weight).ok_or(ProposeError::DiskFull)?;
        let outcome = self.proposer.propose(Some(command), deadline).await?;
        // An entry without as many outcomes as commands was not ours.
        outcome.ok_or(ProposeError::Unknown)
    }

    async fn barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        barrier(&self.replica, &self.reads, Instant::now() + timeout).await
    }

    fn view(&self) -> Result<Arc<dyn StateRead + Send + Sync>, Closed> {
        let view = self.replica.parts.store.current().view();
        // After it is taken: while the replica is open nobody else puts a state into its store.
        match self.replica.is_closed() {
            false => Ok(view),
            true => Err(Closed),
        }
    }

    fn log_time(&self) -> UnixMillis {
        let next = self
            .replica
            .role()
            .ready
            .then(|| self.replica.time.next())
            .flatten();
        next.unwrap_or_else(|| self.replica.parts.progress.log_time())
    }

    fn time_of(&self, at: UnixMillis) -> LeaderTime {
        let (replica, clocks) = (&self.replica, &self.replica.parts.clocks);
        if self.is_leader() {
            return replica.time.of(at, || clocks.latest(&replica.voters()));
        }
        let now = clocks.trusted(&replica.voters());
        match now.is_some_and(|now| now.plus(FOLLOWER_SPREAD) < at) {
            true => LeaderTime::ToCome,
            false => LeaderTime::Unclear,
        }
    }

    async fn advance(&self, at: UnixMillis, deadline: Instant) -> Result<(), ProposeError> {
        let applied = || {
            let view = self
                .view()
                .map_err(|_closed| ProposeError::NotLeader { leader: None })?;
            let head = ShardHead::load(&Seen(view));
            head.map(|head| head.log_time)
                .map_err(|_unreadable| ProposeError::Busy)
        };
        while applied()? < at {
            let leader = self
                .leader()
                .filter(|leader| *leader != self.replica.parts.me);
            let Some(now) = self.replica.time.next().filter(|_| self.is_leader()) else {
                return Err(ProposeError::NotLeader { leader });
            };
            if now < at {
                let reached = Instant::now() + at.since(now);
                if reached > deadline {
                    return Err(ProposeError::Busy);
                }
                sleep_until(reached).await;
            } else {
                self.proposer.propose(None, deadline).await?;
            }
        }
        Ok(())
    }

    fn staleness(&self) -> Option<Duration> {
        self.replica.staleness()
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.replica.parts.progress.index()
    }
}

/// Returns when the replica shows every write that was acknowledged before the call.
pub(crate) async fn barrier(
    replica: &Arc<Replica>,
    reads: &Arc<PeerReads>,
    deadline: Instant,
) -> Result<(), BarrierError> {
    let leased = replica.leased_index();
    if leased.is_some_and(|index| replica.has_applied(index)) {
        return Ok(());
    }
    let mut roles = replica.roles();
    loop {
        let asked = timeout_at(deadline, point(replica, reads)).await;
        match asked {
            Err(_late) => return Err(BarrierError::NoQuorum),
            Ok(Err(NoIndex::Stopped)) => return Err(BarrierError::NotReady),
            Ok(Err(NoIndex::NotLeader | NoIndex::NoQuorum)) => {}
            Ok(Ok(index)) => {
                let applied = replica.wait_applied(index, deadline).await;
                return if applied {
                    Ok(())
                } else {
                    Err(BarrierError::NotReady)
                };
            }
        }
        // Another may lead soon.
        let again = (Instant::now() + AGAIN).min(deadline);
        tokio::select! {
            biased;
            changed = roles.changed() => if changed.is_err() { return Err(BarrierError::NotReady) },
            () = sleep_until(again) => {}
        }
        if Instant::now() >= deadline {
            return Err(BarrierError::NoQuorum);
        }
    }
}

async fn point(replica: &Arc<Replica>, reads: &Arc<PeerReads>) -> Result<u64, NoIndex> {
    match replica.role().leader {
        None => Err(NoIndex::NotLeader),
        Some(leader) if leader == replica.parts.me => replica.read_index().await,
        Some(leader) => {
            let point = reads
                .ask(leader, replica.parts.group)
                .await
                .ok_or(NoIndex::NotLeader)?;
            replica.probed(point.sent, point.index);
            Ok(point.index)
        }
    }
}

/// A replica of the meta group.
pub(crate) struct MetaReplica {
    pub(crate) replica: Arc<Replica>,
    pub(crate) proposer: Proposer<MetaKind>,
}

impl MetaReplica {
    /// Proposes a change and returns what came of it. Only on the leader.
    pub(crate) async fn propose(
        &self,
        command: MetaCommand,
        deadline: Instant,
    ) -> Result<MetaOutcome, ProposeError> {
        let outcome = self.proposer.propose(Some(command), deadline).await?;
        outcome.ok_or(ProposeError::Unknown)
    }

    /// The meta group's state, as applied here.
    pub(crate) fn state(&self) -> watch::Receiver<Arc<MetaState>> {
        self.replica.parts.progress.meta()
    }
}
