//! The faults of a plan, for a rig.

use std::time::Duration;

use rustix::process::Signal;

use super::plan::{Kind, Step};
use crate::faults::clock::WallClock;
use crate::faults::disk::{BadSync, Full, Sync};
use crate::faults::network::Links;
use crate::faults::pressure::{SlowDisk, SlowProcessor};
use crate::faults::process::{Killed, Paused, PowerCut};
use crate::faults::{Fault, Injected};
use crate::rig::Rig;
use crate::rig::command::until;
use crate::rig::link::LinkSpec;

/// What a slow sync takes more.
const SLOW: Duration = Duration::from_millis(200);
/// Writes a second of a slow disk.
const WRITES: u32 = 20;
/// Bytes that a full disk has left.
const LEFT: u64 = 1 << 20;
/// Longest time until a node that was asked to end has ended.
const ENDS: Duration = Duration::from_secs(20);
/// Longest time until a node that can write no more has ended: what is in flight ends first.
const FAILS: Duration = Duration::from_secs(25);

/// SIGTERM: the node hands over and ends. Healed by a start.
#[derive(Debug)]
struct Stopped(usize);

impl Fault for Stopped {
    fn label(&self) -> String {
        format!("node {} is stopped in order", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        rig.signal(self.0, Signal::TERM);
        Injected::Installed
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        let ended = until(ENDS, || rig.ended(self.0).is_some());
        Injected::when(ended, || format!("node {} does not end", self.0))
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        rig.begin(self.0);
        Injected::Installed
    }
}

/// Syncs that do not do what they should, after which the node dies. Healed by a start.
#[derive(Debug)]
struct BadSyncs {
    node: usize,
    syncs: BadSync,
    dies: Dies,
}

/// How it dies.
#[derive(Clone, Copy, Debug)]
enum Dies {
    /// By itself, as its syncs fail.
    Closed,
    /// Its power goes, and its disk has less than it promised. It is refused when it is back, and whoever supervises it starts it once
    /// more, to be made anew.
    Forgetful,
}

impl Fault for BadSyncs {
    fn label(&self) -> String {
        self.syncs.label()
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        self.syncs.inject(rig)
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        self.syncs.met(rig)
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        let died = match self.dies {
            Dies::Closed => {
                let ended = until(FAILS, || rig.ended(self.node).is_some());
                Injected::when(ended, || format!("node {} does not end", self.node))
            }
            Dies::Forgetful => Injected::of(rig.power_cut(&[self.node])),
        };
        let healed = self.syncs.heal(rig);
        rig.begin(self.node);
        died.and(healed)
    }
}

/// The fault of a step.
pub(super) fn fault(step: Step, nodes: usize) -> Box<dyn Fault> {
    let node = step.victim;
    match step.kind {
        Kind::Kill => Box::new(Killed(vec![node])),
        Kind::Restart => Box::new(Stopped(node)),
        Kind::Pause => Box::new(Paused(node)),
        Kind::PowerCut => Box::new(PowerCut(vec![node])),
        Kind::PowerCutOfAll => Box::new(PowerCut((0..nodes).collect())),
        Kind::Cut => Box::new(Links::split(&[node], nodes)),
        Kind::Deaf => Box::new(Links::deaf(node, nodes)),
        Kind::Mute => Box::new(Links::mute(node, nodes)),
        Kind::Lossy => {
            let others = (0..nodes).filter(|other| *other != node);
            let links = others.flat_map(|other| [(other, node), (node, other)]);
            let label = format!("the links of node {node} are lossy");
            Box::new(Links::new(label, links.collect(), lossy()))
        }
        Kind::SlowSync => Box::new(BadSync::new(node, Sync::Waits(SLOW))),
        Kind::FailedSync => Box::new(BadSyncs {
            node,
            syncs: BadSync::new(node, Sync::Fails),
            dies: Dies::Closed,
        }),
        Kind::Forgets => Box::new(BadSyncs {
            node,
            syncs: BadSync::new(node, Sync::Lies),
            dies: Dies::Forgetful,
        }),
        Kind::SlowDisk => Box::new(SlowDisk::new(node, WRITES)),
        Kind::LittleCpu => Box::new(SlowProcessor::new(node, 10)),
        Kind::DiskFull => Box::new(Full { node, leave: LEFT }),
        Kind::ClockAhead => Box::new(WallClock {
            node,
            seconds: 3600,
        }),
        Kind::ClockBehind => Box::new(WallClock {
            node,
            seconds: -7200,
        }),
    }
}

fn lossy() -> LinkSpec {
    LinkSpec {
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.05,
        corrupt: 0.005,
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(8),
        ..LinkSpec::default()
    }
}
