//! The machines of a run, what is due to happen to them, and what of them is lost.
//!
//! It keeps account of the disks: a machine whose disk lost something that it had promised (*hurt*) may be refused, and must be
//! replaced by one with a new id; any other that is refused, or ends without a fault of its disk, is a violation. No more
//! machines are hurt at a time than a quorum can do without, or the loss would not be a bug of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, NodeId, RequestId};
use model::meta::{MetaState, NodeAddress};
use parking_lot::Mutex;
use raft::error::{Fatal, StartError};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use storage::disk::CrashKeeps;
use tokio::time::{Instant, sleep_until};

use crate::invariants::Violation;

use super::decay::Decay;
use super::heal::are_enough;
use super::lab::{Lab, region, shard};
use super::machine::Machine;
use super::observe::Observer;
use super::plan::dice;

/// Between two looks at all replicas.
const LOOK: Duration = Duration::from_millis(20);
/// Of so many looks one looks at the states.
const STATES: u64 = 8;
/// Of so many looks one chooses places that may be damaged until the next.
const SPOTS: u64 = 25;
/// Of so many looks one takes images of the disks.
const IMAGES: u64 = 100;

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// The next fault.
    Fault,
    /// A node starts.
    Start(NodeId),
    /// These directions carry again.
    Heal(Vec<(NodeId, NodeId)>),
    /// These directions are as fast as at the beginning.
    Speed(Vec<(NodeId, NodeId)>),
    /// The node's disk is as fast as at the beginning, and has room.
    Disk(NodeId),
    /// The node's clock is right.
    Clock(NodeId),
    /// A node with a new id takes the place of this one.
    Replace(NodeId),
}

type Admitted = (NodeId, Option<(NodeId, MetaState)>);

/// What a disk lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hurt {
    /// Some bytes: the node must find out by itself.
    Damaged,
    /// All.
    Wiped,
    /// All that is new.
    Old,
}

/// All machines.
pub(super) struct World {
    pub(super) lab: Arc<Lab>,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) dice: StdRng,
    /// Machines whose disks lost something, until another is in their place.
    pub(super) hurt: BTreeMap<NodeId, Hurt>,
    pub(super) decay: Decay,
    /// Machines whose disks returned an error in this life: their nodes may end.
    pub(super) excused: BTreeSet<NodeId>,
    first: Vec<(NodeId, NodeAddress)>,
    observer: Observer,
    agenda: BTreeMap<(Instant, u64), Todo>,
    scheduled: u64,
    looks: u64,
    requests: BTreeMap<NodeId, RequestId>,
    admitted: Arc<Mutex<Vec<Admitted>>>,
    /// The newcomer that takes a hurt machine's place.
    places: BTreeMap<NodeId, NodeId>,
}

fn address(node: u64) -> NodeAddress {
    NodeAddress {
        peer: format!("127.0.0.1:{node}"),
        ..NodeAddress::default()
    }
}

impl World {
    pub(super) fn new(lab: &Arc<Lab>) -> Self {
        let nodes = 1..=lab.plan.nodes;
        let first = nodes
            .clone()
            .map(|node| (NodeId(node), address(node)))
            .collect();
        let machines = nodes
            .map(|node| (NodeId(node), Machine::new(lab, NodeId(node))))
            .collect();
        Self {
            lab: Arc::clone(lab),
            machines,
            dice: dice(lab.plan.seed, 1),
            hurt: BTreeMap::new(),
            decay: Decay::new(lab.plan.seed),
            excused: BTreeSet::new(),
            first,
            observer: Observer::new(lab.plan.shards),
            agenda: BTreeMap::new(),
            scheduled: 0,
            looks: 0,
            requests: BTreeMap::new(),
            admitted: Arc::default(),
            places: BTreeMap::new(),
        }
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let running = self.machines.values().filter(|it| it.is_running());
        running.map(|machine| machine.node).collect()
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// Whether this machine may be hurt: every group, as any of its replicas knows it, keeps a majority of voters whose disks
    /// have lost nothing. A voter whose machine is gone has lost everything.
    pub(super) fn may_hurt(&self, node: NodeId) -> bool {
        let most = usize::try_from(self.lab.plan.nodes.saturating_sub(1) / 2).unwrap_or(0);
        let mut hurt: BTreeSet<NodeId> = self.hurt.keys().copied().collect();
        hurt.extend(self.machines.keys().filter(|it| self.is_damaged(**it)));
        hurt.insert(node);
        let hosts = self.machines.values().filter_map(Machine::host);
        let mut replicas = hosts.flat_map(|host| host.inspect());
        hurt.len() <= most
            && replicas.all(|replica| {
                let is_lost = |it: &&NodeId| hurt.contains(it) || !self.machines.contains_key(it);
                let lost = replica.voters.iter().filter(is_lost);
                lost.count() <= replica.voters.len().saturating_sub(1) / 2
            })
    }

    pub(super) fn say(&self, what: String) {
        self.lab.trace.say("fault", what);
    }

    pub(super) fn after(&mut self, millis: u64, todo: Todo) {
        self.scheduled += 1;
        let at = Instant::now() + Duration::from_millis(millis);
        self.agenda.insert((at, self.scheduled), todo);
    }

    pub(super) fn forget(&mut self, wanted: impl Fn(&Todo) -> bool) {
        self.agenda.retain(|_, todo| !wanted(todo));
    }

    pub(super) fn expects(&self, todo: &Todo) -> bool {
        self.agenda.values().any(|due| due == todo)
    }

    /// Who leads a group, by its own word.
    pub(super) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.machines.values().find_map(|machine| {
            let ground = machine.host()?.ground();
            let local = ground.directory.local(group)?;
            local.is_leader().then_some(machine.node)
        })
    }

