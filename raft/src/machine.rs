//! openraft's state machine over the model's `apply` and a replica's store.
//!
//! Guarantees: entries are applied in order, several in one commit ([`BATCH_ENTRIES`], [`BATCH_BYTES`]); the applied log id
//! and the membership are in the same commit as the data; while a truncation of the group's log is not yet synced nothing
//! is applied, so that the state may be ahead of the log after a crash but never beside it; events are told after
//! the commit and before the proposer hears. An entry that cannot be applied stops the group: replicas must not differ. If that is
//! because a stored value is damaged, the host rebuilds the replica ([`Progress::damage`]); otherwise the node ends.
//!
//! No commit here is synced: what is committed is in the log of a quorum, and is applied again after a restart.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use model::codec;
use model::id::GroupId;
use model::meta::{self, MetaEntry, MetaState};
use model::shard::{self, Event, ShardEntry, ShardHead};
use model::state::{Key, StateError, StateRead, StateWrite};
use model::time::UnixMillis;
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, RaftStateMachine};
use parking_lot::Mutex;
use storage::error::TabletError;
use storage::log::GroupLog;
use storage::state::{TabletStore, View};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::message;
use crate::shard::EventSink;
use crate::snapshot::{Builder, SnapshotData};
use crate::types::{
    Data, Entry, LogId, Payload, Reply, Snapshot, SnapshotMeta, StoredMembership, Types,
};
use crate::watch;

/// Most entries in one commit.
const BATCH_ENTRIES: usize = 64;
/// Bytes of entries after which a commit is full.
const BATCH_BYTES: usize = 4 << 20;
/// Between two tries of a commit for which the disk has no room.
const FULL_DISK: Duration = Duration::from_millis(200);

type Item = (Entry, Option<ApplyResponder<Types>>);

/// What others may know of a replica's state, while it changes.
#[derive(Debug)]
pub(crate) struct Progress {
    applied: Mutex<Option<LogId>>,
    index: watch::Sender<u64>,
    shown: AtomicU64,
    /// Somebody elsewhere waits for what is committed here.
    asked: Notify,
    log_time: Mutex<UnixMillis>,
    meta: watch::Sender<Arc<MetaState>>,
    /// What was found damaged when an entry was applied: the group has stopped because of it.
    damage: OnceLock<String>,
}

impl Progress {
    /// Of a replica that has applied nothing.
    pub(crate) fn new() -> Self {
        Self {
            applied: Mutex::new(None),
            index: watch::Sender::new(0),
            shown: AtomicU64::new(0),
            asked: Notify::new(),
            log_time: Mutex::new(UnixMillis(0)),
            meta: watch::Sender::new(Arc::default()),
            damage: OnceLock::new(),
        }
    }

    /// What of the state is damaged, if nothing can be applied because of it.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        *self.applied.lock()
    }

    /// The applied index; changes when an entry is applied. Zero also before the first.
    pub(crate) fn index(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// The applied index, now.
    pub(crate) fn applied_index(&self) -> u64 {
        *self.index.borrow()
    }

    /// From now on a reader may see entries up to this index: raised before they are applied here, and by a leader also before
    /// it tells anybody that they are committed.
    pub(crate) fn show(&self, index: u64) {
        self.shown.fetch_max(index, Ordering::AcqRel);
    }

    /// Up to where a reader may have seen entries, here or, on a leader, anywhere: it may be more than is applied here.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Somebody elsewhere waits to apply what is committed here.
    pub(crate) fn ask(&self) {
        self.asked.notify_waiters();
    }

    /// Waits until somebody [asks](Self::ask).
    pub(crate) fn asked(&self) -> Notified<'_> {
        self.asked.notified()
    }

    /// The log time of the last entry applied.
    pub(crate) fn log_time(&self) -> UnixMillis {
        *self.log_time.lock()
    }

    /// The meta group's state; empty for a shard.
    pub(crate) fn meta(&self) -> watch::Receiver<Arc<MetaState>> {
        self.meta.subscribe()
    }

    fn set(&self, applied: Option<LogId>, log_time: UnixMillis) {
        self.show(applied.map_or(0, |id| id.index));
        *self.applied.lock() = applied;
        {
            let mut time = self.log_time.lock();
            *time = log_time.max(*time);
        }
        self.index.send_replace(applied.map_or(0, |id| id.index));
    }
}

