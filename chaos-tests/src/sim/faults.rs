//! The faults: which one comes next, and what it does.
//!
//! Each is counted under its name when it was really injected: a fault that found nobody to hit is drawn again later. Faults overlap
//! as they like; what ends later is put on the agenda.

use std::collections::BTreeSet;
use std::time::Duration;

use model::id::NodeId;
use raft::transport::testing::Link;
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use storage::disk::CrashKeeps;
use tokio::time::Instant;

use crate::invariants::Violation;

use super::decay::DECAY;
use super::lab::shard;
use super::plan::Style;
use super::world::{Hurt, Todo, World};

/// Older than this, a disk is found to be old: a node raises its life every five seconds, and shows it twice a second.
const OLD: Duration = Duration::from_millis(6_500);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    KillLeader,
    PowerCut,
    PowerCutAll,
    Stop,
    Isolate,
    CutOneWay,
    CutPair,
    Ring,
    SlowLinks,
    SlowDisk,
    StalledDisk,
    SyncError,
    CutSync,
    WriteError,
    FullDisk,
    Rot,
    LostFile,
    OldImage,
    Wipe,
    Clock,
    HandOver,
    Shorten,
    ShortenAndCut,
    Gate,
}

use Fault::{
    Clock, CutOneWay, CutPair, CutSync, FullDisk, Gate, HandOver, Isolate, Kill, KillLeader,
    LostFile, OldImage, PowerCut, PowerCutAll, Ring, Rot, Shorten, ShortenAndCut, SlowDisk,
    SlowLinks, StalledDisk, Stop, SyncError, Wipe, WriteError,
};

#[rustfmt::skip]
const MIXED: &[Fault] = &[
    Kill, KillLeader, PowerCut, PowerCutAll, Stop, Isolate, CutOneWay, CutPair, Ring, SlowLinks, SlowDisk,
    StalledDisk, SyncError, CutSync, WriteError, FullDisk, Rot, LostFile, OldImage, Wipe, Clock, HandOver,
    Shorten, ShortenAndCut, Gate,
];
#[rustfmt::skip]
const CRASHES: &[Fault] = &[
    Kill, KillLeader, KillLeader, PowerCut, PowerCut, PowerCutAll, PowerCutAll, Stop, CutSync, CutSync, Isolate,
    HandOver, SlowDisk, Shorten,
];
#[rustfmt::skip]
const LINKS: &[Fault] = &[
    Isolate, Isolate, CutOneWay, CutOneWay, CutPair, CutPair, Ring, SlowLinks, SlowLinks, HandOver, KillLeader,
    StalledDisk,
];
#[rustfmt::skip]
const DISKS: &[Fault] = &[
    SlowDisk, StalledDisk, SyncError, CutSync, WriteError, FullDisk, FullDisk, Rot, Rot, LostFile, OldImage, Wipe,
    PowerCut, PowerCutAll, Kill,
];
#[rustfmt::skip]
const CLOCKS: &[Fault] = &[Clock, Clock, Clock, KillLeader, PowerCutAll, Isolate, HandOver, CutOneWay];
#[rustfmt::skip]
const SNAPSHOTS: &[Fault] = &[
    Shorten, ShortenAndCut, ShortenAndCut, Kill, KillLeader, PowerCut, PowerCutAll, FullDisk, Wipe, Isolate,
    SlowLinks,
];
const GATE: &[Fault] = &[Gate, Gate, Gate, Isolate, KillLeader, StalledDisk];

/// What is drawn from, each as often as it stands there.
const fn menu(style: Style) -> &'static [Fault] {
    match style {
        Style::Mixed => MIXED,
        Style::Crashes => CRASHES,
        Style::Links => LINKS,
        Style::Disks => DISKS,
        Style::Clocks => CLOCKS,
        Style::Snapshots => SNAPSHOTS,
        Style::Gate => GATE,
    }
}

/// So many seeds have each kind of fault.
const ENOUGH: u64 = 500;

