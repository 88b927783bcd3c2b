//! Disks that fail, lie, hang, are slow, or are of another time: nothing is acknowledged that is not kept, and others lead.

use std::time::Duration;

use model::id::{GroupId, NodeId};
use storage::disk::CrashKeeps;
use tokio::time::{Instant, timeout};

use crate::error::Fatal;
use crate::testing::{Cluster, read, shard, write};

const BARRIER: Duration = Duration::from_secs(3);
/// Within which leadership leaves a node whose disk fails.
const MOVES: Duration = Duration::from_secs(5);
const SHARDS: u16 = 3;

fn others(node: NodeId) -> [NodeId; 2] {
    let others: Vec<_> = (1..=3).map(NodeId).filter(|other| *other != node).collect();
    others.try_into().expect("of three nodes two are others")
}

/// A cluster with ten chunks in its first shard, that has its name, and the node that leads this shard.
async fn filled(seed: u64) -> (Cluster, NodeId) {
    let cluster = Cluster::started(seed, 3, SHARDS).await;
    for id in 0..10 {
        cluster.write(shard(0), id, b"kept").await;
    }
    let named = |cluster: &Cluster| {
        let nodes = (1..=3).map(NodeId);
        nodes
            .into_iter()
            .all(|node| cluster.host(node).map().borrow().is_bootstrapped())
    };
    cluster.until("the cluster is named", named).await;
    let leader = cluster.wait_leader(shard(0)).await;
    (cluster, leader)
}

/// Whether one of these nodes leads every shard.
fn lead(cluster: &Cluster, nodes: [NodeId; 2]) -> bool {
    (0..SHARDS).all(|number| {
        nodes
            .into_iter()
            .any(|node| cluster.group(node, shard(number)).is_leader())
    })
}

/// Writes by these nodes, going on until it is done.
async fn write_by(cluster: &Cluster, nodes: [NodeId; 2], id: u64) {
    let until = Instant::now() + MOVES;
    loop {
        for node in nodes {
            let group = cluster.group(node, shard(0));
            if group.is_leader() && write(&*group, id, b"kept").await.is_ok() {
                return;
            }
        }
        assert!(Instant::now() < until, "chunk {id} is not written in time");
        tokio::task::yield_now().await;
    }
}

async fn has_all(cluster: &Cluster, node: NodeId, chunks: u64) {
    let group = cluster.group(node, shard(0));
    group.barrier(BARRIER).await.unwrap();
    for id in 0..chunks {
        let found = read(&*group, id);
        assert_eq!(found.as_deref(), Some(&b"kept"[..]), "chunk {id} on {node}");
    }
}

