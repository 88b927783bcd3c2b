//! Shows the invariants all replicas, some fifty times in a virtual second.
//!
//! It keeps for each replica, in each life, the ids and hashes of its log as it last saw them, and reads only what changed since.

use std::collections::{BTreeMap, BTreeSet};

use model::id::{GroupId, NodeId};
use raft::host::{Inspected, StateHash};
use storage::log::LogId;

use crate::invariants::{self, Invariant, Moment, Seen, Violation};

use super::machine::Machine;

type Entries = BTreeMap<u64, (LogId, u64)>;
type Who = (GroupId, NodeId, u64);

/// The invariants of a run, and what they are shown.
pub(super) struct Observer {
    shards: u16,
    invariants: Vec<Box<dyn Invariant>>,
    logs: BTreeMap<Who, Entries>,
    hashed: BTreeMap<Who, Option<LogId>>,
    /// What each node was seen to acknowledge of what is committed, by index.
    acknowledged: BTreeMap<(GroupId, NodeId), u64>,
}

struct Look {
    who: Who,
    replica: Inspected,
    changed: Option<u64>,
    state: Option<StateHash>,
}

impl Observer {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards,
            invariants: invariants::all(),
            logs: BTreeMap::new(),
            hashed: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    /// Looks at all that runs; with `states`, also at what the replicas have applied. The disks of the nodes excused may fail.
    pub(super) fn look<'a>(
        &mut self,
        machines: impl Iterator<Item = &'a Machine>,
        (states, excused): (bool, &BTreeSet<NodeId>),
    ) -> Result<(), Violation> {
        let mut looks = Vec::new();
        for machine in machines {
            let Some(host) = machine.host() else { continue };
            // A log that has failed answers nothing any more, and its marks stand still; its node ends soon.
            if excused.contains(&machine.node) && host.log_has_failed() {
                continue;
            }
            for replica in host.inspect() {
                let who = (replica.group, machine.node, machine.life);
                let changed = self.read(who, &replica)?;
                // To hash damaged state would be to find it for the node.
                let readable = !machine.state.is_damaged(replica.group.to_raw());
                let state = self.state(who, &replica, states && readable)?;
                for (node, index) in &replica.acknowledged {
                    let known = self.acknowledged.entry((replica.group, *node)).or_default();
                    *known = (*known).max(*index);
                }
                looks.push(Look {
                    who,
                    replica,
                    changed,
                    state,
                });
            }
        }
        let mut moment = Moment {
            shards: self.shards,
            replicas: BTreeMap::new(),
        };
        for look in &looks {
            let (group, node, life) = look.who;
            let Some(entries) = self.logs.get(&look.who) else {
                continue;
            };
            moment.replicas.entry(group).or_default().push(Seen {
                node,
                life,
                replica: &look.replica,
                entries,
                changed: look.changed,
                state: look.state.clone(),
            });
        }
        for invariant in &mut self.invariants {
            invariant.check(&moment)?;
        }
        Ok(())
    }

    /// Whether a node has all that it acknowledged.
    pub(super) fn has_all(&self, machine: &Machine) -> Result<(), Violation> {
        let Some(host) = machine.host() else {
            return Ok(());
        };
        for replica in host.inspect() {
            let acknowledged = self.acknowledged.get(&(replica.group, machine.node));
            let acknowledged = acknowledged.copied().unwrap_or(0);
            let last = replica.log.last.map_or(0, |id| id.index);
            if last < acknowledged {
                let (node, group) = (machine.node, replica.group);
                return Err(Violation {
                    id: "R-4 a disk that lost something is refused",
                    text: format!(
                        "{node} acknowledged {group} up to {acknowledged}, runs, and has {last}"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Brings what is known of a log up to date; the first index that is new.
    fn read(&mut self, who: Who, replica: &Inspected) -> Result<Option<u64>, Violation> {
        let known = self.logs.entry(who).or_default();
        let purged = replica.log.purged.map_or(0, |id| id.index);
        if known
            .first_key_value()
            .is_some_and(|(first, _)| *first <= purged)
        {
            *known = known.split_off(&(purged + 1));
        }
        let last = replica.log.last.map_or(0, |id| id.index);
        // From the end of what is known back to where it is still so.
        let mut from = known.keys().next_back().map_or(purged + 1, |last| last + 1);
        while from > purged + 1
            && known.get(&(from - 1)).map(|(id, _)| *id) != replica.id_at(from - 1)
        {
            from -= 1;
        }
        drop(known.split_off(&from));
        if from > last {
            return Ok(None);
        }
        let found = replica.entries(from, last + 1).map_err(|error| Violation {
            id: "the log can be read",
            text: format!("{} of {}: {error}", who.0, who.1),
        })?;
        let first = found.first().map(|(id, _)| id.index);
        known.extend(found.into_iter().map(|entry| (entry.0.index, entry)));
        Ok(first)
    }

    fn state(
        &mut self,
        who: Who,
        replica: &Inspected,
        wanted: bool,
    ) -> Result<Option<StateHash>, Violation> {
        if !wanted || self.hashed.get(&who) == Some(&replica.applied) {
            return Ok(None);
        }
        self.hashed.insert(who, replica.applied);
        let state = replica.state().map_err(|error| Violation {
            id: "the state can be read",
            text: format!("{} of {}: {error}", who.0, who.1),
        })?;
        Ok(Some(state))
    }
}