/// The faults that a campaign of so many seeds should have had and did not `have`, by the names under which they are counted.
#[must_use]
pub fn missing(seeds: u64, have: impl Fn(&str) -> bool) -> BTreeSet<String> {
    if seeds < ENOUGH {
        return BTreeSet::new();
    }
    let menus = Style::ALL.into_iter().flat_map(menu);
    let names = menus.map(|fault| format!("fault {fault:?}"));
    names
        .chain([DECAY.to_owned()])
        .filter(|name| !have(name))
        .collect()
}

impl World {
    /// One fault, unless it finds nobody to hit.
    pub(super) async fn fault(&mut self) -> Result<(), Violation> {
        self.decay();
        let menu = menu(self.lab.plan.style);
        let fault = *menu.choose(&mut self.dice).expect("no menu is empty");
        let injected = match fault {
            Kill | KillLeader | PowerCut | PowerCutAll | Stop | Gate => self.death(fault).await,
            Isolate | CutOneWay | CutPair | Ring | SlowLinks => self.network(fault),
            SlowDisk | StalledDisk | SyncError | CutSync | WriteError | FullDisk => {
                self.disk(fault)
            }
            Rot | LostFile | OldImage | Wipe => self.hurt(fault),
            Clock => self.clock(),
            HandOver => self.hand_over(),
            Shorten | ShortenAndCut => self.shorten(fault),
        };
        if injected {
            self.lab.coverage.count(&format!("fault {fault:?}"));
        }
        Ok(())
    }

    fn victim(&mut self) -> Option<NodeId> {
        let running = self.running();
        running.choose(&mut self.dice).copied()
    }

    fn keeps(&mut self) -> CrashKeeps {
        *[
            CrashKeeps::Nothing,
            CrashKeeps::Random,
            CrashKeeps::Random,
            CrashKeeps::Everything,
        ]
        .choose(&mut self.dice)
        .expect("not empty")
    }

    fn start_later(&mut self, node: NodeId) {
        let millis = *[0, 30, 200, 800, 2500]
            .choose(&mut self.dice)
            .expect("not empty");
        let millis = millis + self.dice.random_range(0..=30);
        self.after(millis, Todo::Start(node));
    }

    async fn death(&mut self, fault: Fault) -> bool {
        let group = self.any_shard();
        let victim = match fault {
            KillLeader | Gate => self.leader(group),
            _ => self.victim(),
        };
        let Some(victim) = victim else { return false };
        match fault {
            Gate => return self.gate(victim),
            PowerCutAll => {
                for node in self.running() {
                    let keeps = self.keeps();
                    self.say(format!("power cut of all: {node} keeps {keeps:?}"));
                    self.kill(node, Some(keeps));
                    self.start_later(node);
                }
                return true;
            }
            PowerCut => {
                let keeps = self.keeps();
                self.say(format!("power cut of {victim}, keeps {keeps:?}"));
                self.kill(victim, Some(keeps));
            }
            Stop => {
                self.say(format!("{victim} stops"));
                let lab = std::sync::Arc::clone(&self.lab);
                if let Some(machine) = self.machines.get_mut(&victim) {
                    machine.stop(&lab).await;
                }
            }
            _ => {
                self.say(format!("{victim} is killed"));
                self.kill(victim, None);
            }
        }
        self.start_later(victim);
        true
    }

    /// A leader is alone, and all others forget what they promised it.
    fn gate(&mut self, leader: NodeId) -> bool {
        let others: Vec<NodeId> = self
            .running()
            .into_iter()
            .filter(|node| *node != leader)
            .collect();
        self.say(format!("{leader} is alone, and {others:?} are killed"));
        let ways = self.cut_off(leader);
        for node in others {
            self.kill(node, None);
            let millis = self.dice.random_range(0..=20);
            self.after(millis, Todo::Start(node));
        }
        let millis = self.dice.random_range(600..=2000);
        self.after(millis, Todo::Heal(ways));
        true
    }

    fn cut_off(&mut self, node: NodeId) -> Vec<(NodeId, NodeId)> {
        let mut ways = Vec::new();
        for other in self.nodes() {
            if other != node {
                ways.extend([(node, other), (other, node)]);
            }
        }
        self.cut(&ways);
        ways
    }

