//! Looks at all nodes while a run goes on: who leads in which term, who is ready, what memory and descriptors cost.
//!
//! It asks the admin listeners only, and slowly enough not to be a load of its own. A node that does not answer is a sample
//! too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::history::History;
use crate::target::Target;

const PERIOD: Duration = Duration::from_millis(100);
/// Every so many samples the nodes are asked whether they are ready.
const READY_EVERY: u64 = 5;
/// Every so many samples memory and descriptors are read.
const USAGE_EVERY: u64 = 10;
/// A node that takes longer is taken for silent.
const ANSWER: Duration = Duration::from_millis(300);

/// Who leads and who answers, at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// When, in microseconds of the history.
    pub at: u64,
    /// For each shard, the position that says it leads in the highest term, and that term.
    pub leaders: BTreeMap<String, (usize, u64)>,
    /// For each position, whether it answered.
    pub answers: Vec<bool>,
    /// For each position, whether it says that it is ready; as of the last time it was asked.
    pub ready: Vec<bool>,
}

/// What a node uses, at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// When, in microseconds of the history.
    pub at: u64,
    /// Which position.
    pub node: usize,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open files.
    pub files: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) samples: Vec<Sample>,
    pub(super) usage: Vec<Usage>,
}

/// A sampler that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Sampler {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

impl Sampler {
    pub(super) fn start(target: Target, history: Arc<History>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut task = JoinSet::new();
        task.spawn(run(target, history, Arc::clone(&seen)));
        Self { seen, _task: task }
    }

    /// What was seen so far; the sampler forgets it.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock())
    }
}

async fn run(target: Target, history: Arc<History>, seen: Arc<Mutex<Seen>>) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ready = vec![false; target.nodes.len()];
    for round in 0_u64.. {
        period.tick().await;
        let positions = 0..target.nodes.len();
        if round.is_multiple_of(READY_EVERY) {
            ready = join_all(positions.clone().map(|node| is_ready(&target, node))).await;
        }
        if round.is_multiple_of(USAGE_EVERY) {
            let usage = join_all(positions.clone().map(|node| usage(&target, node))).await;
            let at = history.now();
            let known = usage
                .into_iter()
                .flatten()
                .map(|usage| Usage { at, ..usage });
            seen.lock().usage.extend(known);
        }
        let at = history.now();
        let answers = join_all(positions.map(|node| timeout(ANSWER, target.status(node)))).await;
        let mut sample = Sample {
            at,
            ready: ready.clone(),
            ..Sample::default()
        };
        for (position, answer) in answers.into_iter().enumerate() {
            let status = answer.ok().flatten();
            sample.answers.push(status.is_some());
            let Some(status) = status else { continue };
            for group in status.groups {
                let newer = sample
                    .leaders
                    .get(&group.group)
                    .is_none_or(|(_, term)| group.term > *term);
                if group.leader == Some(status.node) && newer {
                    sample.leaders.insert(group.group, (position, group.term));
                }
            }
        }
        seen.lock().samples.push(sample);
    }
}

async fn is_ready(target: &Target, position: usize) -> bool {
    let url = format!("{}/readyz", target.nodes[position].admin);
    let request = target.http.get(url).timeout(ANSWER);
    matches!(request.send().await, Ok(response) if response.status() == 200)
}

async fn usage(target: &Target, position: usize) -> Option<Usage> {
    let page = timeout(ANSWER, target.admin_page(position, "/metrics")).await;
    let page = page.ok().flatten()?;
    Some(Usage {
        at: 0,
        node: position,
        memory: metric(&page, "process_resident_memory_bytes")?,
        files: metric(&page, "process_open_fds")?,
    })
}

/// The value of a metric without labels.
pub(crate) fn metric(page: &str, name: &str) -> Option<u64> {
    let line = page
        .lines()
        .find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}
