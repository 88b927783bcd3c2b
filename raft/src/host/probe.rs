//! Each node asks each other twice a second how it is: its life, its clock, and how far its groups have come.
//!
//! The answer's indices make the age of local reads known; its wall clock feeds log time; its life finds old disks.

use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use model::codec;
use model::id::{GroupId, NodeId};
use model::time::UnixMillis;
use tokio::time::Instant;

use super::inner::Inner;
use crate::error::Fatal;
use crate::kinds;
use crate::log_time::MAX_OFFSET;
use crate::transport::{Call, Lane, RemoteError, Reply, Request};

/// Between two probes of a peer.
const EVERY: Duration = Duration::from_millis(500);
/// Between two raises of the life, in probes.
const RAISE: u32 = 10;

/// What a node says of itself, as question and as answer.
#[derive(Debug, Encode, Decode)]
struct Probe {
    life: u64,
    wall: UnixMillis,
    draining: bool,
    /// Whether its disk is short of space.
    short: bool,
    /// How long its log's syncs take, in microseconds; zero while it does not know.
    sync_micros: u64,
    /// For which part of the time its timers are late, in percent; zero while it does not know.
    late_percent: u32,
    /// Read indices of the groups that it leads with a lease, by number.
    leads: Vec<(u32, u64)>,
}

fn ours(inner: &Inner) -> Bytes {
    let opened = inner.all_opened();
    let leads = opened.iter().filter_map(|opened| {
        let replica = &opened.replica;
        Some((replica.parts.group.to_raw(), replica.leased_index()?))
    });
    codec::encode(&Probe {
        life: inner.memory.life(),
        wall: inner.clocks.wall(),
        draining: inner.is_draining() || is_unfit(inner),
        short: inner.space.is_short(),
        sync_micros: u64::try_from(inner.health.sync().as_micros()).unwrap_or(u64::MAX),
        late_percent: inner.health.late(),
        leads: leads.collect(),
    })
}

/// Whether this node should not lead.
pub(crate) fn is_unfit(inner: &Inner) -> bool {
    clock_is_sick(inner) || inner.health.is_sick() || inner.space.is_short()
}

/// Whether this node's wall clock is too far from the others'.
pub(crate) fn clock_is_sick(inner: &Inner) -> bool {
    let nodes = all_nodes(inner);
    let offset = inner.clocks.agreed_offset(&nodes).unwrap_or(0);
    nodes.len() > 2 && Duration::from_millis(offset.unsigned_abs()) > MAX_OFFSET
}

fn all_nodes(inner: &Inner) -> Vec<NodeId> {
    let mut nodes = inner.others();
    nodes.push(inner.me);
    nodes
}

/// Answers a probe.
pub(crate) fn answer(inner: &Arc<Inner>, request: &Request, reply: Reply) {
    let Ok(probe) = codec::decode::<Probe>(&request.body) else {
        return reply.send(Err(RemoteError::code(kinds::BAD_MESSAGE)));
    };
    reply.send(match heard(inner, request.from, &probe) {
        true => Ok(ours(inner)),
        false => Err(RemoteError::code(kinds::NOT_READY)),
    });
}

fn heard(inner: &Arc<Inner>, from: NodeId, probe: &Probe) -> bool {
    // A node that came back with an old disk is found by the greeting of its connection (`hello.rs`).
    if !inner.memory.hear(from, probe.life) {
        return false;
    }
    inner.space.heard(from, probe.short);
    let mut peers = inner.peers.lock();
    let peer = peers.entry(from).or_default();
    peer.draining = probe.draining;
    peer.sync = Duration::from_micros(probe.sync_micros);
    peer.late = probe.late_percent;
    true
}

/// Probes all peers, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut round: u32 = 0;
    let mut raising: Option<tokio::task::JoinHandle<()>> = None;
    // The first at once: a node that leads soon must know the others' clocks.
    let mut goes_on = true;
    while goes_on {
        round = round.wrapping_add(1);
        for peer in inner.others() {
            inner.tasks.spawn(ask(Arc::clone(&inner), peer));
        }
        if round.is_multiple_of(RAISE) && raising.as_ref().is_none_or(|raise| raise.is_finished()) {
            // Not waited for: a disk that does not answer must not keep the peers from being asked.
            raising = Some(inner.tasks.spawn(raise(Arc::clone(&inner))));
        }
        steer(&inner);
        keep_time(&inner);
        goes_on = inner.pause(EVERY).await;
    }
}

/// Sets the clock that requests are stamped with, if there is one.
pub(crate) fn keep_time(inner: &Inner) {
    let Some(time) = inner.time.get() else { return };
    let opened = inner.all_opened();
    let known = opened
        .iter()
        .map(|opened| opened.replica.parts.progress.log_time());
    let agreed = inner.clocks.trusted(&all_nodes(inner));
    time.follow(agreed, known.max().unwrap_or_default());
}

async fn raise(inner: Arc<Inner>) {
    let memory = Arc::clone(&inner.memory);
    match crate::blocking::blocking(move || memory.raise()).await {
        Ok(Ok(took)) => inner.health.synced(took),
        // A full disk passes; the old life is still a true one.
        Ok(Err(error)) if storage::disk::is_full(&error) => {
            tracing::warn!(%error, "the node's life cannot be raised");
        }
        Ok(Err(error)) => {
            let reason = error.to_string();
            inner.fail(Fatal::Memory { reason });
        }
        Err(error) => tracing::error!(%error, "raising the node's life failed"),
    }
}

/// Slews the log time of the groups that this node leads.
fn steer(inner: &Inner) {
    for opened in inner.all_opened() {
        if opened.replica.role().ready
            && let Some(median) = inner.clocks.trusted(&opened.replica.voters())
        {
            opened.replica.time.steer(median);
        }
    }
}

async fn ask(inner: Arc<Inner>, peer: NodeId) {
    let sent = Instant::now();
    let call = Call {
        lane: Lane::Control,
        kind: kinds::PROBE,
        group: GroupId::Meta,
        body: ours(&inner),
        timeout: EVERY,
    };
    let answer = inner.transport().peer(peer).call(call).await;
    inner.peers.lock().entry(peer).or_default().reachable = answer.is_ok();
    let body = match answer {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%peer, %error, "peer does not answer a probe");
            return;
        }
    };
    let Ok(probe) = codec::decode::<Probe>(&body) else {
        return;
    };
    if !heard(&inner, peer, &probe) {
        return;
    }
    inner.clocks.heard(peer, probe.wall, sent);
    steer(&inner);
    keep_time(&inner);
    for (raw, index) in &probe.leads {
        if let Some(opened) = GroupId::from_raw(*raw).and_then(|group| inner.opened(group)) {
            opened.replica.probed(sent, *index);
        }
    }
}
