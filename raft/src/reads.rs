//! Linearizable reads on followers: one round for each peer, shared by all waiting reads of all its groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use model::id::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::coalesce::Coalesce;
use crate::kinds;
use crate::message::{BadMessage, Reader, Writer};
use crate::replica::{NoIndex, Replica};
use crate::transport::{Call, Lane, Transport};

/// How long a round may take.
const ROUND: Duration = Duration::from_secs(1);

/// Where a group's writes end, and when the question was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadPoint {
    pub(crate) index: u64,
    pub(crate) sent: Instant,
}

type Rounds = Coalesce<GroupId, Option<ReadPoint>>;

/// Asks leaders on other nodes.
pub(crate) struct PeerReads {
    transport: Transport,
    tasks: TaskTracker,
    rounds: Mutex<BTreeMap<NodeId, Rounds>>,
}

impl PeerReads {
    pub(crate) fn new(transport: Transport, tasks: TaskTracker) -> Arc<Self> {
        let rounds = Mutex::default();
        Arc::new(Self {
            transport,
            tasks,
            rounds,
        })
    }

    /// Up to where `group` must be read, says its leader. `None` when it does not lead, or does not answer.
    pub(crate) async fn ask(&self, leader: NodeId, group: GroupId) -> Option<ReadPoint> {
        let rounds = self.rounds.lock().entry(leader).or_default().clone();
        let peer = self.transport.peer(leader);
        let round = move |groups: Vec<GroupId>| {
            let peer = peer.clone();
            async move {
                let sent = Instant::now();
                let call = Call {
                    lane: Lane::Control,
                    kind: kinds::READ_INDEX,
                    group: GroupId::Meta,
                    body: encode_groups(&groups),
                    timeout: ROUND,
                };
                let answer = peer.call(call).await.ok();
                let known = answer
                    .and_then(|body| decode_indices(body).ok())
                    .unwrap_or_default();
                let point = |group| {
                    known.get(&group).map(|index| ReadPoint {
                        index: *index,
                        sent,
                    })
                };
                groups.into_iter().map(point).collect()
            }
        };
        rounds.ask(&self.tasks, group, round).await.flatten()
    }
}

/// Answers a round: the read index of each group that this node leads.
pub(crate) async fn answer(replicas: Vec<Arc<Replica>>) -> Bytes {
    let indices = replicas.iter().map(|replica| async {
        let index: Result<u64, NoIndex> = replica.read_index().await;
        (replica.parts.group, index)
    });
    let known: Vec<(GroupId, u64)> = join_all(indices)
        .await
        .into_iter()
        .filter_map(|(group, index)| Some((group, index.ok()?)))
        .collect();
    encode_indices(&known)
}

/// Group numbers, each once.
pub(crate) fn encode_groups(groups: &[GroupId]) -> Bytes {
    let mut raw: Vec<u32> = groups.iter().map(|group| group.to_raw()).collect();
    raw.sort_unstable();
    raw.dedup();
    let mut writer = Writer::new(8 * raw.len() + 8);
    writer.count(raw.len());
    for group in raw {
        writer.number(u64::from(group));
    }
    writer.finish()
}

/// Reads what [`encode_groups`] wrote.
pub(crate) fn decode_groups(body: Bytes) -> Result<Vec<GroupId>, BadMessage> {
    let mut reader = Reader::new(body)?;
    let mut groups = Vec::new();
    for _ in 0..reader.items()? {
        groups.push(group(reader.number()?)?);
    }
    reader.end()?;
    Ok(groups)
}

/// Groups and indices.
pub(crate) fn encode_indices(indices: &[(GroupId, u64)]) -> Bytes {
    let mut writer = Writer::new(16 * indices.len() + 8);
    writer.count(indices.len());
    for (group, index) in indices {
        writer.number(u64::from(group.to_raw()));
        writer.number(*index);
    }
    writer.finish()
}

/// Reads what [`encode_indices`] wrote.
pub(crate) fn decode_indices(body: Bytes) -> Result<BTreeMap<GroupId, u64>, BadMessage> {
    let mut reader = Reader::new(body)?;
    let mut indices = BTreeMap::new();
    for _ in 0..reader.items()? {
        let group = group(reader.number()?)?;
        indices.insert(group, reader.number()?);
    }
    reader.end()?;
    Ok(indices)
}

fn group(raw: u64) -> Result<GroupId, BadMessage> {
    let raw = u32::try_from(raw).map_err(|_large| BadMessage)?;
    GroupId::from_raw(raw).ok_or(BadMessage)
}
