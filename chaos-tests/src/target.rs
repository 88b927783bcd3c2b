//! What checks need to know of a cluster, however it was started: on loopback, or in namespaces on a switch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::id::GroupId;
use model::status::ClusterStatus;

use crate::cluster::Node;

/// How long an admin listener has to answer.
const ADMIN: Duration = Duration::from_secs(2);

/// A cluster.
#[derive(Clone, Debug)]
pub struct Target {
    /// The key of its one tenant.
    pub api_key: String,
    /// Its nodes: gateways and admin listeners. They keep these URLs when they start again.
    pub nodes: Vec<Node>,
    /// The client that reaches them.
    pub http: reqwest::Client,
    /// Everything that may hold bytes of sessions: data, logs.
    pub folders: Vec<PathBuf>,
}

impl Target {
    /// The gateways, as URLs.
    #[must_use]
    pub fn gateways(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.http.clone()).collect()
    }

    /// What a node's admin listener says of the cluster, if it answers.
    pub async fn status(&self, position: usize) -> Option<ClusterStatus> {
        let url = format!("{}/admin/v1/cluster", self.nodes.get(position)?.admin);
        let request = self.http.get(url).timeout(ADMIN);
        request.send().await.ok()?.json().await.ok()
    }

    /// The body of a page of a node's admin listener, if it answers.
    pub async fn admin_page(&self, position: usize, path: &str) -> Option<String> {
        let url = format!("{}{path}", self.nodes.get(position)?.admin);
        let request = self.http.get(url).timeout(ADMIN);
        request.send().await.ok()?.text().await.ok()
    }

    /// A metric of a node, the sum over its labels, if it answers and has one.
    pub async fn metric(&self, position: usize, name: &str) -> Option<f64> {
        let page = self.admin_page(position, "/metrics").await?;
        sum(&page, name)
    }

    /// Which position leads which shard group: what the leaders themselves say, the one with the highest term.
    pub async fn leaders(&self) -> BTreeMap<String, usize> {
        let mut leaders: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        for position in 0..self.nodes.len() {
            let Some(status) = self.status(position).await else {
                continue;
            };
            for group in status.groups {
                let leads =
                    group.leader == Some(status.node) && group.group != GroupId::Meta.to_string();
                let newer = leaders
                    .get(&group.group)
                    .is_none_or(|(term, _)| group.term > *term);
                if leads && newer {
                    leaders.insert(group.group, (group.term, position));
                }
            }
        }
        let position = |(group, (_, position))| (group, position);
        leaders.into_iter().map(position).collect()
    }

    /// How many shards its region has, if a node says so.
    pub async fn shards(&self) -> Option<u16> {
        for position in 0..self.nodes.len() {
            if let Some(status) = self.status(position).await {
                return Some(status.shards);
            }
        }
        None
    }
}

fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let found = series.split('{').next() == Some(name);
        found.then(|| value.parse::<f64>().ok()).flatten()
    });
    values.reduce(|all, one| all + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels_and_of_no_longer_name() {
        let page = "# TYPE a counter\na 2\nb{x=\"1\"} 1.5\nb{x=\"2\"} 2\nab 7\n";
        assert_eq!(sum(page, "a"), Some(2.0));
        assert_eq!(sum(page, "b"), Some(3.5));
        assert_eq!(sum(page, "c"), None);
    }
}
