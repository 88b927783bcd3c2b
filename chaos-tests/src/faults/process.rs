//! Faults of processes: killed, without power, paused, frozen.

use std::time::Duration;

use rustix::process::Signal;

use super::group::Group;
use super::{Fault, Injected};
use crate::rig::Rig;
use crate::rig::command::until;

/// How long the kernel may take to stop a process.
const STOPS: Duration = Duration::from_secs(2);

/// SIGKILL. Healed by starting the nodes again.
#[derive(Clone, Debug)]
pub struct Killed(pub Vec<usize>);

impl Fault for Killed {
    fn label(&self) -> String {
        format!("SIGKILL of nodes {:?}", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        for node in &self.0 {
            rig.signal(*node, Signal::KILL);
        }
        for node in &self.0 {
            rig.kill(*node);
        }
        self.met(rig)
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        let lives = self.0.iter().find(|node| rig.ended(**node).is_none());
        Injected::when(lives.is_none(), || format!("node {lives:?} lives"))
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        for node in &self.0 {
            rig.begin(*node);
        }
        Injected::Installed
    }
}

/// Power off: killed, and what was not synced is gone. Healed by starting the nodes again.
#[derive(Clone, Debug)]
pub struct PowerCut(pub Vec<usize>);

impl Fault for PowerCut {
    fn label(&self) -> String {
        format!("power cut of nodes {:?}", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        Injected::of(rig.power_cut(&self.0))
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        Killed(self.0.clone()).met(rig)
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        Killed(self.0.clone()).heal(rig)
    }
}

/// SIGSTOP: every thread stands still, its connections stay open. Healed by SIGCONT.
#[derive(Clone, Debug)]
pub struct Paused(pub usize);

impl Fault for Paused {
    fn label(&self) -> String {
        format!("node {} is paused", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        rig.signal(self.0, Signal::STOP);
        until(STOPS, || state(rig.pid(self.0)) == Some('T'));
        self.met(rig)
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        let state = state(rig.pid(self.0));
        Injected::when(state == Some('T'), || {
            format!("node {} is in state {state:?}, not stopped", self.0)
        })
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        rig.signal(self.0, Signal::CONT);
        Injected::when(until(STOPS, || state(rig.pid(self.0)) != Some('T')), || {
            format!("node {} stays stopped", self.0)
        })
    }
}

/// The freezer: as a pause, but the process gets no signal that it could see.
#[derive(Clone, Debug)]
pub struct Frozen {
    node: usize,
    group: Option<Group>,
}

impl Frozen {
    /// Of this node.
    #[must_use]
    pub const fn new(node: usize) -> Self {
        Self { node, group: None }
    }
}

impl Fault for Frozen {
    fn label(&self) -> String {
        format!("node {} is frozen", self.node)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        let joined = Group::join("freezer", &rig.name(self.node), rig.pid(self.node));
        let group = match joined {
            Ok(group) => group,
            Err(why) => return Injected::Skipped(why),
        };
        let frozen = group.write("freezer.state", "FROZEN");
        let stands = until(STOPS, || {
            group.read("freezer.state").as_deref() == Ok("FROZEN")
        });
        self.group = Some(group);
        Injected::of(frozen).and(Injected::when(stands, || "not frozen".to_owned()))
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        let state = self.group.as_ref().map(|group| group.read("freezer.state"));
        Injected::when(state == Some(Ok("FROZEN".to_owned())), || {
            format!("the freezer says {state:?}")
        })
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        let Some(group) = self.group.take() else {
            return Injected::Installed;
        };
        let thawed = group.write("freezer.state", "THAWED");
        Injected::of(thawed.and_then(|()| group.leave()))
    }
}

/// The state letter of a process, as in `/proc/PID/status`.
fn state(pid: i32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))?;
    line.trim().chars().next()
}
