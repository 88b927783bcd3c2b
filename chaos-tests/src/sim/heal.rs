//! The second phase: everything heals, and the cluster must serve again, soon.
//!
//! Ten virtual seconds after the last fault every node runs, every group has one leader whose voters are the machines there are,
//! every shard takes a write and shows it through every node. A machine that must be rebuilt may take longer. Then all replicas
//! must come to the same index and the same state, and every session is read once more, for the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::id::{GroupId, NodeId, RequestId, SessionId, Version};
use model::rebalance::REPLICAS;
use model::service::{Consistency, ReadReply, ReadRequest, Sessions as _, WriteOp, WriteRequest};
use model::time::Clock as _;
use rand::Rng as _;
use tokio::time::Instant;

use crate::invariants::Violation;

use super::clients::{TENANT, fresh, op};
use super::lab::{Door, Lab, group_of};
use super::record::{Content, End, Form, Kind, Op};
use super::world::{Todo, World};

/// The limit of the promise.
const LIMIT: Duration = Duration::from_secs(10);
/// What rebuilding a machine may take more: it is found out, admitted, gets all replicas, and the old one goes.
const REBUILD: Duration = Duration::from_secs(50);
/// When an old disk that nobody refused has had its time.
const FORGIVE: Duration = Duration::from_secs(6);
const STEP: Duration = Duration::from_millis(100);

fn late(what: String) -> Violation {
    Violation {
        id: "it serves again",
        text: what,
    }
}

impl World {
    /// Ends all faults.
    fn end_faults(&mut self) {
        self.say("all faults end".to_owned());
        self.lab.net.heal_all();
        self.forget(|todo| !matches!(todo, Todo::Start(_) | Todo::Replace(_)));
        let nodes = self.nodes();
        for from in &nodes {
            for to in &nodes {
                self.lab
                    .net
                    .set_link(*from, *to, self.lab.plan.link.clone());
            }
        }
        for node in nodes {
            let sync = self.lab.plan.sync.clone();
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.clock.set_ahead(0);
                machine.pace.set(sync);
                machine.pace.stall(Instant::now());
                machine.log.end_faults();
                machine.own.end_faults();
                machine.set_full(false);
                machine.state.set_stalled(false);
                if !machine.is_running() && !self.expects(&Todo::Start(node)) {
                    self.after(0, Todo::Start(node));
                }
            }
        }
    }

    /// Ends all faults, and waits until the cluster serves.
    pub(super) async fn heal(&mut self) -> Result<(), Violation> {
        self.end_faults();
        let began = Instant::now();
        let rebuilds = !self.hurt.is_empty() || self.scrub_damaged().is_some();
        let mut forgiven = false;
        loop {
            let next = Instant::now() + STEP;
            self.until(next).await?;
            let problem = match self.problem() {
                Some(problem) => problem,
                None => match self.serves().await {
                    None => break,
                    Some(problem) => problem,
                },
            };
            if !forgiven && began.elapsed() >= FORGIVE {
                forgiven = true;
                self.forgive()?;
            }
            let limit = if rebuilds { LIMIT + REBUILD } else { LIMIT };
            if began.elapsed() > limit {
                return Err(late(format!("after {limit:?}: {problem}")));
            }
        }
        let took = began.elapsed();
        self.say(format!("it serves again after {took:?}"));
        Ok(())
    }

    /// Why the cluster is not whole, if it is not.
    fn problem(&mut self) -> Option<String> {
        let nodes: BTreeSet<NodeId> = self.machines.keys().copied().collect();
        if let Some(hurt) = self.hurt.keys().next() {
            return Some(format!("{hurt} is not replaced"));
        }
        if let Some(node) = self.scrub_damaged() {
            return Some(format!("state of {node} is damaged"));
        }
        if let Some(down) = self.machines.values().find(|it| !it.is_running()) {
            return Some(format!("{} does not run", down.node));
        }
        let mut leaders: BTreeMap<GroupId, Vec<NodeId>> = BTreeMap::new();
        for machine in self.machines.values() {
            for replica in machine.host()?.inspect() {
                let leaders = leaders.entry(replica.group).or_default();
                if replica.ready {
                    leaders.push(machine.node);
                    if !are_enough(&replica.voters, &nodes) {
                        return Some(format!("{} has voters {:?}", replica.group, replica.voters));
                    }
                }
            }
        }
        let wrong = leaders.iter().find(|(_, leaders)| leaders.len() != 1);
        wrong.map(|(group, leaders)| format!("{group} is led by {leaders:?}"))
    }

    /// Writes to every shard, and reads it through every node; what does not work, if something does not.
    async fn serves(&mut self) -> Option<String> {
        let doors: Vec<(NodeId, Door)> = {
            let doors = self.lab.doors.lock();
            doors
                .iter()
                .map(|(node, door)| (*node, door.clone()))
                .collect()
        };
        for number in 0..self.lab.plan.shards {
            let group = super::lab::shard(number);
            let (session, request) = self.probe(group);
            let (_, door) = doors.get(usize::from(number) % doors.len().max(1))?;
            let not_after = door.clock.now().plus(Duration::from_secs(1));
            let request = WriteRequest {
                not_after,
                ..request
            };
            if let Err(failure) = door.service.write(request).await {
                return Some(format!("{group} takes no write: {failure}"));
            }
            for (node, door) in &doors {
                let read = ReadRequest {
                    tenant: TENANT,
                    session,
                    consistency: Consistency::Linearizable,
                    known: vec![Version::FIRST],
                    timeout: Duration::from_secs(1),
                };
                match door.service.read(read).await {
                    Ok(ReadReply::Unchanged { .. }) => {}
                    other => {
                        let found = other.err().map_or_else(
                            || "another version".to_owned(),
                            |failure| failure.to_string(),
                        );
                        return Some(format!("{group} shows no read through {node}: {found}"));
                    }
                }
            }
        }
        None
    }

    fn probe(&mut self, group: GroupId) -> (SessionId, WriteRequest) {
        let session = loop {
            let session = fresh(&mut self.dice);
            if group_of(session, self.lab.plan.shards) == group {
                break session;
            }
        };
        let content = Content {
            name: "probe".to_owned(),
            tag: String::new(),
            expires: None,
        };
        let WriteOp::Create(body) = op(&Form::Create(content)) else {
            unreachable!("a create is made of a create");
        };
        let request = WriteRequest {
            tenant: TENANT,
            session,
            request: RequestId(self.dice.random()),
            not_after: self.lab.true_time(),
            op: WriteOp::Create(body),
            if_match: None,
            idempotency: None,
            want_document: false,
        };
        (session, request)
    }

    /// The voters of each group, as its leader says.
    fn voters(&self) -> BTreeMap<GroupId, Vec<NodeId>> {
        let hosts = self.machines.values().filter_map(|it| it.host());
        let replicas = hosts.flat_map(|host| host.inspect());
        let led = replicas.filter(|replica| replica.ready);
        led.map(|replica| (replica.facts.group, replica.facts.voters))
            .collect()
    }

    /// Waits until all replicas have applied the same.
    pub(super) async fn converge(&mut self) -> Result<(), Violation> {
        let began = Instant::now();
        loop {
            let next = Instant::now() + STEP;
            self.until(next).await?;
            let mut applied: BTreeMap<GroupId, BTreeSet<_>> = BTreeMap::new();
            let voters = self.voters();
            for machine in self.machines.values() {
                for replica in machine.host().into_iter().flat_map(|host| host.inspect()) {
                    // A voter that was let go hears no more; every node learns the meta group.
                    let voters = voters.get(&replica.group);
                    let is_one = voters.is_none_or(|voters| voters.contains(&machine.node));
                    if !is_one && replica.group != GroupId::Meta {
                        continue;
                    }
                    applied
                        .entry(replica.group)
                        .or_default()
                        .insert((replica.applied, replica.log.last));
                }
            }
            let apart = applied.iter().find(|(_, applied)| applied.len() != 1);
            let Some((group, apart)) = apart else {
                // All at one index: the states are compared.
                return self.look();
            };
            if began.elapsed() > LIMIT {
                return Err(late(format!(
                    "the replicas of {group} stay apart: {apart:?}"
                )));
            }
        }
    }
}

