//! A node's groups and all that keeps them: the one thing that `node` starts and stops.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | what a host is started with |
//! | `inner.rs`, `ground.rs` | what the parts share; what the service sees |
//! | `router.rs`, `hello.rs` | what arrives, and from whom it is taken |
//! | `groups.rs` | opening and closing replicas |
//! | `bootstrap.rs` | making a region |
//! | `pulse.rs` | heartbeats of all groups; whose election timer runs |
//! | `probe.rs` | lives, clocks and the age of reads |
//! | `keeper.rs` | sweeps, snapshots, flushes, the map |
//! | `balance.rs` | who leads what; draining |
//! | `health.rs` | whether disk and processor are fast enough to lead |
//! | `repair.rs` | damaged replicas: set aside, and rebuilt from another node |
//! | `placement.rs` | replicas onto nodes, one safe step at a time |
//! | `scrub.rs` | cold data, read again |
//! | `compact.rs` | state, rewritten when an operator asks |
//! | `admit.rs` | joining |
//! | `status.rs` | what an operator sees |
//! | `hashes.rs` | hashes of the replicas, to compare nodes |
//! | `inspect.rs` | what a simulation sees |
//!
//! **Start**: the node's own files and a new life; the log; the transport; the service; the groups, from the map that is kept
//! locally, without waiting for the meta group; then the loops. **Stop** is the other way round.

mod admit;
mod balance;
mod bootstrap;
mod compact;
mod config;
mod ground;
mod groups;
mod hashes;
mod health;
mod hello;
mod inner;
#[cfg(any(test, feature = "testing"))]
mod inspect;
mod keeper;
mod placement;
mod probe;
mod pulse;
mod repair;
mod router;
mod scrub;
mod space;
mod status;

pub use admit::{BadToken, JoinFailed, JoinToken, Joined, Wish, join, known_peers, rejoin};
pub use compact::CompactReport;
pub use config::{Attached, Engines, Ground, HostConfig, LogWriter, Tuning};
#[cfg(any(test, feature = "testing"))]
pub use inspect::{Facts, Inspected, StateHash, leave_map};
pub use scrub::{ScrubPace, ScrubReport};

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::id::{GroupId, NodeId};
use model::meta::MetaState;
use model::status::{ClusterStatus, StateHashes};
use model::time::Clock;
use parking_lot::{Mutex, RwLock};
use storage::disk::{Disk, RealDisk};
use storage::life::{LifeCounter, LifeError};
use storage::log::{LogEngine, LogStats, OpenError};
use storage::state::StateEngine;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;
use crate::chance;
use crate::error::{Fatal, StartError};
use crate::lease::SleepWatch;
use crate::life::Memory;
use crate::log_time::{Clocks, ClusterClock};
use crate::reads::PeerReads;
use crate::transport::{Inbound, Transport};
use crate::watch;
use inner::Inner;
use router::Router;
pub(crate) use space::Space;

/// How long the host's own tasks may take to end.
const STOP: Duration = Duration::from_secs(5);

/// A running host. Dropping it does not stop it: see [`Host::stop`].
pub struct Host {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("node", &self.inner.me)
            .finish_non_exhaustive()
    }
}

impl Engines {
    /// On real disks, below `config.folder`. Blocks.
    ///
    /// # Errors
    /// When the folders cannot be used.
    pub fn on_disk(config: &HostConfig) -> Result<Self, StartError> {
        let folder = |name: &str| -> Result<Arc<dyn Disk>, StartError> {
            let path = config.folder.join(name);
            std::fs::create_dir_all(&path).map_err(StartError::Memory)?;
            Ok(Arc::new(RealDisk::open(&path).map_err(StartError::Memory)?))
        };
        let (log, own) = (folder("log")?, folder("node")?);
        let state = StateEngine::rocksdb(config.tuning.state)
            .map_err(|error| StartError::Log(Box::new(error)))?;
        let groups = config.folder.join("groups");
        std::fs::create_dir_all(&groups).map_err(StartError::Memory)?;
        Ok(Self {
            log,
            own,
            state,
            groups,
            writer: LogWriter::Thread,
        })
    }
}

/// What is read and opened before the runtime is needed.
struct Opened {
    log: LogEngine,
    memory: Memory,
    map: MetaState,
}

