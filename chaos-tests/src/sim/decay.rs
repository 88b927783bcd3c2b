//! Stored state that decays: a value of a replica, or of its snapshot, cannot be read right any more.
//!
//! The replica must find out, by a read, when it applies, or by a scrub, and be made anew from another one; a snapshot must be found out
//! before anybody installs it. No client may see anything else than what was written. It comes beside the other faults, in some runs, and draws from dice of its own, so that the
//! other faults of a seed come as they would without it.

use model::id::{GroupId, NodeId};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::lab::shard;
use super::plan::dice;
use super::world::World;

/// How it is counted.
pub(super) const DECAY: &str = "fault Decay";

/// One of so many runs has it.
const RUNS: u32 = 3;
/// In such a run one of so many faults brings it.
const FAULTS: u32 = 6;

/// One of so many times it is a snapshot.
const SNAPSHOTS: u32 = 4;

/// When what decays.
pub(super) struct Decay {
    dice: StdRng,
    is_on: bool,
}

impl Decay {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = dice(seed, 7);
        let is_on = dice.random_ratio(1, RUNS);
        Self { dice, is_on }
    }
}

impl World {
    /// Lets a value decay, now and then.
    pub(super) fn decay(&mut self) {
        if !self.decay.is_on || !self.decay.dice.random_ratio(1, FAULTS) {
            return;
        }
        let groups = self.groups();
        let running = self.running();
        let dice = &mut self.decay.dice;
        let (Some(group), Some(node)) = (groups.choose(dice), running.choose(dice)) else {
            return;
        };
        let number = dice.random();
        let snapshot = dice.random_ratio(1, SNAPSHOTS);
        // It counts as lost until it is mended: another replica must have all that is committed.
        if !self.may_hurt(*node) || self.machines.keys().any(|it| self.is_damaged(*it)) {
            return;
        }
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        if snapshot {
            if machine.state.damage_snapshot(group.to_raw()) {
                self.say(format!("the snapshot of {group} at {node} decays"));
                self.lab.coverage.count("snapshot decayed");
            }
        } else if let Some(key) = machine.state.damage_one_of(group.to_raw(), number) {
            self.say(format!("{key:?} of {group} at {node} decays"));
            self.lab.coverage.count(DECAY);
        }
    }

    /// Whether state of this machine is damaged and not mended yet.
    pub(super) fn is_damaged(&self, node: NodeId) -> bool {
        let machine = self.machines.get(&node).filter(|_| self.decay.is_on);
        machine.is_some_and(|machine| {
            let mut groups = self.groups().into_iter();
            groups.any(|group| machine.state.is_damaged(group.to_raw()))
        })
    }

    /// Asks the nodes with damaged state to read all of it; one of them.
    pub(super) fn scrub_damaged(&self) -> Option<NodeId> {
        let damaged = self.machines.keys().filter(|node| self.is_damaged(**node));
        let damaged: Vec<NodeId> = damaged.copied().collect();
        for node in &damaged {
            if let Some(host) = self.machines.get(node).and_then(|it| it.host()) {
                host.scrub();
            }
        }
        damaged.first().copied()
    }

    fn groups(&self) -> Vec<GroupId> {
        let shards = (0..self.lab.plan.shards).map(shard);
        shards.chain([GroupId::Meta]).collect()
    }
}
