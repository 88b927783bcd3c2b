//! Each invariant of replicas holds for a cluster that is well, and is found broken in one that is not.

use std::collections::BTreeMap;

use model::id::{GroupId, NodeId, RegionId, RequestId, SessionId, ShardId, Slot, Version};
use model::time::UnixMillis;
use raft::host::{Facts, StateHash};
use storage::log::{LogId, Vote};

use super::ledger_exact::Ledger;
use super::{Invariant, Moment, Seen, all};

type Entries = BTreeMap<u64, (LogId, u64)>;

/// One replica, as a test makes it up.
#[derive(Clone)]
struct One {
    node: u64,
    facts: Facts,
    entries: Entries,
    state: Option<StateHash>,
}

fn group() -> GroupId {
    GroupId::Shard(RegionId::new(1).unwrap(), ShardId(0))
}

const fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: term,
        index,
    }
}

/// A replica with these entries, one for each term that is given, all of them committed and applied.
fn replica(node: u64, terms: &[u64]) -> One {
    let ids: Vec<LogId> = (1..)
        .zip(terms)
        .map(|(index, term)| id(*term, index))
        .collect();
    let mut facts = Facts::new(group());
    facts.log.last = ids.last().copied();
    facts.committed = facts.log.last;
    facts.applied = facts.log.last;
    One {
        node,
        facts,
        entries: ids
            .iter()
            .map(|id| (id.index, (*id, id.term * 100 + id.index)))
            .collect(),
        state: None,
    }
}

/// Shows the moments to all invariants; the id of the first that does not hold.
fn broken(moments: &[&[One]]) -> Option<&'static str> {
    let mut invariants = all();
    for moment in moments {
        let seen = moment.iter().map(|one| Seen {
            node: NodeId(one.node),
            life: 1,
            replica: &one.facts,
            entries: &one.entries,
            changed: Some(1),
            state: one.state.clone(),
        });
        let moment = Moment {
            shards: 1,
            replicas: BTreeMap::from([(group(), seen.collect())]),
        };
        let mut found = invariants
            .iter_mut()
            .map(|it: &mut Box<dyn Invariant>| it.check(&moment));
        if let Some(violation) = found.find_map(Result::err) {
            return Some(violation.id);
        }
    }
    None
}

#[test]
fn a_cluster_that_is_well_breaks_nothing() {
    let mut leader = replica(2, &[1, 1, 2]);
    leader.facts.leads = Some((2, 2));
    leader.facts.leased = true;
    let mut behind = replica(1, &[1, 1]);
    behind.facts.applied = Some(id(1, 1));
    let first = [leader.clone(), behind];
    let second = [leader, replica(1, &[1, 1, 2])];
    assert_eq!(broken(&[&first, &second]), None);
}

#[test]
fn two_leases_and_a_foreign_leadership_break_election_safety() {
    let (mut one, mut other) = (replica(1, &[1]), replica(2, &[1]));
    one.facts.leased = true;
    other.facts.leased = true;
    assert_eq!(
        broken(&[&[one.clone(), other]]),
        Some("I-1 election safety")
    );
    one.facts.leads = Some((1, 2));
    assert_eq!(broken(&[&[one]]), Some("I-1 election safety"));
}

#[test]
fn logs_that_agree_after_a_difference_break_log_matching() {
    let uncommitted = |node, terms: &[u64]| {
        let mut one = replica(node, terms);
        (one.facts.committed, one.facts.applied) = (None, None);
        one
    };
    let moment = [uncommitted(1, &[1, 1, 3]), uncommitted(2, &[1, 2, 3])];
    assert_eq!(broken(&[&moment]), Some("I-2 log matching"));
    // And one id that is two entries.
    let mut other = uncommitted(2, &[1]);
    other.entries.insert(1, (id(1, 1), 7));
    let moment = [uncommitted(1, &[1]), other];
    assert_eq!(broken(&[&moment]), Some("I-2 log matching"));
}

#[test]
fn a_leader_without_a_committed_entry_breaks_leader_completeness() {
    let mut leader = replica(3, &[1]);
    leader.facts.leads = Some((3, 3));
    let moment = [replica(1, &[1, 1]), leader];
    assert_eq!(broken(&[&moment]), Some("I-3 leader completeness"));
}

