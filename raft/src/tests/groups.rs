//! Clusters of three nodes in one process.

use std::time::Duration;

use model::id::NodeId;
use model::shard::Command;
use model::time::Clock as _;
use storage::disk::CrashKeeps;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::log_time::ClusterClock;
use crate::shard::ProposeError;
use crate::testing::{Cluster, read, shard, write};

const BARRIER: Duration = Duration::from_secs(3);

fn others(leader: NodeId) -> Vec<NodeId> {
    (1..=3).map(NodeId).filter(|node| *node != leader).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_read_on_the_leader_and_on_followers() {
    let mut cluster = Cluster::started(1, 3, 2).await;
    let group = shard(1);
    cluster.write(group, 7, b"seven").await;
    for node in (1..=3).map(NodeId) {
        let replica = cluster.group(node, group);
        replica.barrier(BARRIER).await.unwrap();
        assert_eq!(
            read(&*replica, 7).as_deref(),
            Some(&b"seven"[..]),
            "on node {node}"
        );
    }
    cluster
        .until("the cluster is named", |cluster| {
            cluster.host(NodeId(2)).map().borrow().is_bootstrapped()
        })
        .await;
    assert_eq!(cluster.host(NodeId(3)).status().groups.len(), 3);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_within_700_ms_after_a_kill_and_nothing_is_lost() {
    let mut cluster = Cluster::started(2, 3, 1).await;
    let group = shard(0);
    for id in 0..20 {
        cluster.write(group, id, b"before").await;
    }
    let leader = cluster.wait_leader(group).await;
    let killed = Instant::now();
    cluster.silence(leader);
    cluster
        .until("another leads", |cluster| {
            others(leader)
                .into_iter()
                .any(|node| cluster.group(node, group).is_leader())
        })
        .await;
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(700), "took {took:?}");
    cluster.kill(leader, CrashKeeps::Nothing).await;
    cluster.write(group, 100, b"after").await;
    cluster.start(leader).await.unwrap();
    let back = cluster.group(leader, group);
    back.barrier(BARRIER).await.unwrap();
    assert_eq!(read(&*back, 100).as_deref(), Some(&b"after"[..]));
    for id in 0..20 {
        assert_eq!(read(&*back, id).as_deref(), Some(&b"before"[..]));
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_wall_clock_is_hours_off_keeps_the_time_of_the_cluster() {
    let mut cluster = Cluster::started(22, 3, 1).await;
    for (node, ahead) in [(2, -7_200_000), (3, 3_600_000)] {
        let wall = cluster.clock(NodeId(node));
        wall.set_ahead(ahead);
        let time = ClusterClock::new(&*wall);
        cluster.host(NodeId(node)).keep_time(&time);
        cluster
            .until("it knows the time", |cluster| {
                let right = cluster.clock(NodeId(1)).now().0;
                time.now().0.abs_diff(right) < 1000
            })
            .await;
        assert!(cluster.host(NodeId(node)).clock_is_sick());
        wall.set_ahead(0);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_leads_nothing_and_the_others_take_over_fast() {
    let mut cluster = Cluster::started(3, 3, 6).await;
    let leader = cluster.wait_leader(shard(0)).await;
    let began = Instant::now();
    let left = cluster.host(leader).drain(Duration::from_secs(3)).await;
    let took = began.elapsed();
    assert_eq!(left, 0);
    for number in 0..6 {
        assert!(!cluster.group(leader, shard(number)).is_leader());
    }
    cluster.led().await;
    assert!(took < Duration::from_millis(600), "took {took:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderships_are_spread_over_the_nodes() {
    let mut cluster = Cluster::started(4, 3, 6).await;
    cluster
        .until("two shards for each node", |cluster| {
            (1..=3).map(NodeId).all(|node| {
                let led = (0..6).filter(|number| cluster.group(node, shard(*number)).is_leader());
                led.count() == 2
            })
        })
        .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_comes_back_after_a_power_cut() {
    let mut cluster = Cluster::started(5, 3, 2).await;
    for id in 0..30 {
        cluster.write(shard(0), id, &[7; 20_000]).await;
    }
    for node in (1..=3).map(NodeId) {
        cluster.kill(node, CrashKeeps::Nothing).await;
    }
    cluster.start_all().await;
    cluster.led().await;
    let leader = cluster.wait_leader(shard(0)).await;
    let replica = cluster.group(leader, shard(0));
    replica.barrier(BARRIER).await.unwrap();
    for id in 0..30 {
        assert_eq!(
            read(&*replica, id).map(|data| data.len()),
            Some(20_000),
            "chunk {id}"
        );
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_read_once_another_leads() {
    let mut cluster = Cluster::started(6, 3, 1).await;
    let group = shard(0);
    cluster.write(group, 1, b"old").await;
    let old = cluster.wait_leader(group).await;
    cluster.net.isolate(old, &others(old));
    cluster
        .until("another leads", |cluster| {
            others(old)
                .into_iter()
                .any(|node| cluster.group(node, group).is_leader())
        })
        .await;
    let new = others(old)
        .into_iter()
        .find(|node| cluster.group(*node, group).is_leader());
    let new = cluster.group(new.unwrap(), group);
    write(&*new, 2, b"new").await.unwrap();
    let stale = cluster.group(old, group);
    let answer = stale.barrier(Duration::from_millis(300)).await;
    assert!(answer.is_err(), "the old leader has not seen the new write");
    cluster.net.heal_all();
    stale.barrier(BARRIER).await.unwrap();
    assert_eq!(read(&*stale, 2).as_deref(), Some(&b"new"[..]));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_does_not_hide_what_a_follower_has_shown() {
    let mut cluster = Cluster::started(19, 3, 1).await;
    let group = shard(0);
    cluster.write(group, 1, b"old").await;
    let leader = cluster.wait_leader(group).await;
    let leads = cluster.group(leader, group);
    // It commits, and cannot apply.
    cluster.state_disk(leader).set_stalled(true);
    let mut proposed = JoinSet::new();
    {
        let leads = cluster.group(leader, group);
        proposed.spawn(async move { write(&*leads, 2, b"new").await });
    }
    let followers: Vec<_> = others(leader)
        .into_iter()
        .map(|node| cluster.group(node, group))
        .collect();
    cluster
        .until("a follower shows it", |_| {
            read(&*followers[0], 2).as_deref() == Some(&b"new"[..])
        })
        .await;
    let early = leads.barrier(Duration::from_millis(300)).await;
    assert!(early.is_err(), "it has not applied what was read there");
    for follower in followers {
        follower.barrier(BARRIER).await.unwrap();
        assert_eq!(read(&*follower, 2).as_deref(), Some(&b"new"[..]));
    }
    cluster.state_disk(leader).set_stalled(false);
    leads.barrier(BARRIER).await.unwrap();
    assert_eq!(read(&*leads, 2).as_deref(), Some(&b"new"[..]));
    // Its client may have given up.
    drop(proposed.join_next().await);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(7, 3, 1);
    cluster.tuning.log_bytes = 256 << 10;
    cluster.start_all().await;
    cluster.led().await;
    let group = shard(0);
    let leader = cluster.wait_leader(group).await;
    let behind = others(leader)[0];
    cluster.kill(behind, CrashKeeps::Everything).await;
    for id in 0..150 {
        cluster.write(group, id, &[9; 10_000]).await;
    }
    let snapshot = |cluster: &Cluster| {
        let status = cluster.host(leader).status();
        let shard = status.groups.iter().find(|group| group.group != "meta");
        shard.is_some_and(|group| group.snapshot_index > 70 && group.log_bytes < 900_000)
    };
    cluster
        .until("the leader has purged its log", snapshot)
        .await;
    cluster.start(behind).await.unwrap();
    let replica = cluster.group(behind, group);
    cluster
        .until("the replica has it all", |_| {
            (0..150).all(|id| read(&*replica, id).is_some())
        })
        .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_groups_do_not_keep_the_log_of_a_busy_one_from_being_used_again() {
    let mut cluster = Cluster::new(17, 3, 2);
    cluster.tuning.log_bytes = 256 << 10;
    cluster.tuning.log.segment_bytes = 256 << 10;
    cluster.tuning.log.max_segments = 96;
    cluster.start_all().await;
    cluster.led().await;
    // Half as much again as the log can hold; the other shard and the meta group have a few entries each, the oldest of all.
    cluster.write(shard(1), 1, b"quiet").await;
    for id in 0..3600 {
        cluster.write(shard(0), id, &[9; 10_000]).await;
    }
    let replica = cluster.group(cluster.wait_leader(shard(1)).await, shard(1));
    assert_eq!(read(&*replica, 1).as_deref(), Some(&b"quiet"[..]));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_for_a_while_on_every_node_frees_itself() {
    let mut cluster = Cluster::new(18, 3, 2);
    cluster.tuning.log_bytes = 256 << 10;
    cluster.tuning.log.segment_bytes = 256 << 10;
    // Full several times over, and always before the housekeeping comes round.
    cluster.tuning.log.max_segments = 8;
    cluster.start_all().await;
    cluster.led().await;
    for id in 0..900 {
        cluster.write(shard(0), id, &[9; 10_000]).await;
    }
    let refused = (1..=3)
        .map(NodeId)
        .map(|node| cluster.host(node).log_stats());
    let refused: u64 = refused.flatten().map(|stats| stats.full).sum();
    assert_eq!(refused, 0, "nothing that was taken ever waited for room");
    cluster.write(shard(1), 1, b"another").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_are_short_of_space_take_deletions_only() {
    let cluster = Cluster::started(20, 3, 1).await;
    cluster.write(shard(0), 1, b"one").await;
    for node in 1..=3 {
        // All of them: nobody hands anything over then.
        cluster.host(NodeId(node)).pretend_space(1000, 10);
        assert!(cluster.host(NodeId(node)).is_disk_short());
    }
    // As soon as the leader has heard of the others.
    let began = Instant::now();
    let group = loop {
        let leader = cluster.wait_leader(shard(0)).await;
        let group = cluster.group(leader, shard(0));
        match write(&*group, 2, b"two").await {
            Err(ProposeError::DiskFull) => break group,
            other => assert!(began.elapsed() < BARRIER, "{other:?}"),
        }
    };
    // The last may be handed over to who has not said that it is short.
    let deadline = Instant::now() + BARRIER;
    loop {
        let leader = cluster.wait_leader(shard(0)).await;
        let group = cluster.group(leader, shard(0));
        match group.propose(Command::Sweep, deadline).await {
            Ok(_) => break,
            Err(ProposeError::NotLeader { .. }) => assert!(Instant::now() < deadline),
            Err(other) => unreachable!("a deletion is refused: {other:?}"),
        }
    }
    group.barrier(BARRIER).await.unwrap();
    assert_eq!(read(&*group, 1).as_deref(), Some(&b"one"[..]));
    for node in 1..=3 {
        cluster.host(NodeId(node)).pretend_space(1000, 500);
    }
    cluster.write(shard(0), 2, b"two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_short_of_space_hands_over_and_no_write_is_refused() {
    let cluster = Cluster::started(21, 3, 1).await;
    cluster.write(shard(0), 1, b"one").await;
    let leader = cluster.wait_leader(shard(0)).await;
    cluster.host(leader).pretend_space(1000, 10);
    let group = cluster.group(leader, shard(0));
    let written = write(&*group, 2, b"two").await;
    assert!(
        !matches!(written, Err(ProposeError::DiskFull)),
        "a majority has room"
    );
    cluster
        .until("another node leads", |cluster| {
            let ground = cluster.host(leader).ground();
            ground
                .directory
                .local(shard(0))
                .and_then(|group| group.leader())
                .is_some_and(|now| now != leader)
        })
        .await;
    cluster.write(shard(0), 3, b"three").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_for_snapshots_ends_no_node_and_they_come_when_there_is_some() {
    let mut cluster = Cluster::new(19, 3, 1);
    cluster.tuning.log_bytes = 16 << 10;
    cluster.start_all().await;
    cluster.led().await;
    let nodes = || (1..=3).map(NodeId);
    let group = shard(0).to_raw();
    nodes().for_each(|node| cluster.state_disk(node).set_full(true));
    for id in 0..20 {
        cluster.write(shard(0), id, &[9; 10_000]).await;
    }
    cluster
        .until("each node was refused a snapshot twice", |cluster| {
            nodes().all(|node| cluster.state_disk(node).refused() > 1)
        })
        .await;
    for node in nodes() {
        assert!(cluster.host(node).fatal().borrow().is_none(), "{node}");
        assert!(!cluster.state_disk(node).has_snapshot(group));
    }
    cluster.write(shard(0), 20, b"goes on").await;
    nodes().for_each(|node| cluster.state_disk(node).set_full(false));
    cluster
        .until("each node has a snapshot", |cluster| {
            nodes().all(|node| cluster.state_disk(node).has_snapshot(group))
        })
        .await;
    cluster.write(shard(0), 21, b"goes on").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_wiped_disk_is_refused() {
    let mut cluster = Cluster::started(8, 3, 1).await;
    cluster.write(shard(0), 1, b"one").await;
    let leader = cluster.wait_leader(shard(0)).await;
    let wiped = others(leader)[0];
    let acknowledged = |cluster: &Cluster| {
        let status = cluster.host(leader).status();
        let replicas = status.groups.into_iter().flat_map(|group| group.replicas);
        let mut wiped = replicas.filter(|replica| replica.node == wiped.0);
        wiped.all(|replica| replica.lag == Some(0))
    };
    cluster.until("all is acknowledged", acknowledged).await;
    cluster.kill(wiped, CrashKeeps::Everything).await;
    cluster.add(wiped);
    cluster.start(wiped).await.unwrap();
    let mut fatal = cluster.host(wiped).fatal();
    let told = tokio::time::timeout(BARRIER, fatal.wait_for(Option::is_some)).await;
    let reason = told.expect("in time").unwrap().clone();
    assert!(
        matches!(reason, Some(crate::error::Fatal::Rebuild { .. })),
        "{reason:?}"
    );
    cluster.write(shard(0), 2, b"two").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_takes_the_place_of_a_lost_one() {
    let mut cluster = Cluster::started(9, 3, 2).await;
    for id in 0..10 {
        cluster.write(shard(0), id, b"kept").await;
    }
    cluster
        .until("the cluster is named", |cluster| {
            (1..=3)
                .map(NodeId)
                .all(|node| cluster.host(node).map().borrow().is_bootstrapped())
        })
        .await;
    let leader = cluster.wait_leader(shard(0)).await;
    let lost = others(leader)[1];
    cluster.kill(lost, CrashKeeps::Nothing).await;
    let new = cluster.admit(leader, Some(lost)).await;
    assert_eq!(new, NodeId(4));
    cluster
        .until("the lost node is gone", |cluster| {
            cluster.host(leader).map().borrow().removed.contains(&lost)
        })
        .await;
    let replica = cluster.group(new, shard(0));
    replica.barrier(BARRIER).await.unwrap();
    for id in 0..10 {
        assert_eq!(read(&*replica, id).as_deref(), Some(&b"kept"[..]));
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_stopped_or_killed_leaves_nothing_in_memory() {
    let mut cluster = Cluster::started(22, 3, 2).await;
    cluster.write(shard(0), 1, b"one").await;
    let (stopped, killed) = (
        cluster.host(NodeId(1)).weak(),
        cluster.host(NodeId(2)).weak(),
    );
    cluster.stop(NodeId(1)).await;
    cluster.kill(NodeId(2), CrashKeeps::Nothing).await;
    cluster
        .until("the stopped host is gone", |_| stopped.strong_count() == 0)
        .await;
    cluster
        .until("the killed host is gone", |_| killed.strong_count() == 0)
        .await;
    cluster.stop_all().await;
}