fn open_log(engines: &mut Engines, config: &HostConfig) -> Result<LogEngine, StartError> {
    let (disk, sizes) = (Arc::clone(&engines.log), config.tuning.log.clone());
    let opened = match std::mem::take(&mut engines.writer) {
        LogWriter::Thread => LogEngine::open(disk, sizes),
        #[cfg(any(test, feature = "testing"))]
        LogWriter::Given(give) => {
            LogEngine::open_manual(disk, sizes).map(|(log, writer, recovery)| {
                give(writer);
                (log, recovery)
            })
        }
    };
    let (log, recovery) = opened.map_err(|error| match error {
        OpenError::Damaged(_) => StartError::Damaged(Box::new(error)),
        other => StartError::Log(Box::new(other)),
    })?;
    tracing::info!(?recovery, "log opened");
    Ok(log)
}

fn open(engines: &mut Engines, config: &HostConfig) -> Result<Opened, StartError> {
    let me = config.transport.identity.node();
    let log = open_log(engines, config)?;
    let life = LifeCounter::open(&engines.log, || chance::draw(|dice| dice.next_u32())).map_err(
        |error| match error {
            LifeError::Damaged => StartError::Damaged(Box::new(error)),
            LifeError::Io(_) => StartError::Log(Box::new(error)),
        },
    )?;
    let memory = Memory::open(Arc::clone(&engines.own), life).map_err(of_own_files)?;
    let map = match memory.map().map_err(of_own_files)? {
        Some(map) if map.node != me => {
            return Err(StartError::OtherNode {
                found: map.node,
                expected: me,
            });
        }
        Some(map) => map.meta,
        None => MetaState::default(),
    };
    if !map.is_bootstrapped() && config.seed.iter().all(|(node, _)| *node != me) {
        let what = format!("node {me} is neither in the seed nor has it joined");
        return Err(StartError::Config(what));
    }
    Ok(Opened { log, memory, map })
}

fn of_own_files(error: std::io::Error) -> StartError {
    match error.kind() {
        std::io::ErrorKind::InvalidData => StartError::Damaged(Box::new(error)),
        _ => StartError::Memory(error),
    }
}

