//! Opening and closing replicas.

use std::sync::Arc;
use std::time::Duration;

use model::id::GroupId;
use model::meta::NodePhase;
use model::state::StateError;
use storage::log::GroupLog;
use storage::state::TabletStore;
use tokio::time::{Instant, sleep_until, timeout};

use super::inner::{Inner, Opened, OpenedKind};
use super::repair;
use crate::blocking::blocking;
use crate::error::{Fatal, StartError};
use crate::group::{MetaReplica, ShardReplica};
use crate::inbound::Door;
use crate::lease::VoteGate;
use crate::log_store::LogStore;
use crate::machine::{self, Machine, Progress};
use crate::message;
use crate::network::Network;
use crate::proposer::Proposer;
use crate::replica::{self, Replica};
use crate::timing;
use crate::types::Raft;

/// How long openraft may take to stop a group.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a group waits at its start for a snapshot that makes room in a full log.
const ROOM: Duration = Duration::from_secs(2);

/// The groups that this node should have open.
pub(crate) fn wanted(inner: &Inner) -> Vec<GroupId> {
    let map = inner.map();
    let mut groups = vec![GroupId::Meta];
    if map.is_bootstrapped() {
        let mine = map
            .replicas
            .iter()
            .filter(|(_, nodes)| nodes.contains(&inner.me));
        groups.extend(
            mine.map(|(group, _)| *group)
                .filter(|group| *group != GroupId::Meta),
        );
    } else if inner.seed.iter().any(|(node, _)| *node == inner.me) {
        groups.extend(model::placement::groups(inner.region, inner.shards));
    }
    // Also those that a leader gave to this node and that are not on record yet.
    if let Some(log) = &*inner.log.lock() {
        let kept = log
            .groups()
            .into_iter()
            .filter(|raw| !is_new(&log.group(*raw)));
        groups.extend(kept.filter_map(GroupId::from_raw));
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn is_new(log: &GroupLog) -> bool {
    log.vote().is_none() && log.state().last.is_none()
}

/// Whether a leader may give a replica of this group to this node now: the node belongs to the cluster, and has never had one.
pub(crate) fn may_begin(inner: &Inner, group: GroupId) -> bool {
    let GroupId::Shard(region, shard) = group else {
        return false;
    };
    let map = inner.map();
    let known = map
        .regions
        .get(&region)
        .is_some_and(|record| shard.0 < record.shards);
    let active = map
        .nodes
        .get(&inner.me)
        .is_some_and(|me| me.phase == NodePhase::Active);
    let log = inner.log.lock();
    known
        && active
        && region == inner.region
        && log
            .as_ref()
            .is_some_and(|log| is_new(&log.group(group.to_raw())))
}

/// Why a replica was not opened.
pub(super) enum Unopened {
    /// Its state is not whole, or is behind its log; it is to be rebuilt.
    Damaged {
        /// What was found.
        what: String,
        /// The state, if it could be opened.
        store: Option<TabletStore>,
    },
    /// It cannot be.
    Failed(StartError),
}

/// Opens a replica, and starts it. One that is damaged is rebuilt instead, if another node has it too.
pub(crate) async fn open(inner: &Arc<Inner>, group: GroupId) -> Result<(), StartError> {
    let _one_at_a_time = inner.opening.lock().await;
    if inner.opened(group).is_some() || inner.repairs.has(group) {
        return Ok(());
    }
    let opened = match open_store(inner, group).await {
        Ok(store) => assemble(inner, group, store).await,
        Err(unopened) => Err(unopened),
    };
    match opened {
        Ok(()) => Ok(()),
        Err(Unopened::Failed(error)) => Err(error),
        Err(Unopened::Damaged { what, store }) => {
            if repair::begin(inner, group, &what, store) {
                return Ok(());
            }
            let source = what.into();
            Err(StartError::State { group, source })
        }
    }
}

async fn open_store(inner: &Inner, group: GroupId) -> Result<TabletStore, Unopened> {
    let (engine, folder) = (inner.state.clone(), inner.folder.clone());
    let opened = blocking(move || engine.open(&folder, group.to_raw())).await;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Unopened::Failed(StartError::State { group, source })
    };
    opened
        .map_err(|error| failed(Box::new(error)))?
        .map_err(|error| match error.is_damage() {
            true => Unopened::Damaged {
                what: error.to_string(),
                store: None,
            },
            false => failed(Box::new(error)),
        })
}

/// Whether a state, or the snapshot from which openraft restores it, reaches to where the log begins.
fn reaches(machine: &Machine, store: &TabletStore, log: &GroupLog) -> bool {
    let kept = store
        .snapshot()
        .and_then(|kept| kept.manifest().applied.clone());
    let kept = kept.and_then(|mark| message::decode_mark(mark).ok());
    let kept = kept.and_then(|meta| meta.last_log_id);
    let applied = machine.progress().applied().max(kept);
    let next = |index: Option<u64>| index.map_or(0, |index| index.saturating_add(1));
    next(applied.map(|id| id.index)) >= next(log.state().purged.map(|id| id.index))
}

/// Takes out of a log that has no room what is applied, before anybody can ask the group for a vote: openraft waits for its vote to
/// be written, and would not come to the snapshot and the purge that make room for it.
async fn make_room(raft: &Raft, log: &GroupLog, progress: &Progress) {
    // What is known to be committed is applied by now.
    let applied = progress.applied();
    if !log.no_room() || applied.is_none() {
        return;
    }
    // An error says that the group has stopped: whoever watches over it sees that.
    drop(raft.trigger().snapshot().await);
    let wait = raft.wait(Some(ROOM));
    let taken = wait.metrics(|seen| seen.snapshot >= applied, "a snapshot");
    match taken.await {
        Ok(seen) => {
            let Some(upto) = seen.snapshot else { return };
            tracing::info!(group = log.id(), upto = upto.index, "a full log is purged");
            drop(raft.trigger().purge_log(upto.index).await);
        }
        Err(error) => {
            tracing::warn!(group = log.id(), %error, "no snapshot: the log stays full");
        }
    }
}

/// Makes a replica of its state and its log, and starts it.
pub(super) async fn assemble(
    inner: &Arc<Inner>,
    group: GroupId,
    store: TabletStore,
) -> Result<(), Unopened> {
    let failed = |reason: String| Unopened::Failed(StartError::Group { group, reason });
    let log = inner
        .log
        .lock()
        .as_ref()
        .map(|log| log.group(group.to_raw()));
    let log = log.ok_or_else(|| failed("the host stops".to_owned()))?;
    // openraft takes what a log has when it starts for durable, and acknowledges it. A replica that was closed a moment ago, to be
    // rebuilt, may have left entries and a vote that are still on their way to the disk.
    log.durable()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let pace = match group {
        GroupId::Meta => inner.tuning.meta_pace,
        GroupId::Shard(..) => inner.tuning.shard_pace,
    };
    let gate = VoteGate::at_start(!is_new(&log), pace.lease());
    let may_elect = !gate.is_closed() && !inner.is_draining();
    let config = timing::config(group.to_string(), &pace, may_elect)
        .map_err(|error| failed(error.to_string()))?;
    let damaged = |what: String| Unopened::Damaged {
        what,
        store: Some(store.clone()),
    };
    let machine = Machine::open(machine::Parts {
        group,
        store: store.clone(),
        log: log.clone(),
        events: Arc::<Inner>::clone(inner),
    })
    .map_err(|error| match error {
        StateError::Damaged(what) => damaged(what),
        StateError::Io(_) => Unopened::Failed(StartError::State {
            group,
            source: Box::new(error),
        }),
    })?;
    if !reaches(&machine, &store, &log) {
        return Err(damaged("the state is behind its log".to_owned()));
    }
    let progress = machine.progress();
    let network = Network::new(inner.transport().clone(), group, Arc::clone(&progress));
    let log_store = LogStore::new(log.clone());
    let raft = Raft::new(inner.me.0, Arc::new(config), network, log_store, machine)
        .await
        .map_err(|error| match progress.damage() {
            Some(what) => damaged(what),
            None => failed(error.to_string()),
        })?;
    make_room(&raft, &log, &progress).await;
    let replica = Replica::new(replica::Parts {
        group,
        me: inner.me,
        raft,
        progress,
        store,
        log,
        clocks: Arc::clone(&inner.clocks),
        sleep: Arc::clone(&inner.sleep),
        tasks: inner.tasks.clone(),
        pace,
        gate,
    });
    start(inner, replica);
    Ok(())
}

fn start(inner: &Arc<Inner>, replica: Arc<Replica>) {
    let group = replica.parts.group;
    let (raft, time) = (replica.parts.raft.clone(), Arc::clone(&replica.time));
    let kind = match group {
        GroupId::Meta => {
            let proposer = Proposer::new();
            let runner = proposer.clone();
            inner
                .tasks
                .spawn(async move { runner.run(raft, time).await });
            let replica = Arc::clone(&replica);
            OpenedKind::Meta(Arc::new(MetaReplica { replica, proposer }))
        }
        GroupId::Shard(..) => {
            let proposer = Proposer::new();
            let runner = proposer.clone();
            inner
                .tasks
                .spawn(async move { runner.run(raft, time).await });
            OpenedKind::Shard(Arc::new(ShardReplica {
                replica: Arc::clone(&replica),
                proposer,
                reads: Arc::clone(inner.reads()),
                space: Arc::clone(&inner.space),
            }))
        }
    };
    inner
        .tasks
        .spawn(watch_over(Arc::clone(inner), Arc::clone(&replica)));
    if let Some(until) = replica.parts.gate.until() {
        let (inner, replica) = (Arc::clone(inner), Arc::clone(&replica));
        let tasks = inner.tasks.clone();
        tasks.spawn(async move {
            sleep_until(until).await;
            if !inner.is_draining() {
                replica.parts.raft.runtime_config().elect(true);
            }
        });
    }
    let door = Door::new(Arc::clone(&replica));
    let opened = Arc::new(Opened {
        replica,
        door,
        kind,
    });
    inner.groups.write().insert(group, opened);
}

/// Follows a replica's role until it stops; a group that stops by itself ends the node, unless it can be rebuilt.
async fn watch_over(inner: Arc<Inner>, replica: Arc<Replica>) {
    let group = replica.parts.group;
    Arc::clone(&replica).follow().await;
    let still_open = inner.groups.read().contains_key(&group);
    if still_open && !inner.stop.is_cancelled() {
        if let Some(what) = replica.parts.progress.damage()
            && repair::begin(&inner, group, &what, None)
        {
            return;
        }
        let reason = {
            use openraft::async_runtime::watch::WatchReceiver;
            let metrics = replica.parts.raft.metrics();
            let state = metrics.borrow_watched().running_state.clone();
            state
                .err()
                .map_or_else(|| "stopped".to_owned(), |fatal| fatal.to_string())
        };
        inner.fail(Fatal::Group { group, reason });
    }
}

/// Stops a replica. Its log and state stay. Says whether it has stopped.
pub(crate) async fn close(inner: &Arc<Inner>, group: GroupId) -> bool {
    let Some(opened) = inner.groups.write().remove(&group) else {
        return true;
    };
    opened.replica.close();
    match &opened.kind {
        OpenedKind::Meta(meta) => meta.proposer.close(),
        OpenedKind::Shard(shard) => shard.proposer.close(),
    }
    let began = Instant::now();
    // In a task of its own: if this future were dropped while openraft waits for its core to end, whoever else waits for
    // that would panic.
    let raft = opened.replica.parts.raft.clone();
    let stopping = inner.tasks.spawn(async move { raft.shutdown().await });
    let stopped = timeout(SHUTDOWN, stopping).await;
    if !matches!(stopped, Ok(Ok(Ok(())))) {
        tracing::warn!(%group, waited = ?began.elapsed(), "group did not stop cleanly");
    }
    // A group that has failed says so here, too; it does nothing any more.
    stopped.is_ok()
}
