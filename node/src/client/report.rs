//! From what each node says of the cluster to one picture: for each group, the report of the highest term, and of those
//! the leader's own.

use model::status::{ClusterStatus, GroupStatus};

/// The group that is no shard's.
const META: &str = "meta";

/// Joins the reports of several nodes; the first one's view of nodes and region counts.
pub(super) fn merge(reports: Vec<ClusterStatus>) -> ClusterStatus {
    let mut reports = reports.into_iter();
    let mut whole = reports.next().unwrap_or_default();
    let mut reporters = vec![whole.node; whole.groups.len()];
    for report in reports {
        for group in report.groups {
            let known = whole
                .groups
                .iter()
                .position(|other| other.group == group.group);
            let Some(at) = known else {
                whole.groups.push(group);
                reporters.push(report.node);
                continue;
            };
            if is_better(&group, report.node, &whole.groups[at], reporters[at]) {
                whole.groups[at] = group;
                reporters[at] = report.node;
            }
        }
    }
    for node in &mut whole.nodes {
        let led = |group: &&GroupStatus| group.group != META && group.leader == Some(node.id);
        node.leads = whole.groups.iter().filter(led).map(|_| 1).sum();
    }
    whole
}

/// By term, then whether it is the leader's own, then how much of the log it knows.
fn is_better(new: &GroupStatus, from: u64, old: &GroupStatus, reporter: u64) -> bool {
    let rank =
        |group: &GroupStatus, from| (group.term, group.leader == Some(from), group.last_index);
    rank(new, from) > rank(old, reporter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::status::NodeStatus;

    fn report(node: u64, term: u64, leader: Option<u64>) -> ClusterStatus {
        let group = GroupStatus {
            group: "r0-s0".into(),
            term,
            leader,
            ..GroupStatus::default()
        };
        let nodes = [1, 2].map(|id| NodeStatus {
            id,
            ..NodeStatus::default()
        });
        ClusterStatus {
            node,
            nodes: nodes.to_vec(),
            groups: vec![group],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn the_highest_term_wins_and_then_the_leaders_own_report() {
        let whole = merge(vec![report(1, 3, Some(1)), report(2, 4, Some(2))]);
        assert_eq!((whole.groups[0].term, whole.groups[0].leader), (4, Some(2)));
        assert_eq!(
            whole
                .nodes
                .iter()
                .map(|node| node.leads)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        let whole = merge(vec![report(1, 4, None), report(2, 4, Some(2))]);
        assert_eq!(whole.groups[0].leader, Some(2));
    }
}
