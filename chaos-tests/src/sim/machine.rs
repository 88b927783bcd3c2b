//! One machine: its disks, its clock, and the node that runs on it, or does not.
//!
//! A machine's disks outlive the node's process. A kill takes what was in the process's memory, a power cut also what was not
//! synced; what is left of the dead process can reach neither disks nor network, and ends by itself.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, NodeId};
use model::meta::NodeAddress;
use model::shard::{Event, EventKind};
use model::time::Clock;
use parking_lot::Mutex;
use raft::error::{Fatal, StartError};
use raft::host::{Attached, Engines, Host, HostConfig, LogWriter};
use raft::log_time::ClusterClock;
use raft::service::{KeyRing, MasterKey, Service, ServiceConfig};
use raft::shard::EventSink;
use rand::Rng as _;
use rand::rngs::StdRng;
use storage::disk::{CrashKeeps, SimDisk, SimImage};
use storage::log::{ManualWriter, Turn};
use storage::memory::MemoryDisk;
use storage::state::StateEngine;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::clock::WallClock;
use super::disk::NotedDisk;
use super::lab::{Door, Lab, region};
use super::plan::dice;

/// How long a start may take, in virtual time.
const START: Duration = Duration::from_secs(10);
/// The same on a full disk: it may wait for room, and all else must go on meanwhile.
const START_FULL: Duration = Duration::from_millis(500);
/// Between two attempts of the log's writer at a full disk.
const FULL: Duration = Duration::from_millis(100);

/// How fast a disk syncs.
pub(super) struct SyncPace(Mutex<Pace>);

struct Pace {
    dice: StdRng,
    millis: RangeInclusive<u64>,
    stalled: Instant,
}

impl SyncPace {
    fn new(dice: StdRng, millis: RangeInclusive<u64>) -> Arc<Self> {
        let stalled = Instant::now();
        Arc::new(Self(Mutex::new(Pace {
            dice,
            millis,
            stalled,
        })))
    }

    pub(super) fn set(&self, millis: RangeInclusive<u64>) {
        self.0.lock().millis = millis;
    }

    pub(super) fn stall(&self, until: Instant) {
        self.0.lock().stalled = until;
    }

    async fn sync(&self) {
        let until = {
            let mut pace = self.0.lock();
            let millis = pace.millis.clone();
            let takes = Duration::from_millis(pace.dice.random_range(millis));
            (Instant::now() + takes).max(pace.stalled)
        };
        if until > Instant::now() {
            sleep_until(until).await;
        }
    }
}

/// Drives a log's writer.
async fn write_log(mut writer: ManualWriter, pace: Arc<SyncPace>) {
    writer.by_halves();
    loop {
        match writer.turn() {
            Turn::Worked => {}
            Turn::Written => pace.sync().await,
            Turn::Idle(None) => writer.work_arrives().await,
            Turn::Idle(Some(limit)) => {
                // At the limit it looks for itself.
                drop(timeout(limit, writer.work_arrives()).await);
            }
            Turn::Full => sleep(FULL).await,
            Turn::Ended => return,
        }
    }
}

struct Running {
    host: Arc<Host>,
    dead: CancellationToken,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    service: Arc<Service>,
}

/// A machine.
pub(super) struct Machine {
    pub(super) node: NodeId,
    pub(super) clock: Arc<WallClock>,
    pub(super) pace: Arc<SyncPace>,
    pub(super) log: SimDisk,
    pub(super) own: SimDisk,
    pub(super) state: MemoryDisk,
    /// Whether its disks are full.
    full: bool,
    /// How often it was started.
    pub(super) life: u64,
    /// Its disks as they were a while ago.
    older: VecDeque<(Instant, Image)>,
    spot: Option<Spot>,
    running: Option<Running>,
}

/// An old state of a machine's disks.
#[derive(Clone, Debug)]
pub(super) struct Image {
    log: SimImage,
    own: SimImage,
    state: MemoryDisk,
}