    pub(super) fn any_shard(&mut self) -> GroupId {
        shard(self.dice.random_range(0..self.lab.plan.shards))
    }

    /// Starts a node. One that is refused is replaced if its disk is hurt.
    pub(super) async fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        let (lab, first) = (Arc::clone(&self.lab), self.first.clone());
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        if machine.is_running() {
            return Ok(());
        }
        match machine.start(&lab, &first).await {
            Ok(()) => {
                self.say(format!("{node} starts"));
                self.found_out(node)
            }
            Err(error) => self.not_started(node, &error),
        }
    }

    /// A damaged log that opens must have lost nothing: the damage was where nothing is needed any more.
    fn found_out(&mut self, node: NodeId) -> Result<(), Violation> {
        if self.hurt.get(&node) == Some(&Hurt::Damaged) {
            if let Some(machine) = self.machines.get(&node) {
                self.observer.has_all(machine)?;
            }
            self.hurt.remove(&node);
            self.lab.coverage.count("damage was harmless");
        }
        Ok(())
    }

    /// Machines that are hurt, run, and have lost nothing that they acknowledged, so far as anybody knows.
    pub(super) fn forgive(&mut self) -> Result<(), Violation> {
        for node in self.running() {
            if self.hurt.contains_key(&node)
                && let Some(machine) = self.machines.get(&node)
            {
                self.observer.has_all(machine)?;
                self.hurt.remove(&node);
                self.lab.coverage.count("an old disk had lost nothing");
            }
        }
        Ok(())
    }

    fn not_started(&mut self, node: NodeId, error: &StartError) -> Result<(), Violation> {
        let text = chain(error);
        self.say(format!("{node} does not start: {text}"));
        if self.hurt.contains_key(&node) {
            self.lab.coverage.count("damaged disk refused at start");
            self.after(100, Todo::Replace(node));
            return Ok(());
        }
        let full = self.machines.get(&node).is_some_and(Machine::is_full);
        if full || self.excused.contains(&node) {
            // A disk that is full, or fails, now and then.
            self.after(300, Todo::Start(node));
            return Ok(());
        }
        Err(Violation {
            id: "a healthy node starts",
            text: format!("{node}: {text}"),
        })
    }

    pub(super) fn kill(&mut self, node: NodeId, keeps: Option<CrashKeeps>) {
        let lab = Arc::clone(&self.lab);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.kill(&lab, keeps);
            self.excused.remove(&node);
        }
    }

    /// Does what is due, looks at the replicas, and waits, until then.
    pub(super) async fn until(&mut self, end: Instant) -> Result<(), Violation> {
        loop {
            while let Some(entry) = self.agenda.first_entry() {
                if entry.key().0 > Instant::now() {
                    break;
                }
                let todo = entry.remove();
                self.carry_out(todo).await?;
            }
            self.ended_nodes()?;
            self.newcomers().await?;
            self.looks += 1;
            self.remember();
            let states = self.looks.is_multiple_of(STATES);
            self.observer
                .look(self.machines.values(), (states, &self.excused))?;
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let due = self.agenda.keys().next().map_or(end, |(at, _)| *at);
            sleep_until(due.min(now + LOOK).min(end)).await;
        }
    }

    /// Images and places for the faults of disks that come later.
    fn remember(&mut self) {
        if self.looks.is_multiple_of(SPOTS) {
            for machine in self.machines.values_mut() {
                machine.choose_spot(self.dice.random());
            }
        }
        if self.looks.is_multiple_of(IMAGES) {
            for machine in self.machines.values_mut().filter(|it| it.is_running()) {
                machine.remember();
            }
        }
    }

    /// Looks at all replicas and their states, now.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        self.observer
            .look(self.machines.values(), (true, &self.excused))
    }

    async fn carry_out(&mut self, todo: Todo) -> Result<(), Violation> {
        match todo {
            Todo::Fault => {
                self.fault().await?;
                let gap = self.dice.random_range(self.lab.plan.fault_gap.clone());
                self.after(gap, Todo::Fault);
            }
            Todo::Start(node) => self.start(node).await?,
            Todo::Heal(ways) => {
                for (from, to) in &ways {
                    self.lab.net.heal(*from, *to);
                }
                self.say(format!("healed: {ways:?}"));
            }
            Todo::Speed(ways) => {
                for (from, to) in ways {
                    self.lab.net.set_link(from, to, self.lab.plan.link.clone());
                }
            }
            Todo::Disk(node) => {
                let sync = self.lab.plan.sync.clone();
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.pace.set(sync);
                    machine.set_full(false);
                    machine.state.set_stalled(false);
                }
            }
            Todo::Clock(node) => {
                if let Some(machine) = self.machines.get(&node) {
                    machine.clock.set_ahead(0);
                }
            }
            Todo::Replace(node) => self.replace(node),
        }
        Ok(())
    }

    /// Nodes that cannot go on end their processes.
    fn ended_nodes(&mut self) -> Result<(), Violation> {
        let ended: Vec<(NodeId, Fatal)> = self
            .machines
            .values()
            .filter_map(|machine| Some((machine.node, machine.fatal()?)))
            .collect();
        for (node, fatal) in ended {
            self.say(format!("{node} ends: {fatal}"));
            let excused = self.excused.contains(&node);
            let hurt = self.hurt.contains_key(&node);
            self.kill(node, None);
            match fatal {
                Fatal::Rebuild { .. } if hurt => {
                    self.lab.coverage.count("old disk refused by peers");
                    self.after(100, Todo::Replace(node));
                }
                // The cluster has granted the place already, and the answer is still to come.
                Fatal::Removed if self.requests.contains_key(&node) => {
                    self.lab.coverage.count("replaced node told so");
                    self.after(100, Todo::Replace(node));
                }
                Fatal::Group { .. } | Fatal::Log { .. } | Fatal::Memory { .. }
                    if excused || hurt =>
                {
                    self.lab.coverage.count("node ended by its disk");
                    let millis = self.dice.random_range(50..1500);
                    self.after(millis, Todo::Start(node));
                }
                fatal => {
                    return Err(Violation {
                        id: "a healthy node goes on",
                        text: format!("{node}: {fatal}"),
                    });
                }
            }
        }
        Ok(())
    }

    /// Asks the cluster for a node in the place of this one.
    fn replace(&mut self, old: NodeId) {
        let running = self.running();
        let through = running.choose(&mut self.dice).copied();
        let host = through.and_then(|node| self.machines.get(&node)?.host().cloned());
        let Some(host) = host else {
            return self.after(300, Todo::Replace(old));
        };
        let random: [u8; 16] = self.dice.random();
        let request = *self.requests.entry(old).or_insert(RequestId(random));
        let admitted = Arc::clone(&self.admitted);
        self.lab.tasks.spawn(async move {
            let address = address(100 + old.0);
            let granted = host
                .admit_for_test(request, region(), address, Some(old))
                .await;
            admitted.lock().push((old, granted.ok()));
        });
    }

    /// Starts the nodes that were admitted.
    async fn newcomers(&mut self) -> Result<(), Violation> {
        let admitted = std::mem::take(&mut *self.admitted.lock());
        for (old, granted) in admitted {
            let Some((node, meta)) = granted else {
                self.after(300, Todo::Replace(old));
                continue;
            };
            if self.machines.contains_key(&node) {
                continue;
            }
            self.say(format!("{node} takes the place of {old}"));
            self.lab.coverage.count("node replaced");
            // It may run: an old disk is refused only when it meets somebody.
            self.kill(old, None);
            self.machines.remove(&old);
            self.forget(|todo| *todo == Todo::Start(old));
            let machine = Machine::new(&self.lab, node);
            let left = raft::host::leave_map(&machine.own, node, meta);
            if let Err(error) = left {
                return Err(Violation {
                    id: "an empty disk can be written",
                    text: error.to_string(),
                });
            }
            self.machines.insert(node, machine);
            self.places.insert(old, node);
            self.start(node).await?;
        }
        self.settle_places();
        Ok(())
    }

    /// A machine is hurt no more when it votes in no group, and every group has voters enough, for sure: of five that a cluster
    /// began with, placement keeps three.
    fn settle_places(&mut self) {
        let placed: Vec<NodeId> = self
            .places
            .iter()
            .filter(|(old, _)| self.is_placed(**old))
            .map(|(old, _)| *old)
            .collect();
        for old in placed {
            self.places.remove(&old);
            self.hurt.remove(&old);
            self.say(format!("{old} is replaced"));
        }
    }

    fn is_placed(&self, old: NodeId) -> bool {
        let mut nodes: BTreeSet<NodeId> = self.machines.keys().copied().collect();
        nodes.remove(&old);
        let groups = usize::from(self.lab.plan.shards) + 1;
        let mut placed: BTreeMap<GroupId, bool> = BTreeMap::new();
        for machine in self.machines.values() {
            let Some(host) = machine.host() else { continue };
            for replica in host.inspect().iter().filter(|replica| replica.ready) {
                let enough = replica.settled && are_enough(&replica.voters, &nodes);
                placed.insert(replica.group, enough);
            }
        }
        placed.len() == groups && placed.values().all(|there| *there)
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
