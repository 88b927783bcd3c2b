//! Each checker against a history that is right, and against the same history with one thing wrong.

use std::time::Duration;

use model::id::Version;

use super::{Finding, check, ledger};
use crate::history::{Action, Content, End, Operation, Shown};

const TOLERANCE: Duration = Duration::from_millis(300);
/// A tenth of a second.
const STEP: u64 = 100_000;

fn version(revision: u64) -> Option<Version> {
    Some(Version { epoch: 1, revision })
}

fn operation(number: u64, action: Action) -> Operation {
    Operation {
        number,
        action,
        session: "s".to_owned(),
        due: number * STEP,
        start: number * STEP,
        end: number * STEP + STEP / 2,
        outcome: End::Ok,
        shown: Some(Shown::Done),
        attempts: 1,
        ..Operation::default()
    }
}

fn content(body: &str, tag: &str) -> Content {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Content {
        body: text(body),
        tag: text(tag),
    }
}

fn write(number: u64, action: Action, wrote: Content, revision: u64) -> Operation {
    Operation {
        wrote,
        version: version(revision),
        ..operation(number, action)
    }
}

fn read(number: u64, shows: Content, revision: u64) -> Operation {
    Operation {
        read: Some(shows),
        version: version(revision),
        ..operation(number, Action::Read)
    }
}

/// A session from its creation to its expiry and renewal, with two unknown writes, one of which took effect.
fn right() -> Vec<Operation> {
    let mut history = vec![
        write(0, Action::Create, content("a", "a"), 1),
        read(1, content("a", "a"), 1),
        write(2, Action::Put, content("b", ""), 2),
        write(3, Action::Patch, content("", "c"), 3),
        read(4, content("b", "c"), 3),
        write(5, Action::Put, content("lost", ""), 0),
        write(6, Action::Put, content("late", ""), 0),
        read(7, content("b", "c"), 3),
        read(8, content("late", "c"), 4),
        Operation {
            if_match: version(3),
            shown: Some(Shown::Mismatch),
            ..write(9, Action::PutIfMatch, content("refused", ""), 4)
        },
        Operation {
            expires: Some(15 * STEP),
            ..write(10, Action::Renew, content("", ""), 5)
        },
        Operation {
            action: Action::ReadLocal,
            staleness: Some(6 * STEP),
            at_least: version(3),
            ..read(11, content("late", "c"), 4)
        },
        Operation {
            shown: Some(Shown::Expired),
            expires: Some(15 * STEP),
            ..operation(20, Action::Read)
        },
        Operation {
            expires: Some(90 * STEP),
            ..write(21, Action::Renew, content("", ""), 6)
        },
        read(22, content("late", "c"), 6),
    ];
    for unknown in [5, 6] {
        history[unknown].outcome = End::Unknown;
        history[unknown].shown = None;
        history[unknown].version = None;
    }
    history
}

fn found(history: &[Operation]) -> Vec<Finding> {
    let (findings, undecided) = check(history, TOLERANCE);
    assert!(undecided.is_empty());
    findings
}

/// The checkers that find a change of the right history, each once.
fn who_finds(change: impl FnOnce(&mut Vec<Operation>)) -> Vec<&'static str> {
    let mut history = right();
    change(&mut history);
    let mut who: Vec<&str> = found(&history).iter().map(|it| it.checker).collect();
    who.sort_unstable();
    who.dedup();
    who
}

#[test]
fn a_right_history_passes() {
    assert_eq!(found(&right()), []);
}

#[test]
fn a_stale_read_is_found_by_search_and_by_versions() {
    let who = who_finds(|history| {
        history[4].version = version(2);
        history[4].read = Some(content("b", "a"));
    });
    assert_eq!(who, ["linearizable", "versions"]);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    // As if the put of 2 had been rolled back, and its version given again.
    let who = who_finds(|history| {
        history[3].version = version(2);
        history.truncate(4);
        history.push(read(4, content("a", "c"), 2));
    });
    assert_eq!(who, ["ledger", "linearizable", "versions"]);
}

#[test]
fn a_merge_that_loses_a_field_is_found() {
    let who = who_finds(|history| history[4].read = Some(content("a", "c")));
    assert_eq!(who, ["linearizable", "versions"]);
}

