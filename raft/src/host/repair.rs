//! A damaged replica is set aside and rebuilt from another node, without anybody's help, while the node's other groups go on.
//!
//! Damage is a stored value, a table or a pointer that is not what was written. It comes from a read, from an entry's `apply`,
//! from a scrub (`scrub.rs`), or from the open. Then:
//!
//! 1. The replica hands its leadership over and closes: it is not read from, does not lead, does not vote. Its log and its
//!    vote stay; nothing it promised is forgotten. Damage that a read or a scrub found waits with this until the group has a
//!    quorum without it; what is damaged is not served meanwhile either.
//! 2. It fetches another replica's state that reaches at least to where its own log is purged (`fetch.rs`), and installs it: every hash
//!    and every value is verified, and the switch is atomic. A state that never was purged from the log is applied anew.
//! 3. It opens again, behind the vote gate, and applies its log from there.
//!
//! It tries again for as long as it takes, at another node each time, and goes on where a transfer broke, also after a restart: a state
//! that is behind its purged log counts as damaged. It does not mend the log: that is `storage::log`'s to find, and for a new
//! node id to replace.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use model::id::{GroupId, NodeId};
use parking_lot::Mutex;
use storage::log::GroupLog;
use storage::state::TabletStore;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::balance;
use super::groups::{self, Unopened};
use super::inner::{Inner, Opened};
use crate::error::Fatal;
use crate::fetch::{self, Ask};
use crate::kinds;
use crate::shard::EventSink;
use crate::snapshot::blocking;
use crate::transport::StreamOpen;
use crate::types::Snapshot;

/// How long a leadership may take to go.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between two attempts, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A replica that needs this many repairs within [`OFTEN`] is not helped by them.
const MANY: usize = 4;
const OFTEN: Duration = Duration::from_mins(10);

/// Which replicas of this node are being rebuilt.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    under_way: Mutex<BTreeMap<GroupId, String>>,
    begun: Mutex<BTreeMap<GroupId, Vec<Instant>>>,
    /// Held by the one that is at work.
    turn: tokio::sync::Mutex<()>,
}

impl Repairs {
    /// Whether this group's replica is being rebuilt, and so not to be opened by anybody else.
    pub(crate) fn has(&self, group: GroupId) -> bool {
        self.under_way.lock().contains_key(&group)
    }

    /// The groups, and why.
    pub(crate) fn list(&self) -> BTreeMap<GroupId, String> {
        self.under_way.lock().clone()
    }

    fn enter(&self, group: GroupId, what: &str) -> bool {
        let mut under_way = self.under_way.lock();
        let new = under_way.insert(group, what.to_owned()).is_none();
        show(under_way.len());
        new
    }

    fn leave(&self, group: GroupId) {
        let mut under_way = self.under_way.lock();
        under_way.remove(&group);
        show(under_way.len());
    }

    /// Counts a repair that begins; says whether there were too many of late.
    fn is_often(&self, group: GroupId) -> bool {
        let mut begun = self.begun.lock();
        let times = begun.entry(group).or_default();
        times.retain(|at| at.elapsed() < OFTEN);
        times.push(Instant::now());
        times.len() > MANY
    }
}

fn show(under_way: usize) {
    gauge!("psp_replicas_in_repair").set(f64::from(u32::try_from(under_way).unwrap_or(u32::MAX)));
}

/// Looks at the replicas that are open: one that has met damage is rebuilt, as soon as the group has a quorum without it.
pub(crate) fn look(inner: &Arc<Inner>) {
    for opened in inner.all_opened() {
        let store = &opened.replica.parts.store;
        if store.current().damaged_reads() > 0 && is_spared(inner, &opened) {
            let group = opened.replica.parts.group;
            begin(inner, group, "a read found damage", None);
        }
    }
}

/// Whether the group has a quorum without this node.
fn is_spared(inner: &Inner, opened: &Opened) -> bool {
    let voters = opened.replica.voters();
    let peers = inner.peers.lock();
    let others = voters.iter().filter(|node| **node != inner.me);
    let well = others
        .filter(|node| peers.get(node).is_some_and(|peer| peer.reachable))
        .count();
    drop(peers);
    // Of two voters none is spared: then it is enough that the other one is there.
    let quorum = (voters.len() / 2 + 1).min(voters.len().saturating_sub(1));
    well >= quorum.max(1)
}

/// Begins to rebuild a group's replica; `store` is its state, if it could be opened. Says no where there is no other replica.
pub(crate) fn begin(
    inner: &Arc<Inner>,
    group: GroupId,
    what: &str,
    store: Option<TabletStore>,
) -> bool {
    let givers = givers(inner, group);
    if givers.is_empty() {
        return false;
    }
    if !inner.repairs.enter(group, what) {
        return true;
    }
    if inner.repairs.is_often(group) {
        let reason = format!("its state is damaged again after {MANY} repairs: {what}");
        inner.fail(Fatal::Group { group, reason });
        return true;
    }
    tracing::error!(%group, what, "a replica is damaged: it is rebuilt from another node");
    let repair = Repair {
        inner: Arc::clone(inner),
        group,
        givers,
        store,
        empty: false,
        tries: 0,
    };
    inner.tasks.spawn(repair.run());
    true
}

/// The other nodes that have a replica.
fn givers(inner: &Inner, group: GroupId) -> Vec<NodeId> {
    let mut nodes = match inner.opened(group) {
        Some(opened) => opened.replica.members(),
        None => Vec::new(),
    };
    if nodes.is_empty() {
        let map = inner.map();
        nodes = map.replicas.get(&group).cloned().unwrap_or_default();
    }
    if nodes.is_empty() {
        nodes = inner.others();
    }
    nodes.retain(|node| *node != inner.me);
    nodes
}