impl Host {
    /// Starts a host on real disks and QUIC. `attach` builds the service on the host's ground.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: HostConfig,
        clock: Arc<dyn Clock>,
        attach: impl FnOnce(Ground) -> Attached,
    ) -> Result<Self, StartError> {
        let transport = config.transport.clone();
        let (engines, config) = blocking(move || Engines::on_disk(&config).map(|it| (it, config)))
            .await
            .map_err(|error| StartError::Config(error.to_string()))??;
        let connect = |inbound| Transport::start(transport, inbound);
        Self::start_on(config, engines, clock, connect, attach).await
    }

    /// Starts a host on given engines and a given transport, for tests and simulations.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_on(
        config: HostConfig,
        mut engines: Engines,
        clock: Arc<dyn Clock>,
        connect: impl FnOnce(Arc<dyn Inbound>) -> Result<Transport, crate::transport::StartError>,
        attach: impl FnOnce(Ground) -> Attached,
    ) -> Result<Self, StartError> {
        let (opened, engines, config) =
            blocking(move || open(&mut engines, &config).map(|opened| (opened, engines, config)))
                .await
                .map_err(|error| StartError::Config(error.to_string()))??;
        let me = config.transport.identity.node();
        let inner = Arc::new(Inner {
            me,
            region: config.region,
            region_name: config.region_name,
            shards: config.shards,
            seed: config.seed,
            tuning: config.tuning,
            authority: config.authority,
            log: Mutex::new(Some(opened.log)),
            space: Arc::default(),
            state: engines.state,
            folder: engines.groups,
            clocks: Arc::new(Clocks::new(me, clock)),
            time: OnceLock::new(),
            sleep: SleepWatch::new(),
            memory: Arc::new(opened.memory),
            transport: OnceLock::new(),
            reads: OnceLock::new(),
            attached: OnceLock::new(),
            opening: tokio::sync::Mutex::new(()),
            groups: RwLock::new(BTreeMap::new()),
            map: watch::Sender::new(Arc::new(opened.map)),
            peers: Mutex::default(),
            draining: AtomicBool::new(false),
            health: health::Health::default(),
            repairs: repair::Repairs::default(),
            scrub: scrub::Scrubber::default(),
            compact: compact::Compactor::default(),
            fatal: watch::Sender::new(None),
            hashing: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let transport = connect(Arc::new(Router(Arc::downgrade(&inner))))?;
        let reads = PeerReads::new(transport.clone(), inner.tasks.clone());
        // Nothing else sets these.
        inner.reads.get_or_init(|| reads);
        inner.transport.get_or_init(|| transport);
        inner.set_addresses().await;
        let attached = attach(ground::of(&inner));
        inner.attached.get_or_init(|| attached);
        let host = Self { inner };
        for group in groups::wanted(&host.inner) {
            if let Err(error) = groups::open(&host.inner, group).await {
                host.stop().await;
                return Err(error);
            }
        }
        host.start_loops();
        Ok(host)
    }

    fn start_loops(&self) {
        let inner = &self.inner;
        inner.tasks.spawn(pulse::run(Arc::clone(inner)));
        inner.tasks.spawn(probe::run(Arc::clone(inner)));
        inner.tasks.spawn(keeper::sweep(Arc::clone(inner)));
        inner.tasks.spawn(keeper::bound(Arc::clone(inner)));
        inner.tasks.spawn(health::disk(Arc::clone(inner)));
        inner.tasks.spawn(health::cpu(Arc::clone(inner)));
        inner.tasks.spawn(scrub::run(Arc::clone(inner)));
        inner.tasks.spawn(scrub::suspects(Arc::clone(inner)));
        inner.tasks.spawn(compact::run(Arc::clone(inner)));
        inner.tasks.spawn(keeper::follow_map(Arc::clone(inner)));
        inner.tasks.spawn(balance::run(Arc::clone(inner)));
        inner.tasks.spawn(placement::run(Arc::clone(inner)));
        if !inner.seed.is_empty() && !inner.map().is_bootstrapped() {
            inner.tasks.spawn(bootstrap::run(Arc::clone(inner)));
        }
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.me
    }

    /// The groups, and the services of other nodes.
    #[must_use]
    pub fn ground(&self) -> Ground {
        ground::of(&self.inner)
    }

    /// What is known of the cluster, as last applied or kept here. Changes when it does.
    #[must_use]
    pub fn map(&self) -> watch::Receiver<Arc<MetaState>> {
        self.inner.map.subscribe()
    }

    /// The cluster, as this node sees it.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        status::status(&self.inner)
    }

    /// Hashes of the replicas here, each with its applied index. Reads all of the state, on a thread that may block; `None` while
    /// another call does.
    pub async fn hashes(&self) -> Option<StateHashes> {
        hashes::hashes(&self.inner).await
    }

    /// Groups with no leader that this node knows.
    #[must_use]
    pub fn leaderless(&self) -> Vec<GroupId> {
        let opened = self.inner.all_opened();
        let lost = opened
            .iter()
            .filter(|opened| opened.replica.role().leader.is_none());
        lost.map(|opened| opened.replica.parts.group).collect()
    }

    /// Why another node would do better: this one's disk or processor is slow, and a peer is well.
    #[must_use]
    pub fn slow(&self) -> Vec<&'static str> {
        match self.inner.has_better() {
            true => self.inner.health.reasons(),
            false => Vec::new(),
        }
    }

    /// Replicas of this node that are damaged and are being rebuilt, and what was found.
    #[must_use]
    pub fn repairs(&self) -> BTreeMap<GroupId, String> {
        self.inner.repairs.list()
    }

    /// Reads all cold data now, instead of when its time comes.
    pub fn scrub(&self) {
        self.inner.scrub.ask();
    }

    /// What scrubbing has come to.
    #[must_use]
    pub fn scrub_report(&self) -> ScrubReport {
        self.inner.scrub.report()
    }

    /// Whether the disk is short of space, so that this node leads nothing where another one can.
    #[must_use]
    pub fn is_disk_short(&self) -> bool {
        self.inner.space.is_short()
    }

    /// Whether it is still there; a test's.
    #[cfg(test)]
    pub(crate) fn weak(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.inner)
    }

    /// Takes the disk to be as full as this; a test's.
    #[cfg(test)]
    pub(crate) fn pretend_space(&self, size: u64, free: u64) {
        self.inner.space.judge(size, free);
    }

    /// Takes the disk to be slow from now on, or no more; a test's.
    #[cfg(test)]
    pub(crate) fn pretend_slow(&self, slow: bool) {
        self.inner.health.pretend(slow);
    }

    /// The node's life: how often its disk was started or has lived on for some seconds.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.inner.memory.life()
    }

    /// Figures of the log, for metrics; none when the host has stopped.
    #[must_use]
    pub fn log_stats(&self) -> Option<LogStats> {
        self.inner.log.lock().as_ref().map(LogEngine::stats)
    }

    /// The transport, for its figures and for a new certificate.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        self.inner.transport()
    }

    /// Why the node must end, once it must.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.inner.fatal.subscribe()
    }

    /// Whether this node's wall clock is more than 500 ms off the median of all.
    #[must_use]
    pub fn clock_is_sick(&self) -> bool {
        probe::clock_is_sick(&self.inner)
    }

    /// Keeps this clock at the cluster's time, for as long as the host runs. A host keeps one: later ones are left alone.
    pub fn keep_time(&self, clock: &Arc<ClusterClock>) {
        self.inner.time.get_or_init(|| Arc::clone(clock));
        probe::keep_time(&self.inner);
    }

    /// Hands all leaderships over, within `limit`, and campaigns no more; returns how many are left.
    pub async fn drain(&self, limit: Duration) -> usize {
        balance::drain(&self.inner, limit).await
    }

    /// Takes part in elections again after [`Self::drain`].
    pub fn undrain(&self) {
        balance::undrain(&self.inner);
    }

    /// Makes a token with which one node may join, valid for `life`.
    ///
    /// # Errors
    /// When the meta group does not take it, or this node has no authority's key.
    pub async fn token(&self, life: Duration) -> Result<JoinToken, JoinFailed> {
        admit::token(&self.inner, life).await
    }

    /// Asks that a node gives its replicas away and goes. `MetaState::removed` has it when it is done.
    ///
    /// # Errors
    /// When the meta group does not take it.
    pub async fn remove(&self, node: NodeId) -> Result<(), JoinFailed> {
        admit::leave(&self.inner, node).await
    }

    /// A replica's state, past its log.
    #[cfg(test)]
    pub(crate) fn store_for_test(&self, group: GroupId) -> storage::state::TabletStore {
        let opened = self.inner.opened(group).expect("the group is open here");
        opened.replica.parts.store.clone()
    }

    /// What a join does, without the exchange over QUIC: the new node's id and map. The same request gets the same id.
    ///
    /// # Errors
    /// When the meta group does not take it.
    #[cfg(any(test, feature = "testing"))]
    pub async fn admit_for_test(
        &self,
        request: model::id::RequestId,
        region: model::id::RegionId,
        address: model::meta::NodeAddress,
        replaces: Option<NodeId>,
    ) -> Result<(NodeId, MetaState), JoinFailed> {
        admit::admit_for_test(&self.inner, request, region, address, replaces).await
    }

    /// Stops everything: loops, groups, transport, log. Hands nothing over: see [`Self::drain`].
    pub async fn stop(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        let open: Vec<GroupId> = inner.groups.read().keys().copied().collect();
        futures::future::join_all(open.into_iter().map(|group| groups::close(inner, group))).await;
        if let Some(transport) = inner.transport.get() {
            transport.close().await;
        }
        inner.tasks.close();
        if timeout(STOP, inner.tasks.wait()).await.is_err() {
            tracing::warn!(left = inner.tasks.len(), "tasks of the host did not end");
        }
        // Whoever comes back with an old disk is to be known after our own restart, too.
        let memory = Arc::clone(&inner.memory);
        let saved = blocking(move || memory.save_peers()).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the peers' lives were not saved");
        }
        let log = inner.log.lock().take();
        let closed = blocking(move || log.map_or(Ok(()), LogEngine::close)).await;
        if let Ok(Err(error)) = closed {
            tracing::error!(%error, "the log was not closed cleanly");
        }
    }
}