#[test]
fn a_version_that_names_two_contents_is_found() {
    let who = who_finds(|history| history[11].read = Some(content("late", "a")));
    assert_eq!(who, ["versions"], "a local read is no part of the search");
}

#[test]
fn a_write_that_is_applied_twice_is_found_by_the_count_of_revisions() {
    let who = who_finds(|history| {
        for at in [13, 14] {
            history[at].version = version(8);
        }
    });
    assert!(who.contains(&"ledger"), "{who:?}");
    // Once more is still what the lost write can have made.
    let once = who_finds(|history| {
        for at in [13, 14] {
            history[at].version = version(7);
        }
        history[14].read = Some(content("lost", "c"));
    });
    assert_eq!(once, Vec::<&str>::new());
}

#[test]
fn a_refused_write_that_shows_and_a_value_from_nowhere_are_found() {
    let refused = who_finds(|history| {
        history[14].read = Some(content("refused", "c"));
        history[13].version = version(7);
        history[14].version = version(7);
    });
    assert_eq!(refused, ["linearizable", "versions"]);
    let nowhere = who_finds(|history| history[8].read = Some(content("nobody's", "c")));
    assert_eq!(nowhere, ["linearizable", "versions"]);
}

#[test]
fn a_replaced_value_that_comes_back_is_found() {
    let who = who_finds(|history| {
        history[8].read = Some(content("a", "c"));
        history[11].read = Some(content("a", "c"));
        history[14].read = Some(content("a", "c"));
    });
    assert_eq!(who, ["linearizable", "versions"]);
}

#[test]
fn a_condition_that_was_not_kept_is_found() {
    let applied = who_finds(|history| {
        history[9].shown = Some(Shown::Done);
        history[9].version = version(5);
        for (at, revision) in [(10, 6), (13, 7), (14, 7)] {
            history[at].version = version(revision);
        }
        history[14].read = Some(content("refused", "c"));
    });
    assert_eq!(applied, ["linearizable"]);
    let refused = who_finds(|history| history[9].if_match = version(4));
    assert_eq!(refused, ["linearizable"]);
}

#[test]
fn an_expired_session_that_is_served_and_one_that_ends_early_are_found() {
    let served = who_finds(|history| {
        history[12] = read(21, content("late", "c"), 5);
        history.truncate(13);
    });
    assert_eq!(served, ["expiry"]);
    let back = who_finds(|history| {
        history.insert(13, read(20, content("late", "c"), 5));
        history[13].start += STEP * 3 / 5;
        history[13].end += STEP * 3 / 5;
    });
    assert!(back.contains(&"linearizable"), "{back:?}");
    let early = who_finds(|history| {
        history[12].start = 11 * STEP;
        history[12].end = 11 * STEP;
        history.remove(11);
    });
    assert!(
        early.contains(&"expiry"),
        "no tolerance for 400 ms: {early:?}"
    );
    let nobody = who_finds(|history| history[12].expires = Some(16 * STEP));
    assert_eq!(nobody, ["expiry", "linearizable"]);
}

#[test]
fn a_local_read_is_no_older_than_it_says_and_than_its_client_has_seen() {
    let older = who_finds(|history| history[11].staleness = Some(STEP / 4));
    assert_eq!(older, ["versions"]);
    let token = who_finds(|history| history[11].at_least = version(5));
    assert_eq!(token, ["versions"]);
    let future = who_finds(|history| {
        history[11].version = version(6);
    });
    assert_eq!(future, ["versions"]);
}

#[test]
fn a_broken_answer_is_found() {
    let who = who_finds(|history| history[1].broken = Some("a checksum".to_owned()));
    assert_eq!(who, ["answers"]);
}

#[test]
fn a_creation_is_there_once() {
    let history = right();
    let listed = |count: usize| vec!["a".to_owned(); count];
    assert!(ledger::creations(&history, &listed(1)).is_empty());
    assert_eq!(ledger::creations(&history, &listed(0)).len(), 1);
    assert_eq!(ledger::creations(&history, &listed(2)).len(), 1);
    let mut deleted = history;
    deleted.push(operation(23, Action::Delete));
    assert!(ledger::creations(&deleted, &listed(0)).is_empty());
}
