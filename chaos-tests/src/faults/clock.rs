//! A wall clock that jumps, while timers go on as before.

use super::{Fault, Injected};
use crate::rig::Rig;

/// A node whose wall clock is this many seconds beside the true time. The rig must have been made with
/// [`RigConfig::clocks`](crate::rig::RigConfig::clocks).
#[derive(Clone, Debug)]
pub struct WallClock {
    /// Which node.
    pub node: usize,
    /// Ahead, or behind when negative.
    pub seconds: i64,
}

impl Fault for WallClock {
    fn label(&self) -> String {
        format!("node {}'s clock is {:+} s off", self.node, self.seconds)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        match rig.set_clock(self.node, self.seconds) {
            Ok(()) => self.met(rig),
            Err(why) => Injected::Skipped(why),
        }
    }

    /// That the process has the library that reads the clock's file. What it does with the time is the scenario's to see.
    fn met(&mut self, rig: &Rig) -> Injected {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", rig.pid(self.node)));
        let loaded = maps.is_ok_and(|maps| maps.contains("libfaketime"));
        Injected::when(loaded, || {
            format!("node {} does not have libfaketime loaded", self.node)
        })
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        Injected::of(rig.set_clock(self.node, 0))
    }
}
