//! Random operations, faults and crashes against a model, by seed.
//!
//! For each group the model keeps every state it went through since the last crash, entry by entry, and how far the
//! callbacks have come. After a crash the log must hold one of the states from there on: nothing acknowledged is
//! missing, nothing is out of order, nothing was made up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::disk::CrashKeeps;
use crate::log::Turn;

/// Splitmix64; the test's own, so that the disk's chances do not shift with it.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27))
            .wrapping_mul(0x94D0_49BB_1331_11EB)
            .rotate_left(31)
            % bound
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (u64, usize)>,
}

struct Model {
    states: Vec<State>,
    acknowledged: Arc<AtomicUsize>,
    committed: Vec<Option<LogId>>,
    term: u64,
}

impl Model {
    fn from(state: State, term: u64) -> Self {
        Self {
            states: vec![state],
            acknowledged: Arc::default(),
            committed: vec![None],
            term,
        }
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn step(&mut self, change: impl FnOnce(&mut State)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    /// Notes at its call that all steps until now are durable.
    fn callback(&self) -> Callback {
        let (steps, acknowledged) = (self.states.len() - 1, Arc::clone(&self.acknowledged));
        Box::new(move |result| {
            if result.is_ok() {
                assert!(
                    acknowledged.swap(steps, Ordering::Relaxed) <= steps,
                    "callbacks come in order"
                );
            }
        })
    }

    fn last(&self) -> Option<u64> {
        self.now().entries.keys().next_back().copied()
    }
}

fn seen(log: &GroupLog) -> State {
    let entries = read_all(log);
    for found in &entries {
        assert_eq!(
            *found,
            entry(found.id.term, found.id.index, found.payload.len())
        );
    }
    let entries = entries
        .iter()
        .map(|entry| (entry.id.index, (entry.id.term, entry.payload.len())))
        .collect();
    State {
        vote: log.vote(),
        purged: log.state().purged,
        entries,
    }
}

fn operate(log: &GroupLog, model: &mut Model, dice: &mut Dice) {
    let (now, last) = (model.now().clone(), model.last());
    match dice.below(20) {
        0..=10 => {
            let first = last.map_or_else(
                || {
                    now.purged.map_or(0, |purged| purged.index + 1)
                        + if dice.below(8) == 0 { 3 } else { 0 }
                },
                |last| last + 1,
            );
            let count = 1 + dice.below(6);
            let mut batch = Vec::new();
            for index in first..first + count {
                let length = usize::try_from(dice.below(3) * dice.below(2500)).unwrap();
                let term = model.term;
                batch.push(entry(term, index, length));
                model.step(|state| {
                    state.entries.insert(index, (term, length));
                });
            }
            log.append(batch, model.callback());
        }
        11 | 12 => {
            model.term += 1;
            let vote = vote(model.term);
            model.step(|state| state.vote = Some(vote));
            log.save_vote(vote, model.callback());
        }
        13 => {
            let keep = last.and_then(|last| last.checked_sub(dice.below(7)));
            model.step(|state| {
                state
                    .entries
                    .retain(|index, _| keep.is_some_and(|keep| *index <= keep))
            });
            log.truncate_after(keep, model.callback());
        }
        14 | 15 => {
            let beyond = if dice.below(10) == 0 { 5 } else { 0 };
            let upto = last.unwrap_or(4).saturating_sub(dice.below(12)) + beyond;
            let term = now.entries.get(&upto).map_or(model.term, |(term, _)| *term);
            if now.purged.is_none_or(|purged| purged.index < upto) {
                model.step(|state| {
                    state.purged = Some(id(term, upto));
                    state.entries.retain(|index, _| *index > upto);
                });
            }
            log.purge(id(term, upto));
        }
        16 | 17 => {
            let committed = last.and_then(|last| log.id_at(last.saturating_sub(dice.below(3))));
            model.committed.push(committed);
            log.save_committed(committed);
        }
        _ => {
            let from = dice.below(last.unwrap_or(0) + 3);
            let max = usize::try_from(dice.below(9000)).unwrap();
            let found = log.read(from, from + dice.below(20), max).unwrap();
            let bytes: usize = found.iter().map(|entry| entry.payload.len()).sum();
            assert!(bytes <= max || found.len() == 1);
            for found in found {
                assert_eq!(
                    now.entries.get(&found.id.index),
                    Some(&(found.id.term, found.payload.len()))
                );
            }
        }
    }
    assert_eq!(
        log.state().last.map(|last| last.index),
        model
            .last()
            .or(model.now().purged.map(|purged| purged.index))
    );
}

/// Compares a group after a restart with what it may be, and goes on from there.
fn check(log: &GroupLog, model: &mut Model, what: &str) {
    let found = seen(log);
    let acknowledged = model.acknowledged.load(Ordering::Relaxed);
    let allowed = &model.states[acknowledged..];
    assert!(
        allowed.contains(&found),
        "{what}: {found:?} is none of {allowed:?}"
    );
    let committed = log.committed();
    assert!(
        model.committed.contains(&committed),
        "{what}: {committed:?}"
    );
    if let Some(committed) = committed {
        let purged = found
            .purged
            .is_some_and(|purged| committed.index <= purged.index);
        assert!(
            purged || log.id_at(committed.index) == Some(committed),
            "{what}: {committed:?} is not in the log"
        );
    }
    let bytes: usize = found.entries.values().map(|(_, length)| length + 40).sum();
    assert_eq!(log.bytes(), bytes as u64, "{what}");
    *model = Model::from(found, model.term);
    model.committed.push(committed);
}

fn run(seed: u64) {
    let (mut dice, mut disk) = (Dice(seed), SimDisk::new(!seed));
    let groups = 1 + dice.below(5) as u32;
    let mut models: Vec<_> = (0..groups)
        .map(|_| Model::from(State::default(), 1))
        .collect();
    for life in 0..6 {
        let config = LogConfig {
            segment_bytes: 32 << 10,
            batch_bytes: 1 + dice.below(12_000) as u32,
            tail_bytes_per_group: usize::try_from(dice.below(20_000)).unwrap(),
            tail_bytes: 30_000,
            watermark_every: Duration::from_millis(dice.below(2) * 1000),
            max_segments: 400,
            ..LogConfig::default()
        };
        let (engine, mut writer, _) = open(&disk, config);
        for (group, model) in (0..).zip(&mut models) {
            check(
                &engine.group(group),
                model,
                &format!("seed {seed} life {life} group {group}"),
            );
        }
        match dice.below(4) {
            0 => disk.cut_sync(dice.below(60)),
            1 => disk.fail_write(dice.below(60), io::ErrorKind::Other),
            2 => disk.fail_sync(dice.below(60), io::ErrorKind::Other),
            _ => {}
        }
        for _ in 0..dice.below(400) {
            let group = dice.below(groups.into()) as u32;
            operate(&engine.group(group), &mut models[group as usize], &mut dice);
            if dice.below(3) == 0 && writer.turn() == Turn::Ended {
                break;
            }
            if dice.below(100) == 0 {
                disk.set_full(true);
                writer.work();
                disk.set_full(false);
            }
        }
        if dice.below(4) == 0 {
            drop(engine);
            writer.work();
        }
        let keeps = [
            CrashKeeps::Nothing,
            CrashKeeps::Random,
            CrashKeeps::Everything,
        ][dice.below(3) as usize];
        let next = disk.crash(keeps);
        // After the crash: the dead writer tells those who wait, and can change nothing.
        drop(writer);
        disk = next;
    }
}

#[test]
fn random_runs_agree_with_the_model() {
    for seed in 0..400 {
        println!("seed {seed}");
        run(seed);
    }
}