impl Machine {
    pub(super) fn new(lab: &Lab, node: NodeId) -> Self {
        let seed = lab.plan.seed.wrapping_mul(31).wrapping_add(node.0);
        Self {
            node,
            clock: WallClock::new(lab.began, drift(lab.plan.seed, node)),
            pace: SyncPace::new(dice(lab.plan.seed, 1000 + node.0), lab.plan.sync.clone()),
            log: SimDisk::new(seed),
            own: SimDisk::new(seed ^ 0xFF00),
            state: MemoryDisk::default(),
            full: false,
            life: 0,
            older: VecDeque::new(),
            spot: None,
            running: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn host(&self) -> Option<&Arc<Host>> {
        self.running.as_ref().map(|running| &running.host)
    }

    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// Whether its disks take nothing more.
    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
        self.log.set_full(full);
        self.own.set_full(full);
        self.state.set_full(full);
    }

    /// Why its node cannot go on, if it cannot.
    pub(super) fn fatal(&self) -> Option<Fatal> {
        self.running.as_ref()?.host.fatal().borrow().clone()
    }

    /// Starts a node on what the machine has. `first` are the first nodes of the cluster.
    pub(super) async fn start(
        &mut self,
        lab: &Arc<Lab>,
        first: &[(NodeId, NodeAddress)],
    ) -> Result<(), StartError> {
        self.life += 1;
        // As a node does: requests are stamped with the cluster's time, whatever this machine's clock shows.
        let time = ClusterClock::new(&*self.clock);
        let service = service(&time);
        let dead = CancellationToken::new();
        let writer: Arc<Mutex<Option<JoinHandle<()>>>> = Arc::default();
        let engines = self.engines(lab, &writer);
        let config = config(lab, self.node, first);
        let clock: Arc<dyn Clock> = Arc::<WallClock>::clone(&self.clock);
        let (net, node) = (lab.net.clone(), self.node);
        let connect = move |inbound| Ok(net.join(node, inbound));
        let attach = |ground: raft::host::Ground| {
            service.attach(ground.directory, ground.peers);
            Attached {
                inbound: Arc::<Service>::clone(&service),
                events: Arc::new(Witness {
                    service: Arc::clone(&service),
                    lab: Arc::clone(lab),
                    dead: dead.clone(),
                }),
            }
        };
        let limit = if self.full { START_FULL } else { START };
        let started = timeout(
            limit,
            Host::start_on(config, engines, clock, connect, attach),
        )
        .await;
        let host = match started {
            Ok(Ok(host)) => Arc::new(host),
            Ok(Err(error)) => {
                end_writer(&writer);
                return Err(error);
            }
            Err(_elapsed) => {
                end_writer(&writer);
                return Err(StartError::Config("the start takes too long".to_owned()));
            }
        };
        host.keep_time(&time);
        let door = Door {
            service: Arc::clone(&service),
            clock: time,
            dead: dead.clone(),
        };
        lab.doors.lock().insert(self.node, door);
        self.running = Some(Running {
            host,
            dead,
            writer,
            service,
        });
        Ok(())
    }

    fn engines(&self, lab: &Lab, writer: &Arc<Mutex<Option<JoinHandle<()>>>>) -> Engines {
        let (tasks, pace, slot) = (
            lab.tasks.clone(),
            Arc::clone(&self.pace),
            Arc::clone(writer),
        );
        let give = move |writer| {
            *slot.lock() = Some(tasks.spawn(write_log(writer, pace)));
        };
        let noted = |disk: &SimDisk| NotedDisk::make(disk.clone(), self.node.0, lab.trace.clone());
        Engines {
            log: noted(&self.log),
            own: noted(&self.own),
            state: StateEngine::Memory(self.state.clone()),
            groups: PathBuf::new(),
            writer: LogWriter::Given(Box::new(give)),
        }
    }

    /// The process dies. With `keeps` the power fails too.
    pub(super) fn kill(&mut self, lab: &Lab, keeps: Option<CrashKeeps>) {
        lab.doors.lock().remove(&self.node);
        lab.net.crash(self.node);
        let next = |disk: &SimDisk| keeps.map_or_else(|| disk.kill(), |keeps| disk.crash(keeps));
        self.log = next(&self.log);
        self.own = next(&self.own);
        // Its state is not synced when it is written, so that a kill takes of it what a power cut does.
        self.state.crash();
        // A start applies what the log has, and is waited for.
        self.state.set_stalled(false);
        let Some(running) = self.running.take() else {
            return;
        };
        running.dead.cancel();
        running.service.close();
        end_writer(&running.writer);
        let host = running.host;
        lab.tasks.spawn(async move { host.stop().await });
    }

    /// Stops the node in order.
    pub(super) async fn stop(&mut self, lab: &Lab) {
        let Some(running) = self.running.take() else {
            return;
        };
        self.state.set_stalled(false);
        lab.doors.lock().remove(&self.node);
        running.dead.cancel();
        running.service.close();
        running.host.stop().await;
        let writer = running.writer.lock().take();
        if let Some(writer) = writer
            && writer.await.is_err_and(|error| error.is_panic())
        {
            lab.coverage.count("panic");
        }
    }

    /// What its disks hold durably.
    pub(super) fn image(&self) -> Image {
        Image {
            log: self.log.image(),
            own: self.own.image(),
            state: self.state.image(),
        }
    }

    /// Puts old disks into a machine that is off.
    pub(super) fn restore(&mut self, image: &Image) {
        self.log = self.log.restore(&image.log);
        self.own = self.own.restore(&image.own);
        self.state = image.state.image();
    }
}

/// A byte of the log that was durable and counts.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    file: String,
    offset: usize,
    block: Vec<u8>,
}

/// What is looked for damage in together. Bytes.
const BLOCK: usize = 4096;

