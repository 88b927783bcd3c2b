//! The published shape of `GET /admin/v1/cluster`: what one node knows of its cluster.
//!
//! Fields are added, never renamed. A node reports what it sees: for a group that it leads, also how far each replica
//! is; for others, its own replica. A client that wants the whole asks every node and joins the answers
//! ([`Cluster::merge`]).

use serde::{Deserialize, Serialize};

/// What one node knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's name.
    pub cluster: String,
    /// The node that reports.
    pub node: u64,
    /// The nodes of the cluster, by id.
    pub nodes: Vec<Node>,
    /// The meta group and the shard groups that the node knows, meta first, then by shard.
    pub groups: Vec<Group>,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id; never used again once the node is removed.
    pub id: u64,
    /// The region's number.
    pub region: u16,
    /// The failure domain, or nothing.
    pub zone: String,
    /// `active` or `leaving`.
    pub phase: String,
    /// Where other nodes reach it, `host:port`.
    pub peer: String,
    /// Its gateway, a whole URL.
    pub http: String,
    /// Its admin listener, a whole URL.
    pub admin: String,
    /// Whether the reporting node has a working connection to it.
    pub connected: bool,
    /// How many shards it leads, as far as the reporting node knows.
    pub leads: u32,
}

/// A Raft group, as the reporting node's replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// `meta`, or region and shard as in `r0-s5`.
    pub group: String,
    /// The shard's number; none for the meta group.
    pub shard: Option<u16>,
    /// First slot of the shard (of 16,384), and the first one after it.
    pub slots: Option<(u16, u16)>,
    /// Who leads; none while nobody does.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_index: u64,
    /// Index of the last entry known to be on a quorum.
    pub committed_index: u64,
    /// Index of the last entry applied.
    pub applied_index: u64,
    /// Index of the last entry in the newest snapshot.
    pub snapshot_index: u64,
    /// Bytes of log kept.
    pub log_bytes: u64,
    /// The replicas, by node.
    pub replicas: Vec<Replica>,
}

/// A replica of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// On which node.
    pub node: u64,
    /// Whether it votes; a learner does not.
    pub voter: bool,
    /// Last entry known to be on its disk; none when the reporter does not lead.
    pub matched_index: Option<u64>,
    /// Entries by which it is behind the leader; none when the reporter does not lead.
    pub lag: Option<u64>,
}

impl Cluster {
    /// Joins the reports of several nodes: for each group, the one of the highest term, and of those the leader's own.
    #[must_use]
    pub fn merge(reports: Vec<Self>) -> Self {
        let mut reports = reports.into_iter();
        let mut whole = reports.next().unwrap_or_default();
        let mut reporter = vec![whole.node; whole.groups.len()];
        for report in reports {
            for group in report.groups {
                let known = whole
                    .groups
                    .iter()
                    .position(|other| other.group == group.group);
                let Some(at) = known else {
                    whole.groups.push(group);
                    reporter.push(report.node);
                    continue;
                };
                let newer = group.term > whole.groups[at].term;
                let leads = group.leader == Some(report.node);
                if newer || (group.term == whole.groups[at].term && leads) {
                    whole.groups[at] = group;
                    reporter[at] = report.node;
                }
            }
        }
        whole.count_leaders();
        whole
    }

    /// Sets how many shards each node leads.
    pub fn count_leaders(&mut self) {
        for node in &mut self.nodes {
            let leads = |group: &&Group| group.shard.is_some() && group.leader == Some(node.id);
            node.leads =
                u32::try_from(self.groups.iter().filter(leads).count()).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u64, term: u64, leader: Option<u64>) -> Cluster {
        let group = Group {
            group: "r0-s0".into(),
            shard: Some(0),
            term,
            leader,
            ..Group::default()
        };
        let nodes = vec![
            Node {
                id: 1,
                ..Node::default()
            },
            Node {
                id: 2,
                ..Node::default()
            },
        ];
        Cluster {
            node,
            nodes,
            groups: vec![group],
            ..Cluster::default()
        }
    }

    #[test]
    fn the_highest_term_wins_and_then_the_leaders_own_report() {
        let whole = Cluster::merge(vec![report(1, 3, Some(1)), report(2, 4, Some(2))]);
        assert_eq!((whole.groups[0].term, whole.groups[0].leader), (4, Some(2)));
        assert_eq!(
            whole
                .nodes
                .iter()
                .map(|node| node.leads)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        let whole = Cluster::merge(vec![report(1, 4, None), report(2, 4, Some(2))]);
        assert_eq!(whole.groups[0].leader, Some(2));
    }
}
