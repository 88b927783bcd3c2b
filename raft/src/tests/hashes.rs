//! Replicas of a group hold the same at the same index, and a difference shows.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::id::{GroupId, NodeId};
use model::state::{Key, StateWrite as _};
use model::status::StateHash;
use tokio::task::yield_now;

use crate::testing::{Cluster, chunk, shard};

/// Waits until all nodes show the group at the same index.
async fn until_comparable(cluster: &Cluster, group: GroupId) -> Vec<StateHash> {
    let equal = async {
        loop {
            let mut all = Vec::new();
            for node in cluster.running() {
                let hashes = cluster.host(node).hashes().await.unwrap();
                let name = group.to_string();
                let found = hashes.groups.into_iter().find(|it| it.group == name);
                all.push(found.unwrap());
            }
            let indexes: BTreeSet<u64> = all.iter().map(|it| it.applied_index).collect();
            if indexes.len() == 1 {
                return all;
            }
            yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, equal)
        .await
        .expect("equal indexes in time")
}

fn distinct(all: &[StateHash]) -> usize {
    let hashes: BTreeSet<_> = all
        .iter()
        .map(|it| it.hash.as_deref().expect("a hash"))
        .collect();
    hashes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_have_one_hash_at_one_index_and_a_changed_value_another() {
    let mut cluster = Cluster::started(31, 3, 2).await;
    let group = shard(0);
    for id in 0..20 {
        cluster.write(group, id, b"the same everywhere").await;
    }
    for group in [GroupId::Meta, shard(0), shard(1)] {
        let all = until_comparable(&cluster, group).await;
        assert_eq!(all.len(), 3);
        assert_eq!(distinct(&all), 1, "{all:?}");
    }
    let before = until_comparable(&cluster, group).await;
    assert!(before[0].keys >= 20, "{before:?}");

    // One byte on one replica, past the log.
    let tablet = cluster.host(NodeId(2)).store_for_test(group).current();
    let mut txn = tablet.begin();
    txn.put(Key::Chunk(chunk(7)), Bytes::from_static(b"not the same"));
    let mark = tablet.applied().unwrap();
    tablet.commit(&txn, &mark).unwrap();
    let all = until_comparable(&cluster, group).await;
    assert_eq!(distinct(&all), 2, "{all:?}");
    cluster.stop_all().await;
}