struct Repair {
    inner: Arc<Inner>,
    group: GroupId,
    givers: Vec<NodeId>,
    store: Option<TabletStore>,
    /// It was made anew.
    empty: bool,
    tries: usize,
}

impl Repair {
    async fn run(mut self) {
        let (inner, group) = (Arc::clone(&self.inner), self.group);
        let began = Instant::now();
        let _turn = inner.repairs.turn.lock().await;
        if let Some(opened) = inner.opened(group) {
            self.store = Some(opened.replica.parts.store.clone());
            balance::leave(&opened, Instant::now() + HAND_OVER).await;
            drop(opened);
            if !groups::close(&inner, group).await {
                let reason = "it does not stop, and cannot be rebuilt".to_owned();
                return inner.fail(Fatal::Group { group, reason });
            }
        }
        let mut pause = AGAIN.0;
        while let Err(error) = self.mend().await {
            tracing::warn!(%group, %error, "a replica could not be rebuilt yet");
            self.tries += 1;
            if !inner.pause(pause).await {
                return;
            }
            pause = (pause * 2).min(AGAIN.1);
        }
        counter!("psp_replica_repairs_total").increment(1);
        tracing::info!(%group, took = ?began.elapsed(), "a replica is rebuilt");
        inner.repairs.leave(group);
        if inner.stop.is_cancelled() {
            groups::close(&inner, group).await;
        }
    }

    async fn mend(&mut self) -> io::Result<()> {
        let log = self
            .inner
            .log
            .lock()
            .as_ref()
            .map(|log| log.group(self.group.to_raw()));
        let log = log.ok_or_else(|| io::Error::other("the host stops"))?;
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.open_anew().await?,
        };
        let purged = log.state().purged;
        // An empty state from which nothing is missing in the log needs nobody.
        if purged.is_some() || !self.empty {
            let at_least = purged.map_or(0, |id| id.index);
            let snapshot = self.fetch(&store, at_least).await?;
            agree(&log, &snapshot).await?;
            snapshot.snapshot.install(store.clone()).await?;
        }
        self.store = None;
        match groups::assemble(&self.inner, self.group, store).await {
            Ok(()) => {}
            Err(Unopened::Damaged { what, store }) => {
                (self.store, self.empty) = (store, false);
                return Err(io::Error::other(what));
            }
            Err(Unopened::Failed(error)) => return Err(io::Error::other(error)),
        }
        // Watchers begin again from what is there now.
        self.inner.replaced(self.group);
        let (engine, folder, raw) = self.place();
        blocking(move || engine.forget_aside(&folder, raw)).await
    }

    fn place(&self) -> (storage::state::StateEngine, std::path::PathBuf, u32) {
        let inner = &self.inner;
        (
            inner.state.clone(),
            inner.folder.clone(),
            self.group.to_raw(),
        )
    }

    /// An empty store in the place of one that does not open.
    async fn open_anew(&mut self) -> io::Result<TabletStore> {
        let (engine, folder, raw) = self.place();
        let open = move || match engine.open(&folder, raw) {
            Err(error) if error.is_damage() => {
                engine.set_aside(&folder, raw)?;
                engine.open(&folder, raw)
            }
            other => other,
        };
        let store = blocking(open).await?;
        self.empty = store.current().applied().is_none();
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Another replica's state, arrived and not yet installed.
    async fn fetch(&self, store: &TabletStore, at_least: u64) -> io::Result<Snapshot> {
        let inner = &self.inner;
        let round = self.tries / self.givers.len().max(1);
        let giver = self.tries.checked_rem(self.givers.len());
        let giver = giver.and_then(|place| self.givers.get(place));
        let giver = *giver.ok_or_else(|| io::Error::other("nobody else has a replica"))?;
        let ask = Ask {
            at_least,
            fresh: round % 2 == 1,
        };
        let open = StreamOpen {
            kind: kinds::FETCH,
            group: self.group,
            header: ask.encode(),
        };
        let stream = inner.transport().peer(giver).open_stream(open).await;
        let stream = stream.map_err(io::Error::other)?;
        tracing::info!(group = %self.group, %giver, at_least, "fetches the state");
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => Err(io::Error::other("the host stops")),
            fetched = fetch::fetch(ask, store.clone(), stream) => fetched,
        }
    }
}

/// Takes entries out of the log that a committed state contradicts: none of them is committed, as when a leader installs its
/// snapshot on a follower. What is committed here is also in the state, or stays.
async fn agree(log: &GroupLog, snapshot: &Snapshot) -> io::Result<()> {
    let Some(last) = snapshot.meta.last_log_id else {
        return Ok(());
    };
    let theirs = storage::log::LogId {
        term: last.leader_id.term,
        node: last.leader_id.node_id,
        index: last.index,
    };
    let Some(ours) = log.id_at(theirs.index).filter(|ours| *ours != theirs) else {
        return Ok(());
    };
    let committed = log.committed().map(|id| id.index);
    if committed.is_some_and(|index| index >= theirs.index) {
        let reason = format!("entry {ours} is committed here, and {theirs} there");
        return Err(io::Error::other(reason));
    }
    let (done, dropped) = oneshot::channel();
    log.truncate_after(committed, Box::new(move |result| drop(done.send(result))));
    dropped.await.map_err(io::Error::other)?
}