/// What a machine is made of.
pub(crate) struct Parts {
    /// Which group.
    pub(crate) group: GroupId,
    /// Its state.
    pub(crate) store: TabletStore,
    /// Its log.
    pub(crate) log: GroupLog,
    /// Who hears of what was committed.
    pub(crate) events: Arc<dyn EventSink>,
}

/// The state machine of one replica.
pub(crate) struct Machine {
    parts: Parts,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: Arc<Progress>,
}

/// What one commit did, beside its changes.
#[derive(Default)]
struct Effects {
    replies: Vec<Reply>,
    events: Vec<Event>,
    log_time: UnixMillis,
    applied: Option<LogId>,
    membership: Option<StoredMembership>,
}

impl Machine {
    /// The machine of a store as it was left.
    pub(crate) fn open(parts: Parts) -> Result<Self, StateError> {
        let mut machine = Self {
            parts,
            applied: None,
            membership: StoredMembership::default(),
            progress: Arc::new(Progress::new()),
        };
        machine.load()?;
        Ok(machine)
    }

    /// What others may know.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    fn load(&mut self) -> Result<(), StateError> {
        let tablet = self.parts.store.current();
        let meta = match tablet.applied() {
            Some(mark) => message::decode_mark(mark)
                .map_err(|bad| StateError::Damaged(format!("mark: {bad}")))?,
            None => SnapshotMeta::default(),
        };
        let view = Seen(tablet.view());
        let log_time = match self.parts.group {
            GroupId::Shard(..) => ShardHead::load(&view)?.log_time,
            GroupId::Meta => {
                let state = MetaState::load(&view)?;
                let log_time = state.log_time;
                self.progress.meta.send_replace(Arc::new(state));
                log_time
            }
        };
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
        self.progress.set(self.applied, log_time);
        Ok(())
    }

    async fn apply_batch(&mut self, batch: Vec<Item>) -> io::Result<()> {
        self.parts.log.truncated().await?;
        let tablet = self.parts.store.current();
        let mut effects = Effects::default();
        let mut txn = tablet.begin();
        for (entry, _) in &batch {
            apply_entry(&mut txn, entry, &mut effects)
                .map_err(|error| self.failed(&error.into()))?;
        }
        self.progress.show(effects.applied.map_or(0, |id| id.index));
        let membership = effects.membership.as_ref().unwrap_or(&self.membership);
        let mark = message::encode_mark(effects.applied.as_ref(), membership);
        while let Err(error) = tablet.commit(&txn, &mark) {
            if !error.is_disk_full() {
                return Err(self.failed(&error));
            }
            tracing::warn!(group = %self.parts.group, "disk full: the state waits");
            tokio::time::sleep(FULL_DISK).await;
        }
        self.applied = effects.applied;
        if let Some(membership) = effects.membership {
            self.membership = membership;
        }
        if self.parts.group == GroupId::Meta {
            let state = MetaState::load(&Seen(tablet.view()))
                .map_err(|error| self.failed(&error.into()))?;
            self.progress.meta.send_replace(Arc::new(state));
        }
        self.progress.set(self.applied, effects.log_time);
        if !effects.events.is_empty() {
            self.parts
                .events
                .committed(self.parts.group, effects.events);
        }
        for ((_, responder), reply) in batch.into_iter().zip(effects.replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    fn not_installed(&self, error: io::Error) -> io::Error {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        if cause.is_some_and(TabletError::is_damage) {
            self.progress.damage.get_or_init(|| error.to_string());
        }
        error
    }

    /// Nothing of the batch is committed. Damage is remembered: the replica is then rebuilt, and the entry applied there.
    fn failed(&self, error: &TabletError) -> io::Error {
        if error.is_damage() {
            self.progress.damage.get_or_init(|| error.to_string());
        }
        tracing::error!(group = %self.parts.group, %error, "state cannot be read or written");
        io::Error::other(error.to_string())
    }
}

/// A view behind its pointer, for the model's functions.
pub(crate) struct Seen(pub(crate) View);

impl StateRead for Seen {
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan(&self, from: &Key, limit: usize) -> Result<Vec<(Key, Bytes)>, StateError> {
        self.0.scan(from, limit)
    }
}

fn apply_entry(
    txn: &mut impl StateWrite,
    entry: &Entry,
    effects: &mut Effects,
) -> Result<(), StateError> {
    let reply = match &entry.payload {
        Payload::Blank => Reply::None,
        Payload::Membership(membership) => {
            let membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            effects.membership = Some(membership);
            Reply::None
        }
        Payload::Normal(data) => apply_data(txn, data, effects)?,
    };
    effects.applied = Some(entry.log_id);
    effects.replies.push(reply);
    Ok(())
}

/// The group's kind is in the entry: a meta entry has the tag of [`Entries::Meta`].
fn apply_data(
    txn: &mut impl StateWrite,
    data: &Data,
    effects: &mut Effects,
) -> Result<Reply, StateError> {
    // What does not decode came from the log: no other replica's state would help.
    let entry = codec::decode::<Entries>(&data.0);
    match entry.map_err(|error| StateError::Io(format!("entry: {error}")))? {
        Entries::Shard(entry) => {
            check_behavior(entry.behavior)?;
            let applied = shard::apply(txn, &entry)?;
            effects.log_time = effects.log_time.max(entry.log_time);
            effects.events.extend(applied.events);
            Ok(Reply::Shard(applied.outcomes))
        }
        Entries::Meta(entry) => {
            check_behavior(entry.behavior)?;
            let outcomes = meta::apply(txn, &entry)?;
            effects.log_time = effects.log_time.max(entry.log_time);
            Ok(Reply::Meta(outcomes))
        }
    }
}

/// What an entry of the log may be.
#[derive(Debug, bincode::Encode, bincode::Decode)]
pub(crate) enum Entries {
    /// Of a shard's group.
    Shard(ShardEntry),
    /// Of the meta group.
    Meta(MetaEntry),
}

impl Entries {
    /// As it is proposed.
    pub(crate) fn encode(&self) -> Data {
        let bytes = match self {
            Self::Shard(entry) => {
                let commands = entry.commands.iter().map(shard::Command::weight);
                commands.fold(64, usize::saturating_add)
            }
            Self::Meta(_) => 1024,
        };
        Data(codec::encode_about(self, bytes))
    }
}

fn check_behavior(behavior: u16) -> Result<(), StateError> {
    if behavior <= shard::BEHAVIOR {
        return Ok(());
    }
    Err(StateError::Io(format!(
        "entry needs behavior {behavior}, this build knows {}",
        shard::BEHAVIOR
    )))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<Item>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let mut batch = vec![first?];
            let mut bytes = weight(&batch[0].0);
            while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                // Only what is there without waiting.
                let Some(Some(next)) = entries.next().now_or_never() else {
                    break;
                };
                let next = next?;
                bytes += weight(&next.0);
                batch.push(next);
            }
            self.apply_batch(batch).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        loop {
            // The apply of this group waits for the flush, others do not.
            let builder = self.get_snapshot_builder().await;
            if !builder.is_disk_full() || self.parts.log.is_closed() {
                return Some(builder);
            }
            tracing::warn!(group = %self.parts.group, force, "disk full: no snapshot");
            // openraft panics if there is none that it must have: as at a start, when the one with which the log was purged is gone.
            if !force {
                return None;
            }
            tokio::time::sleep(FULL_DISK).await;
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder::take(self.parts.store.clone(), self.parts.log.clone()).await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        self.parts.log.truncated().await?;
        while let Err(error) = data.clone().install(self.parts.store.clone()).await {
            if !storage::disk::is_full(&error) || self.parts.log.is_closed() {
                return Err(self.not_installed(error));
            }
            tracing::warn!(group = %self.parts.group, "disk full: the snapshot waits");
            tokio::time::sleep(FULL_DISK).await;
        }
        self.load().map_err(|error| self.failed(&error.into()))?;
        if self.applied != meta.last_log_id {
            return Err(io::Error::other(
                "the snapshot is not what its meta data says",
            ));
        }
        tracing::info!(group = %self.parts.group, index = ?self.applied.map(|id| id.index()), "snapshot installed");
        self.parts.events.replaced(self.parts.group);
        Ok(())
    }

    /// One that does not reach to where the log begins is none. A crash can leave a state that is ahead of the log; openraft then
    /// purges the log up to the state at the start, and takes a snapshot only if there is none. With an older one it would, as a
    /// leader, send that to a new replica for ever: the entries between the two are nowhere.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(taken) = self.parts.store.snapshot() else {
            return Ok(None);
        };
        let snapshot = SnapshotData::Taken(taken).named()?;
        let purged = self.parts.log.state().purged;
        let reaches = snapshot.meta.last_log_id.map(|id| id.index) >= purged.map(|id| id.index);
        Ok(reaches.then_some(snapshot))
    }
}

fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(data) => data.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}