async fn why_it_ends(cluster: &Cluster, node: NodeId) -> Fatal {
    let mut fatal = cluster.host(node).fatal();
    let told = timeout(MOVES, fatal.wait_for(Option::is_some)).await;
    let reason = told.expect("it ends in time").expect("the host is there");
    reason.clone().expect("there is a reason")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_sync_fails_once_acknowledges_nothing_more_and_others_lead() {
    let (mut cluster, leader) = filled(60).await;
    cluster
        .log_disk(leader)
        .fail_sync(0, std::io::ErrorKind::Other);
    let group = cluster.group(leader, shard(0));
    let began = Instant::now();
    // With the followers' quorum it may still be applied; by the failed disk it is not acknowledged.
    drop(write(&*group, 100, b"unknown").await);
    why_it_ends(&cluster, leader).await;
    let refused = write(&*group, 101, b"never").await;
    assert!(refused.is_err(), "{refused:?}");
    cluster.kill(leader, CrashKeeps::Nothing).await;
    let well = others(leader);
    cluster
        .until("the others lead", |cluster| lead(cluster, well))
        .await;
    assert!(began.elapsed() < MOVES);
    write_by(&cluster, well, 10).await;
    cluster.start(leader).await.unwrap();
    has_all(&cluster, leader, 11).await;
    assert_eq!(read(&*cluster.group(leader, shard(0)), 101), None);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_while_nobody_writes_ends_its_node() {
    let (mut cluster, leader) = filled(61).await;
    let quiet = others(leader)[0];
    // The next sync is that of the life, which is raised every few seconds, or of the log.
    cluster
        .log_disk(quiet)
        .fail_sync(0, std::io::ErrorKind::Other);
    let mut fatal = cluster.host(quiet).fatal();
    let told = timeout(MOVES + BARRIER, fatal.wait_for(Option::is_some)).await;
    assert!(told.expect("in time").is_ok());
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lied_is_refused_after_a_power_cut_and_rebuilt_under_a_new_id() {
    let (mut cluster, leader) = filled(62).await;
    let liar = others(leader)[0];
    cluster.log_disk(liar).set_lying(true);
    for id in 10..20 {
        cluster.write(shard(0), id, b"kept").await;
    }
    let acknowledged = |cluster: &Cluster| {
        let status = cluster.host(leader).status();
        let replicas = status.groups.into_iter().flat_map(|group| group.replicas);
        let mut of_it = replicas.filter(|replica| replica.node == liar.0);
        of_it.all(|replica| replica.lag.is_none_or(|lag| lag == 0))
    };
    cluster.until("all is acknowledged", acknowledged).await;
    cluster.kill(liar, CrashKeeps::Nothing).await;
    cluster.start(liar).await.unwrap();
    let reason = why_it_ends(&cluster, liar).await;
    assert!(matches!(reason, Fatal::Rebuild { .. }), "{reason:?}");
    cluster.kill(liar, CrashKeeps::Nothing).await;
    let new = cluster.admit(leader, Some(liar)).await;
    cluster
        .until("the liar is gone", |cluster| {
            cluster.host(leader).map().borrow().removed.contains(&liar)
        })
        .await;
    has_all(&cluster, new, 20).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_image_of_all_disks_is_refused_even_by_peers_that_were_restarted() {
    let (mut cluster, leader) = filled(63).await;
    let old = others(leader)[0];
    let before = cluster.image(old);
    for id in 10..20 {
        cluster.write(shard(0), id, b"kept").await;
    }
    // A life that is started again shows one more: two more must have been seen of the disk that is replaced.
    let lived = cluster.host(old).life();
    cluster
        .until("it has lived on", |cluster| {
            cluster.host(old).life() > lived + 1
        })
        .await;
    let met = Instant::now();
    cluster
        .until("the others have heard so", |_| {
            met.elapsed() > Duration::from_millis(1500)
        })
        .await;
    cluster.kill(old, CrashKeeps::Everything).await;
    for peer in others(old) {
        cluster.stop(peer).await;
    }
    cluster.start_all_but(old).await;
    cluster.restore(old, &before);
    cluster.start(old).await.unwrap();
    let reason = why_it_ends(&cluster, old).await;
    assert!(matches!(reason, Fatal::Rebuild { .. }), "{reason:?}");
    let well = others(old);
    cluster
        .until("the others lead", |cluster| lead(cluster, well))
        .await;
    write_by(&cluster, well, 20).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_slow_gives_everything_up_to_those_that_are_well() {
    let (mut cluster, leader) = filled(64).await;
    let slow = Some(Duration::from_millis(200));
    cluster.log_disk(leader).slow_syncs(slow);
    let well = others(leader);
    let began = Instant::now();
    let mut id = 10;
    while !lead(&cluster, well) {
        cluster.write(shard(0), id, b"kept").await;
        id += 1;
        assert!(began.elapsed() < MOVES + BARRIER, "it still leads");
    }
    assert_eq!(cluster.host(leader).slow(), ["slow-disk"]);
    // It learns that others lead as fast as its disk lets it.
    let claims = |cluster: &Cluster| {
        (0..SHARDS).any(|number| cluster.group(leader, shard(number)).is_leader())
    };
    cluster
        .until("it has given up everything", |cluster| !claims(cluster))
        .await;
    // It is given nothing back, although it is the preferred one of some.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        cluster.write(shard(0), id, b"kept").await;
        id += 1;
        assert!(!claims(&cluster), "it was given a leadership");
    }
    cluster.log_disk(leader).slow_syncs(None);
    has_all(&cluster, leader, id).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_all_slow_go_on_as_they_are() {
    let (mut cluster, _) = filled(65).await;
    let pretend = |cluster: &Cluster, slow| {
        let nodes = (1..=3).map(NodeId);
        nodes
            .into_iter()
            .for_each(|node| cluster.host(node).pretend_slow(slow));
    };
    pretend(&cluster, true);
    let known = |cluster: &Cluster| {
        let mut nodes = (1..=3).map(NodeId);
        nodes.all(|node| cluster.host(node).slow().is_empty())
    };
    cluster
        .until("each knows that nobody is better", known)
        .await;
    let leader = cluster.wait_leader(shard(0)).await;
    let since = Instant::now();
    let mut id = 10;
    while since.elapsed() < Duration::from_secs(3) {
        cluster.write(shard(0), id, b"kept").await;
        id += 1;
        assert_eq!(cluster.wait_leader(shard(0)).await, leader);
    }
    cluster.host(others(leader)[0]).pretend_slow(false);
    cluster
        .until("the one that is well leads", |cluster| {
            cluster.leader(shard(0)) == Some(others(leader)[0])
        })
        .await;
    assert_eq!(cluster.host(leader).slow(), ["slow-disk"]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_sync_never_returns_leads_no_more_and_says_so() {
    let (mut cluster, leader) = filled(66).await;
    cluster.log_disk(leader).hold_syncs(true);
    let well = others(leader);
    let began = Instant::now();
    // Somebody writes, or nobody would know.
    let group = cluster.group(leader, shard(0));
    drop(timeout(Duration::from_millis(500), write(&*group, 100, b"unknown")).await);
    cluster
        .until("the others lead", |cluster| lead(cluster, well))
        .await;
    assert!(began.elapsed() < MOVES + BARRIER, "{:?}", began.elapsed());
    cluster
        .until("it does not believe that it leads", |cluster| {
            (0..SHARDS).all(|number| !cluster.group(leader, shard(number)).is_leader())
        })
        .await;
    write_by(&cluster, well, 10).await;
    cluster.log_disk(leader).hold_syncs(false);
    has_all(&cluster, leader, 11).await;
    assert!(
        cluster
            .host(leader)
            .status()
            .groups
            .iter()
            .all(|group| { group.group != GroupId::Meta.to_string() || group.leader.is_some() })
    );
    cluster.stop_all().await;
}