impl Machine {
    /// Puts empty disks in.
    pub(super) fn wipe(&mut self, lab: &Lab) {
        let fresh = Self::new(lab, self.node);
        (self.log, self.own, self.state) = (fresh.log, fresh.own, fresh.state);
        self.full = false;
        (self.older, self.spot) = (VecDeque::new(), None);
    }

    /// Takes an image of the disks for later.
    pub(super) fn remember(&mut self) {
        self.older.push_back((Instant::now(), self.image()));
    }

    /// The newest image that is at least this old.
    pub(super) fn image_of_age(&mut self, age: Duration) -> Option<Image> {
        let old = self.older.iter().rev().find(|(at, _)| at.elapsed() >= age);
        let image = old.map(|(_, image)| image.clone());
        self.older.clear();
        image
    }

    /// Chooses a byte of the log that can be damaged a while later, when it is surely durable and known to be so.
    pub(super) fn choose_spot(&mut self, at: u64) {
        // A full disk does not take the watermark either: what was written last may not be known to be durable.
        self.spot = (!self.full).then(|| self.find_spot(at)).flatten();
    }

    fn find_spot(&self, at: u64) -> Option<Spot> {
        let files = storage::disk::Disk::list(&self.log).ok()?;
        let at = usize::try_from(at >> 8).ok()?;
        let mut blocks = Vec::new();
        for file in files {
            let content = self.log.content(&file).ok()?;
            if content.len() < 8 * BLOCK {
                continue;
            }
            let used = content.chunks(BLOCK).enumerate();
            let used = used.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            blocks.extend(used.map(|(number, block)| (file.clone(), number, block.to_vec())));
        }
        let (file, number, block) = blocks.swap_remove(at.checked_rem(blocks.len())?);
        let marks: Vec<usize> = (0..BLOCK).filter(|byte| block[*byte] != 0).collect();
        let offset = number * BLOCK + marks.get(at.checked_rem(marks.len())?)?;
        Some(Spot {
            file,
            offset,
            block,
        })
    }

    /// Damages the spot that was chosen, if it is as it was; says whether.
    pub(super) fn damage(&mut self, lose: bool) -> bool {
        let Some(spot) = self.spot.take().filter(|_| !self.full) else {
            return false;
        };
        let Ok(content) = self.log.content(&spot.file) else {
            return false;
        };
        let start = spot.offset / BLOCK * BLOCK;
        if content.get(start..start + BLOCK) != Some(&spot.block[..]) {
            return false;
        }
        if lose {
            self.log.lose(&spot.file);
            return true;
        }
        self.log.flip(&spot.file, spot.offset, 0x10).is_ok()
    }
}

/// What a machine's clock gains in a thousand seconds, in milliseconds: nothing in most runs, else as much as a bad crystal.
fn drift(seed: u64, node: NodeId) -> i64 {
    if dice(seed, 8).random_ratio(2, 3) {
        return 0;
    }
    dice(seed, 2000 + node.0).random_range(-400..=400)
}

fn end_writer(writer: &Mutex<Option<JoinHandle<()>>>) {
    if let Some(writer) = writer.lock().take() {
        writer.abort();
    }
}

fn service(time: &Arc<ClusterClock>) -> Arc<Service> {
    let config = ServiceConfig {
        max_large: 1,
        ..ServiceConfig::default()
    };
    let keys = KeyRing::new(MasterKey::new(1, [7; 32]), Vec::new());
    let time: Arc<dyn Clock> = Arc::<ClusterClock>::clone(time);
    Service::new(config, region(), keys, time)
}

fn config(lab: &Lab, node: NodeId, first: &[(NodeId, NodeAddress)]) -> HostConfig {
    let listen = ([127, 0, 0, 1], 0).into();
    let is_first = first.iter().any(|(first, _)| *first == node);
    HostConfig {
        folder: PathBuf::new(),
        region: region(),
        region_name: "simulated".to_owned(),
        shards: lab.plan.shards,
        seed: if is_first { first.to_vec() } else { Vec::new() },
        transport: raft::transport::Config::new(listen, lab.credentials.identity(node)),
        authority: Some(Arc::clone(&lab.credentials.authority)),
        tuning: lab.plan.tuning.clone(),
    }
}

/// Hears what a node applies, on the way to its service.
struct Witness {
    service: Arc<Service>,
    lab: Arc<Lab>,
    dead: CancellationToken,
}

impl EventSink for Witness {
    fn committed(&self, group: GroupId, events: Vec<Event>) {
        if !self.dead.is_cancelled() {
            let mut ledger = self.lab.ledger.lock();
            for event in &events {
                match &event.kind {
                    EventKind::Updated(live, _) => {
                        if let Some(last) = live.remembered.last() {
                            ledger.applied(event.session, event.version, last.id);
                        }
                    }
                    EventKind::Deleted => ledger.buried(event.session, event.version),
                    EventKind::Expired => {}
                }
            }
        }
        self.service.committed(group, events);
    }

    fn replaced(&self, group: GroupId) {
        self.service.replaced(group);
    }
}