/// Whether these voters are as placement wants them: machines that there are, three of them where there are as many, and if
/// more, then an odd number.
pub(super) fn are_enough(voters: &[NodeId], nodes: &BTreeSet<NodeId>) -> bool {
    let (count, wanted) = (voters.len(), REPLICAS.min(nodes.len()));
    (count == wanted || count > wanted && !count.is_multiple_of(2))
        && voters.iter().all(|node| nodes.contains(node))
}

/// Reads all sessions that anybody asked for once more. Nothing is in the way of an answer any more.
pub(super) async fn last_reads(lab: &Arc<Lab>) -> Result<(), Violation> {
    let sessions: BTreeSet<SessionId> = lab.ops.lock().iter().map(|op| op.session).collect();
    let door = lab
        .doors
        .lock()
        .iter()
        .next()
        .map(|(node, door)| (*node, door.clone()));
    let Some((node, door)) = door else {
        return Err(late("no node is there for the last reads".to_owned()));
    };
    for session in sessions {
        let began = lab.trace.now();
        let request = ReadRequest {
            tenant: TENANT,
            session,
            consistency: Consistency::Linearizable,
            known: Vec::new(),
            timeout: Duration::from_secs(3),
        };
        let end = super::clients::read_end(lab, door.service.read(request).await);
        let op = Op {
            client: 0,
            node,
            session,
            kind: Kind::Read,
            began,
            ended: lab.trace.now(),
            end,
        };
        let told = super::clients::told(&op);
        lab.trace.say("client", told.clone());
        if matches!(op.end, End::Unavailable | End::Unknown) {
            return Err(late(format!("a session cannot be read at the end: {told}")));
        }
        lab.ops.lock().push(op);
    }
    Ok(())
}
