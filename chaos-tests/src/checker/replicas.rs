//! Replicas of a group have the same state at the same applied index.
//!
//! Two hashes at one index must be equal whenever they are looked at. The verdict is complete once, without load, all replicas
//! of each group show the same index; a replica that does not get there in time has fallen behind for good, which is a finding too.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use model::status::{StateHash, StateHashes};
use tokio::time::{Instant, interval, timeout};

use crate::target::Target;

/// How long one node has to answer.
const ANSWER: Duration = Duration::from_secs(25);
/// Time from one look to the next.
const PERIOD: Duration = Duration::from_millis(200);

/// What the nodes hold, compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Groups whose replicas all show one index and one hash: group, index, keys, replicas.
    pub equal: Vec<(String, u64, u64, usize)>,
    /// Replicas that differ at one index.
    pub different: Vec<String>,
    /// Why it is not complete.
    pub incomplete: Vec<String>,
}

/// Compares the answers of nodes; one that gave none is `None`.
#[must_use]
pub fn compare(answers: &[Option<StateHashes>]) -> Comparison {
    let mut out = Comparison::default();
    let mut groups: BTreeMap<&str, Vec<(usize, &StateHash)>> = BTreeMap::new();
    for (position, answer) in answers.iter().enumerate() {
        let Some(answer) = answer else {
            out.incomplete
                .push(format!("node {position} does not tell its hashes"));
            continue;
        };
        for group in &answer.groups {
            groups
                .entry(&group.group)
                .or_default()
                .push((position, group));
        }
    }
    for (group, replicas) in groups {
        let mut at: BTreeMap<u64, (usize, &str)> = BTreeMap::new();
        let mut whole = true;
        for (position, replica) in &replicas {
            let Some(hash) = &replica.hash else {
                let why = replica.error.as_deref().unwrap_or("no reason");
                out.incomplete
                    .push(format!("{group} on node {position}: {why}"));
                whole = false;
                continue;
            };
            let (other, known) = *at.entry(replica.applied_index).or_insert((*position, hash));
            if known != hash {
                out.different.push(format!(
                    "{group} at index {}: node {other} has {known}, node {position} has {hash}",
                    replica.applied_index
                ));
                whole = false;
            }
        }
        if at.len() > 1 {
            let indexes: Vec<u64> = at.into_keys().collect();
            out.incomplete
                .push(format!("{group} is at the indexes {indexes:?}"));
        } else if whole && let Some((_, first)) = replicas.first() {
            let (index, keys) = (first.applied_index, first.keys);
            out.equal
                .push((group.to_owned(), index, keys, replicas.len()));
        }
    }
    if out.equal.is_empty() && out.incomplete.is_empty() && out.different.is_empty() {
        out.incomplete.push("there is no group".to_owned());
    }
    out
}

/// Asks until all replicas show the same index, or two differ; at the end of `limit` with what there is then.
pub async fn until_equal(target: &Target, limit: Duration) -> Comparison {
    let end = Instant::now() + limit;
    let mut period = interval(PERIOD);
    loop {
        period.tick().await;
        let asks = target.nodes.iter().map(|node| ask(target, &node.admin));
        let comparison = compare(&join_all(asks).await);
        let done = comparison.incomplete.is_empty() || !comparison.different.is_empty();
        if done || Instant::now() >= end {
            return comparison;
        }
    }
}

async fn ask(target: &Target, admin: &str) -> Option<StateHashes> {
    let url = format!("{admin}/admin/v1/hashes");
    let request = target.http.get(url).timeout(ANSWER);
    let answer = async { request.send().await.ok()?.json().await.ok() };
    timeout(ANSWER, answer).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, index: u64, hash: Option<&str>) -> Option<StateHashes> {
        let group = StateHash {
            group: "r1-s0".to_owned(),
            applied_index: index,
            hash: hash.map(str::to_owned),
            keys: 3,
            error: None,
        };
        let groups = vec![group];
        Some(StateHashes { node: id, groups })
    }

    #[test]
    fn a_difference_at_one_index_is_found_also_when_a_third_is_behind() {
        let comparison = compare(&[
            node(1, 7, Some("a")),
            node(2, 7, Some("b")),
            node(3, 6, Some("a")),
        ]);
        assert_eq!(comparison.different.len(), 1, "{comparison:?}");
        assert_eq!(comparison.equal, []);
    }

    #[test]
    fn equal_replicas_are_told_and_one_that_is_behind_or_silent_is_incomplete() {
        let equal = compare(&[node(1, 7, Some("a")), node(2, 7, Some("a"))]);
        assert_eq!(equal.equal, [("r1-s0".to_owned(), 7, 3, 2)]);
        assert!(equal.incomplete.is_empty() && equal.different.is_empty());
        for other in [node(2, 6, Some("b")), node(2, 7, None), None] {
            let comparison = compare(&[node(1, 7, Some("a")), other]);
            assert_eq!(comparison.different, Vec::<String>::new());
            assert_eq!(comparison.incomplete.len(), 1, "{comparison:?}");
        }
        assert_eq!(compare(&[]).incomplete.len(), 1);
    }
}