    fn cut(&mut self, ways: &[(NodeId, NodeId)]) {
        for (from, to) in ways {
            self.lab.net.cut(*from, *to);
        }
    }

    fn network(&mut self, fault: Fault) -> bool {
        let mut nodes = self.nodes();
        nodes.shuffle(&mut self.dice);
        let [one, two, ..] = nodes[..] else {
            return false;
        };
        if fault == SlowLinks {
            return self.slow_links(one, two);
        }
        let ways = match fault {
            Isolate => {
                let group = self.any_shard();
                let node = self.leader(group).unwrap_or(one);
                self.cut_off(node)
            }
            CutOneWay => vec![(one, two)],
            CutPair => vec![(one, two), (two, one)],
            _ => {
                // Each hears only the one before it.
                let next = nodes.iter().cycle().skip(1);
                let ring: Vec<_> = nodes.iter().copied().zip(next.copied()).collect();
                let all = nodes
                    .iter()
                    .flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
                all.filter(|(from, to)| from != to && !ring.contains(&(*from, *to)))
                    .collect()
            }
        };
        self.cut(&ways);
        self.say(format!("{fault:?}: {ways:?}"));
        let millis = *[150, 600, 1500, 3000]
            .choose(&mut self.dice)
            .expect("not empty");
        let millis = millis + self.dice.random_range(0..300);
        self.after(millis, Todo::Heal(ways));
        true
    }

    fn slow_links(&mut self, one: NodeId, two: NodeId) -> bool {
        let slowest = self.dice.random_range(5..=80);
        let loss = f64::from(self.dice.random_range(0..=25)) / 100.0;
        let link = Link {
            delay: Duration::ZERO..=Duration::from_millis(slowest),
            loss,
        };
        let ways = if self.dice.random_ratio(1, 2) {
            vec![(one, two), (two, one)]
        } else {
            let nodes = self.nodes();
            let all = nodes
                .iter()
                .flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
            all.filter(|(from, to)| from != to).collect()
        };
        self.say(format!("slow links: {ways:?} {link:?}"));
        for (from, to) in &ways {
            self.lab.net.set_link(*from, *to, link.clone());
        }
        let millis = self.dice.random_range(300..=3000);
        self.after(millis, Todo::Speed(ways));
        true
    }

    fn disk(&mut self, fault: Fault) -> bool {
        let group = self.any_shard();
        // What a leader's slow disk shows, others' do not.
        let leader = self.leader(group).filter(|_| fault == SlowDisk);
        let Some(node) = leader.or_else(|| self.victim()) else {
            return false;
        };
        let skip = self.dice.random_range(0..6);
        let (slow, stall) = (
            self.dice.random_range(10..=80),
            self.dice.random_range(200..=2500),
        );
        let span = self.dice.random_range(300..=3000);
        let on_own = self.dice.random_ratio(1, 5);
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let disk = if on_own { &machine.own } else { &machine.log };
        match fault {
            SlowDisk => {
                machine.pace.set(slow..=slow * 2);
                machine.state.set_stalled(true);
            }
            StalledDisk => machine
                .pace
                .stall(Instant::now() + Duration::from_millis(stall)),
            SyncError => disk.fail_sync(skip, std::io::ErrorKind::Other),
            CutSync => disk.cut_sync(skip),
            WriteError => disk.fail_write(skip, std::io::ErrorKind::Other),
            _ => machine.set_full(true),
        }
        self.say(format!("{fault:?} at {node}"));
        match fault {
            SyncError | CutSync | WriteError => {
                self.excused.insert(node);
            }
            FullDisk => {
                self.excused.insert(node);
                self.after(span, Todo::Disk(node));
            }
            _ => self.after(span, Todo::Disk(node)),
        }
        true
    }

    /// A disk loses something that it held for sure.
    fn hurt(&mut self, fault: Fault) -> bool {
        let Some(node) = self.victim().filter(|node| self.may_hurt(*node)) else {
            return false;
        };
        let done = match fault {
            OldImage => self.old_image(node),
            Wipe => self.wipe(node),
            _ => self.damage(node, fault == LostFile),
        };
        if done {
            self.say(format!("{fault:?} at {node}"));
        }
        done
    }