#[test]
fn different_applied_entries_break_state_machine_safety() {
    let applied = |node, terms: &[u64]| {
        let mut one = replica(node, terms);
        one.facts.committed = None;
        one
    };
    let moment = [applied(1, &[1, 1]), applied(2, &[1, 2])];
    assert_eq!(broken(&[&moment]), Some("I-4 state machine safety"));
}

#[test]
fn a_committed_entry_that_changes_or_goes_breaks_its_immutability() {
    let known = |terms: &[u64]| {
        let mut one = replica(1, terms);
        one.facts.applied = None;
        one
    };
    let mut shorter = known(&[1]);
    shorter.facts.committed = Some(id(1, 2));
    let moments: [&[One]; 2] = [&[known(&[1, 1])], &[shorter]];
    assert_eq!(broken(&moments), Some("I-5 committed is immutable"));
    let moments: [&[One]; 2] = [&[known(&[1, 1])], &[known(&[1, 2])]];
    assert_eq!(broken(&moments), Some("I-5 committed is immutable"));
}

#[test]
fn what_goes_back_within_a_life_breaks_monotony() {
    let at = |term, log_time| {
        let mut one = replica(1, &[1, 1]);
        one.facts.vote = Some(Vote {
            term,
            node: 1,
            committed: true,
        });
        one.facts.log_time = UnixMillis(log_time);
        one
    };
    for (before, after) in [(at(3, 5), at(2, 5)), (at(3, 5), at(3, 4))] {
        let moments: [&[One]; 2] = [&[before], &[after]];
        assert_eq!(broken(&moments), Some("I-6 monotonic"));
    }
    let mut ahead = replica(1, &[1]);
    ahead.facts.applied = Some(id(1, 2));
    assert_eq!(broken(&[&[ahead]]), Some("I-6 monotonic"));
}

#[test]
fn another_state_after_the_same_entry_breaks_equal_state() {
    let with = |node, hash| {
        let mut one = replica(node, &[1]);
        one.state = Some(StateHash {
            applied: one.facts.applied,
            hash,
            sessions: Vec::new(),
        });
        one
    };
    assert_eq!(broken(&[&[with(1, 7), with(2, 7)]]), None);
    assert_eq!(
        broken(&[&[with(1, 7), with(2, 8)]]),
        Some("I-7 equal state")
    );
}

#[test]
fn a_session_in_another_shard_breaks_one_home() {
    let last = Slot::wrapping(Slot::COUNT - 1);
    let session = SessionId::new(RegionId::new(1).unwrap(), last, [1; 16]);
    let mut one = replica(1, &[1]);
    one.state = Some(StateHash {
        applied: one.facts.applied,
        hash: 1,
        sessions: vec![session],
    });
    let (facts, entries) = (&one.facts, &one.entries);
    let seen = Seen {
        node: NodeId(1),
        life: 1,
        replica: facts,
        entries,
        changed: None,
        state: one.state.clone(),
    };
    let mut moment = Moment {
        shards: 1,
        replicas: BTreeMap::from([(group(), vec![seen])]),
    };
    let mut home = super::one_home::OneHome;
    assert!(home.check(&moment).is_ok(), "there is one shard only");
    moment.shards = 2;
    assert!(home.check(&moment).is_err(), "its slot is the second's");
}

#[test]
fn a_ledger_that_is_not_exact_says_so() {
    let session = SessionId::from_bytes([1; 16]);
    let version = |revision| Version { epoch: 1, revision };
    let told = |acts: &[(u64, u8)]| {
        let mut ledger = Ledger::default();
        for (revision, request) in acts {
            ledger.applied(session, version(*revision), RequestId([*request; 16]));
        }
        ledger.conflict
    };
    assert_eq!(
        told(&[(1, 1), (2, 2), (2, 2)]),
        None,
        "replicas tell the same"
    );
    assert!(told(&[(1, 1), (1, 2)]).is_some(), "two requests");
    assert!(told(&[(1, 1), (2, 1)]).is_some(), "applied twice");
    assert!(told(&[(1, 1), (3, 2)]).is_some(), "one revision is missing");
    let mut ledger = Ledger::default();
    ledger.buried(session, version(3));
    ledger.buried(session, version(4));
    assert!(ledger.conflict.is_some(), "deleted twice");
}
