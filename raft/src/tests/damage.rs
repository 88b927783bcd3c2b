//! A replica whose state is damaged is rebuilt from another node by itself, wherever the damage shows.

use std::time::Duration;

use model::id::{GroupId, NodeId};
use model::state::Key;
use storage::disk::CrashKeeps;
use tokio::time::Instant;

use crate::testing::{Cluster, chunk, read, shard, write};

const BARRIER: Duration = Duration::from_secs(3);

fn others(leader: NodeId) -> Vec<NodeId> {
    (1..=3).map(NodeId).filter(|node| *node != leader).collect()
}

/// Chunks in a cluster that is filled: more than entries stay in a log that is cut.
const FILLED: u64 = 90;
const BYTES: usize = 2_000;

/// A cluster with chunks in its first shard, on every node.
async fn filled(seed: u64, log_bytes: Option<u64>) -> Cluster {
    let mut cluster = Cluster::new(seed, 3, 2);
    cluster.tuning.log_bytes = log_bytes.unwrap_or(cluster.tuning.log_bytes);
    cluster.start_all().await;
    cluster.led().await;
    for id in 0..FILLED {
        cluster.write(shard(0), id, &[9; BYTES]).await;
    }
    until_whole(&cluster, FILLED).await;
    cluster
}

/// What a node's replica of the first shard has of a chunk; nothing while it has no replica open.
fn held(cluster: &Cluster, node: NodeId, id: u64) -> Option<usize> {
    let local = cluster.host(node).ground().directory.local(shard(0))?;
    read(&*local, id).map(|data| data.len())
}

/// Waits until every node has all chunks up to `count`, and none is being rebuilt.
async fn until_whole(cluster: &Cluster, count: u64) {
    cluster
        .until("every replica is whole", |cluster| {
            cluster.running().into_iter().all(|node| {
                cluster.host(node).repairs().is_empty()
                    && (0..count).all(|id| held(cluster, node, id) == Some(BYTES))
            })
        })
        .await;
    for node in cluster.running() {
        assert_eq!(cluster.host(node).fatal().borrow().clone(), None, "{node}");
    }
}

fn damage(cluster: &Cluster, node: NodeId, key: &Key) {
    assert!(cluster.state_disk(node).damage(shard(0).to_raw(), key));
}