    /// The machine comes back with a disk as it was. Peers know the life of a node to the last few seconds.
    fn old_image(&mut self, node: NodeId) -> bool {
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let Some(image) = machine.image_of_age(OLD) else {
            return false;
        };
        self.kill(node, Some(CrashKeeps::Nothing));
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.restore(&image);
        }
        self.hurt.insert(node, Hurt::Old);
        self.start_later(node);
        true
    }

    fn wipe(&mut self, node: NodeId) -> bool {
        self.kill(node, Some(CrashKeeps::Nothing));
        self.hurt.insert(node, Hurt::Wiped);
        let lab = std::sync::Arc::clone(&self.lab);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.wipe(&lab);
        }
        self.start_later(node);
        true
    }

    /// Bytes of the log that were durable change, or a segment is gone.
    fn damage(&mut self, node: NodeId, lose: bool) -> bool {
        let keeps = self.keeps();
        self.kill(node, Some(keeps));
        self.start_later(node);
        let Some(machine) = self.machines.get_mut(&node) else {
            return false;
        };
        let damaged = machine.damage(lose);
        if damaged {
            self.hurt.insert(node, Hurt::Damaged);
        }
        damaged
    }

    fn clock(&mut self) -> bool {
        // Most clocks are right at any time, or there is no right time. One that is wrong may become so in another way.
        let wrong = self.machines.values().filter(|it| it.clock.is_wrong());
        let wrong: Vec<NodeId> = wrong.map(|it| it.node).collect();
        // Where nodes are lost, a group of five voters may go on with three.
        let voters = match self.lab.plan.style {
            Style::Clocks => self.lab.plan.nodes,
            _ => 3,
        };
        let most = usize::try_from((voters - 1) / 2).unwrap_or(0);
        let nodes = if wrong.len() < most {
            self.nodes()
        } else {
            wrong
        };
        let Some(node) = nodes.choose(&mut self.dice).copied() else {
            return false;
        };
        let ahead = *[3_600_000, -7_200_000, 2_000, -2_000, 400, -400, 90_000_000]
            .choose(&mut self.dice)
            .expect("not empty");
        if let Some(machine) = self.machines.get(&node) {
            machine.clock.set_ahead(ahead);
        }
        self.say(format!("the clock of {node} is {ahead} ms ahead"));
        let millis = self.dice.random_range(200..=5000);
        self.after(millis, Todo::Clock(node));
        true
    }

    fn hand_over(&mut self) -> bool {
        let group = self.any_shard();
        let Some(leader) = self.leader(group) else {
            return false;
        };
        let nodes: Vec<NodeId> = self
            .nodes()
            .into_iter()
            .filter(|it| *it != leader)
            .collect();
        let Some(to) = nodes.choose(&mut self.dice).copied() else {
            return false;
        };
        let Some(host) = self.machines.get(&leader).and_then(|it| it.host().cloned()) else {
            return false;
        };
        self.say(format!("{leader} hands {group} over to {to}"));
        self.lab
            .tasks
            .spawn(async move { host.hand_over(group, to).await });
        true
    }

    fn shorten(&mut self, fault: Fault) -> bool {
        let cut = fault == ShortenAndCut;
        let Some(behind) = self.victim() else {
            return false;
        };
        if cut {
            let ways = self.cut_off(behind);
            let millis = self.dice.random_range(800..=2500);
            self.after(millis, Todo::Heal(ways));
        }
        let groups: Vec<_> = (0..self.lab.plan.shards).map(shard).collect();
        let delay = if cut { 500 } else { 0 };
        for machine in self
            .machines
            .values()
            .filter(|it| it.node != behind || !cut)
        {
            let Some(host) = machine.host().cloned() else {
                continue;
            };
            let groups = groups.clone();
            self.lab.tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                for group in groups {
                    // The second purges what the first has a snapshot of.
                    host.shorten(group, 0).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    host.shorten(group, 0).await;
                }
            });
        }
        self.say(format!("logs are shortened, {behind} is cut off: {cut}"));
        true
    }
}