/// Whether a node has a snapshot of the first shard up to an entry, and has cut its log.
fn cut(cluster: &Cluster, node: NodeId, index: u64) -> bool {
    let status = cluster.host(node).status();
    let group = shard(0).to_string();
    let mut groups = status.groups.iter().filter(|status| status.group == group);
    groups.any(|group| group.snapshot_index > index && group.log_bytes < 160_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_reads_a_damaged_value_is_rebuilt_while_its_other_groups_go_on() {
    let mut cluster = filled(40, None).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let damaged = others(leader)[0];
    damage(&cluster, damaged, &Key::Chunk(chunk(3)));
    assert_eq!(held(&cluster, damaged, 3), None, "it is not served");
    cluster
        .until("it is set aside, or rebuilt already", |cluster| {
            !cluster.host(damaged).repairs().is_empty() || held(cluster, damaged, 3).is_some()
        })
        .await;
    let other = cluster.group(damaged, shard(1));
    other.barrier(BARRIER).await.unwrap();
    until_whole(&cluster, FILLED).await;
    cluster.write(shard(0), FILLED, &[9; BYTES]).await;
    until_whole(&cluster, FILLED + 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_damaged_hands_over_and_is_rebuilt_although_its_log_is_purged() {
    let mut cluster = filled(41, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    cluster
        .until("logs are purged", |cluster| {
            (1..=3).all(|node| cut(cluster, NodeId(node), 80))
        })
        .await;
    damage(&cluster, leader, &Key::Chunk(chunk(3)));
    assert_eq!(held(&cluster, leader, 3), None, "it is not served");
    let began = Instant::now();
    cluster
        .until("another leads", |cluster| {
            cluster.leader(shard(0)).is_some_and(|now| now != leader)
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(4));
    cluster.write(shard(0), FILLED, &[9; BYTES]).await;
    until_whole(&cluster, FILLED + 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_an_apply_meets_stops_that_replica_only_until_it_is_rebuilt() {
    let mut cluster = filled(42, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    for victim in [others(leader)[0], leader] {
        damage(&cluster, victim, &Key::ChunkInfo(chunk(3)));
        // Applying it reads what is known of the chunk.
        cluster.write(shard(0), 3, &[9; BYTES]).await;
        cluster.write(shard(0), FILLED, &[9; BYTES]).await;
        until_whole(&cluster, FILLED + 1).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_damaged_when_it_opens_is_rebuilt() {
    let mut cluster = filled(43, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let damaged = others(leader)[1];
    damage(&cluster, damaged, &Key::Head);
    cluster.kill(damaged, CrashKeeps::Everything).await;
    cluster.write(shard(0), FILLED, &[9; BYTES]).await;
    cluster.start(damaged).await.unwrap();
    until_whole(&cluster, FILLED + 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_gone_while_its_log_is_purged_is_fetched() {
    let mut cluster = filled(44, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let damaged = others(leader)[1];
    cluster
        .until("its log is purged", |cluster| cut(cluster, damaged, 80))
        .await;
    cluster.kill(damaged, CrashKeeps::Everything).await;
    cluster.state_disk(damaged).forget(shard(0).to_raw());
    cluster.start(damaged).await.unwrap();
    until_whole(&cluster, FILLED).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meta_group_is_rebuilt_too_and_followed_again() {
    let mut cluster = filled(45, None).await;
    let named = |cluster: &Cluster| {
        cluster
            .running()
            .into_iter()
            .all(|node| cluster.host(node).map().borrow().is_bootstrapped())
    };
    cluster.until("the cluster is named", named).await;
    let victim = NodeId(2);
    let meta = GroupId::Meta.to_raw();
    assert!(cluster.state_disk(victim).damage(meta, &Key::Meta));
    // Its apply writes all of it, so only an open reads it.
    cluster.kill(victim, CrashKeeps::Everything).await;
    cluster.start(victim).await.unwrap();
    let status = |cluster: &Cluster| {
        cluster.host(victim).repairs().is_empty() && cluster.host(victim).status().groups.len() == 3
    };
    cluster.until("the meta group is open", status).await;
    let new = cluster.admit(NodeId(1), None).await;
    cluster
        .until("the rebuilt node hears of the new one", |cluster| {
            cluster.host(victim).map().borrow().nodes.contains_key(&new)
        })
        .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_damaged_replicas_of_a_group_are_both_rebuilt_from_the_third() {
    let mut cluster = filled(46, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    for victim in [leader, others(leader)[0]] {
        damage(&cluster, victim, &Key::Chunk(chunk(5)));
        assert_eq!(held(&cluster, victim, 5), None, "it is not served");
    }
    until_whole(&cluster, FILLED).await;
    cluster.write(shard(0), FILLED, &[9; BYTES]).await;
    until_whole(&cluster, FILLED + 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_there_is_stays_open_and_serves_what_is_whole() {
    let mut cluster = Cluster::started(47, 1, 1).await;
    for id in 0..3 {
        cluster.write(shard(0), id, &[9; BYTES]).await;
    }
    damage(&cluster, NodeId(1), &Key::Chunk(chunk(1)));
    let group = cluster.group(NodeId(1), shard(0));
    assert_eq!(read(&*group, 1), None);
    let reads = Instant::now();
    cluster
        .until("the keeper has looked twice", |_| {
            reads.elapsed() > Duration::from_millis(2500)
        })
        .await;
    assert!(cluster.host(NodeId(1)).repairs().is_empty());
    write(&*group, 4, b"four").await.unwrap();
    assert_eq!(held(&cluster, NodeId(1), 2), Some(BYTES));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_finds_cold_damage_that_nobody_reads() {
    let mut cluster = filled(48, Some(16 << 10)).await;
    let damaged = others(cluster.wait_leader(shard(0)).await)[0];
    damage(&cluster, damaged, &Key::Chunk(chunk(7)));
    let before = cluster.group(damaged, shard(0));
    assert!(before.view().is_ok());
    cluster.host(damaged).scrub();
    cluster
        .until("the scrub has found it", |cluster| {
            cluster.host(damaged).scrub_report().damage > 0
        })
        .await;
    until_whole(&cluster, FILLED).await;
    cluster.host(damaged).scrub();
    cluster
        .until("another pass has ended", |cluster| {
            cluster.host(damaged).scrub_report().passes > 1
        })
        .await;
    let report = cluster.host(damaged).scrub_report();
    assert_eq!(report.damage, 1, "{report:?}");
    assert!(before.view().is_err(), "its store is another one's now");
    assert!(
        report.bytes > 180_000 && report.last.is_some(),
        "{report:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_of_a_leader_is_replaced_and_harms_no_follower() {
    let mut cluster = filled(49, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let behind = others(leader)[0];
    cluster.kill(behind, CrashKeeps::Everything).await;
    for id in FILLED..200 {
        cluster.write(shard(0), id, &[9; BYTES]).await;
    }
    cluster
        .until("its log is cut", |cluster| cut(cluster, leader, 180))
        .await;
    assert!(
        cluster
            .state_disk(leader)
            .damage_snapshot(shard(0).to_raw())
    );
    cluster.start(behind).await.unwrap();
    until_whole(&cluster, 200).await;
    assert!(cluster.host(leader).scrub_report().damage > 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_takes_the_place_of_a_damaged_one_from_a_damaged_state() {
    let mut cluster = filled(53, Some(16 << 10)).await;
    let damaged = others(cluster.wait_leader(shard(0)).await)[0];
    cluster
        .until("its log is cut", |cluster| cut(cluster, damaged, 60))
        .await;
    // Nobody has a state to rebuild it from: what the scrub does, stays.
    for other in others(damaged) {
        cluster.kill(other, CrashKeeps::Everything).await;
    }
    cluster
        .until("all that is applied is in a snapshot", |cluster| {
            let status = cluster.host(damaged).status();
            let mut groups = status.groups.iter();
            groups
                .any(|it| it.group == shard(0).to_string() && it.snapshot_index == it.applied_index)
        })
        .await;
    let disk = cluster.state_disk(damaged);
    let before = disk.snapshot(shard(0).to_raw());
    damage(&cluster, damaged, &Key::Chunk(chunk(3)));
    assert!(disk.damage_snapshot(shard(0).to_raw()));
    cluster.host(damaged).scrub();
    cluster
        .until("the pass has ended", |cluster| {
            cluster.host(damaged).scrub_report().passes > 0
        })
        .await;
    let report = cluster.host(damaged).scrub_report();
    assert_eq!(report.damage, 2, "{report:?}");
    assert_eq!(disk.snapshot(shard(0).to_raw()), before);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_is_damaged_cannot_spread_it_by_a_snapshot() {
    let mut cluster = filled(50, Some(16 << 10)).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let behind = others(leader)[0];
    cluster.kill(behind, CrashKeeps::Everything).await;
    damage(&cluster, leader, &Key::Chunk(chunk(3)));
    // The snapshot with which the log is cut has the damage in it, and says the hash of the damaged file.
    for id in FILLED..200 {
        cluster.write(shard(0), id, &[9; BYTES]).await;
    }
    cluster
        .until("its log is cut", |cluster| cut(cluster, leader, 180))
        .await;
    cluster.start(behind).await.unwrap();
    let offered = Instant::now();
    cluster
        .until("the snapshot was offered", |_| {
            offered.elapsed() > Duration::from_millis(1500)
        })
        .await;
    assert_eq!(cluster.host(behind).fatal().borrow().clone(), None);
    cluster.host(leader).scrub();
    until_whole(&cluster, 200).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_of_the_log_is_given_up_before_a_restart_finds_it() {
    let mut cluster = Cluster::new(51, 3, 1);
    cluster.tuning.log.segment_bytes = 256 << 10;
    cluster.start_all().await;
    cluster.led().await;
    for id in 0..400 {
        cluster.write(shard(0), id, &[9; BYTES]).await;
    }
    let rotten = others(cluster.wait_leader(shard(0)).await)[0];
    let stats = |cluster: &Cluster| cluster.host(rotten).log_stats().unwrap();
    cluster
        .until("it has several segments", |cluster| {
            stats(cluster).segments > 3
        })
        .await;
    assert_eq!(stats(&cluster).oldest_generation, 1);
    // In the middle of the oldest one, in the bytes of an entry: what pads a block is nobody's, and no scrub looks at it.
    let disk = cluster.log_disk(rotten);
    let content = disk.content("segment-00000000").unwrap();
    let entry = content[100_000..]
        .windows(64)
        .position(|bytes| bytes == [9; 64])
        .expect("an entry is there");
    disk.flip("segment-00000000", 100_000 + entry + 32, 4)
        .unwrap();
    cluster.host(rotten).scrub();
    cluster
        .until("the damage is found", |cluster| {
            cluster.host(rotten).scrub_report().damage > 0
        })
        .await;
    for id in 1000..u64::MAX {
        if stats(&cluster).oldest_generation > 1 {
            break;
        }
        assert!(id < 9_000, "the segment stays");
        cluster.write(shard(0), id, b"small").await;
    }
    cluster.kill(rotten, CrashKeeps::Nothing).await;
    cluster.start(rotten).await.unwrap();
    until_whole(&cluster, 400).await;
    cluster.stop_all().await;
}
