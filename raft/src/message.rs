//! How the consensus engine's values become bytes, on the wire and on disk. Never openraft's own encoding.
//!
//! Every message starts with [`VERSION`]; numbers are little-endian and of fixed width, options have a leading 0 or 1.
//! An entry's payload begins with a tag: [`BLANK`], [`MEMBERSHIP`], or, for an entry of the state machine, the model's
//! codec version, which is below both; so a state machine's entry is stored and sent without another copy.
//! Input from a peer is bounded by the transport; what does not decode is an error, never a panic.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse};
use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    AppendRequest, AppendResult, Data, Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta,
    StoredMembership, Types, Vote, log_id,
};

/// The version of all encodings in this file.
const VERSION: u8 = 1;
/// Tag of an entry without content.
const BLANK: u8 = 0x80;
/// Tag of a change of membership.
const MEMBERSHIP: u8 = 0x81;
/// Most entries, nodes or configurations in one message.
const MAX_ITEMS: u32 = 65_536;

/// Bytes that are no message of this version.
#[derive(Debug, thiserror::Error)]
#[error("bytes are not a consensus message of this version")]
pub(crate) struct BadMessage;

type Decoded<T> = Result<T, BadMessage>;

/// A message in the making.
pub(crate) struct Writer(BytesMut);

impl Writer {
    /// An empty message with room for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(capacity.saturating_add(1));
        out.put_u8(VERSION);
        Self(out)
    }

    /// The bytes.
    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    pub(crate) fn count(&mut self, value: usize) {
        let value = u32::try_from(value).expect("messages are bounded far below 4 GiB");
        self.0.put_u32_le(value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.put_slice(value);
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                put(self, value);
            }
        }
    }

    pub(crate) fn log_id(&mut self, id: &LogId) {
        self.number(id.leader_id.term);
        self.number(id.leader_id.node_id);
        self.number(id.index);
    }

    pub(crate) fn vote(&mut self, vote: &Vote) {
        self.number(vote.leader_id.term);
        self.number(vote.leader_id.node_id);
        self.byte(u8::from(vote.committed));
    }

    fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for config in configs {
            self.count(config.len());
            for node in config {
                self.number(*node);
            }
        }
        let nodes: Vec<u64> = membership.nodes().map(|(node, ())| *node).collect();
        self.count(nodes.len());
        for node in nodes {
            self.number(node);
        }
    }

    fn stored(&mut self, stored: &StoredMembership) {
        self.option(stored.log_id().as_ref(), Self::log_id);
        self.membership(stored.membership());
    }
}

/// A message that is read.
pub(crate) struct Reader(Bytes);

impl Reader {
    /// Begins after the version.
    pub(crate) fn new(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Self(bytes);
        if reader.byte()? == VERSION {
            Ok(reader)
        } else {
            Err(BadMessage)
        }
    }

    /// The message must be at its end.
    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(BadMessage)
        }
    }

    pub(crate) fn byte(&mut self) -> Decoded<u8> {
        self.0.try_get_u8().map_err(|_short| BadMessage)
    }

    pub(crate) fn number(&mut self) -> Decoded<u64> {
        self.0.try_get_u64_le().map_err(|_short| BadMessage)
    }

    pub(crate) fn count(&mut self) -> Decoded<u32> {
        self.0.try_get_u32_le().map_err(|_short| BadMessage)
    }

    /// A number of items, each of which takes at least one byte of what is left.
    pub(crate) fn items(&mut self) -> Decoded<usize> {
        let count = self.count()?;
        let count = usize::try_from(count.min(MAX_ITEMS + 1)).map_err(|_large| BadMessage)?;
        if count > MAX_ITEMS as usize || count > self.0.len() {
            return Err(BadMessage);
        }
        Ok(count)
    }

    /// A part of the message, without a copy.
    pub(crate) fn bytes(&mut self) -> Decoded<Bytes> {
        let length = usize::try_from(self.count()?).map_err(|_large| BadMessage)?;
        if length > self.0.len() {
            return Err(BadMessage);
        }
        Ok(self.0.split_to(length))
    }

    pub(crate) fn flag(&mut self) -> Decoded<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadMessage),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<T>> {
        if self.flag()? {
            get(self).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn log_id(&mut self) -> Decoded<LogId> {
        Ok(log_id(self.number()?, self.number()?, self.number()?))
    }

    pub(crate) fn vote(&mut self) -> Decoded<Vote> {
        let leader_id = LeaderId {
            term: self.number()?,
            node_id: self.number()?,
        };
        let committed = self.flag()?;
        Ok(Vote {
            leader_id,
            committed,
        })
    }

    fn membership(&mut self) -> Decoded<Membership> {
        let mut configs = Vec::new();
        for _ in 0..self.items()? {
            let mut config = BTreeSet::new();
            for _ in 0..self.items()? {
                config.insert(self.number()?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.items()? {
            nodes.insert(self.number()?, ());
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|_inconsistent| BadMessage)
    }

    fn stored(&mut self) -> Decoded<StoredMembership> {
        let id = self.option(Self::log_id)?;
        Ok(StoredMembership::new(id, self.membership()?))
    }
}

/// An entry's payload, as it is stored and sent.
pub(crate) fn encode_payload(payload: &Payload) -> Bytes {
    match payload {
        Payload::Blank => Bytes::from_static(&[BLANK]),
        Payload::Normal(Data(bytes)) => bytes.clone(),
        Payload::Membership(membership) => {
            let mut writer = Writer(BytesMut::with_capacity(64));
            writer.byte(MEMBERSHIP);
            writer.membership(membership);
            writer.finish()
        }
    }
}

/// Reads what [`encode_payload`] wrote.
pub(crate) fn decode_payload(bytes: Bytes) -> Decoded<Payload> {
    match bytes.first() {
        None => Err(BadMessage),
        Some(&BLANK) => Ok(Payload::Blank),
        Some(&MEMBERSHIP) => {
            let mut reader = Reader(bytes.slice(1..));
            let membership = reader.membership()?;
            reader.end()?;
            Ok(Payload::Membership(membership))
        }
        Some(&tag) if tag > MEMBERSHIP => Err(BadMessage),
        Some(_) => Ok(Payload::Normal(Data(bytes))),
    }
}

/// Entries for a follower, or a heartbeat.
pub(crate) fn encode_append(request: &AppendRequest) -> Bytes {
    let payloads: Vec<Bytes> = request
        .entries
        .iter()
        .map(|entry| encode_payload(&entry.payload))
        .collect();
    let bytes = payloads
        .iter()
        .map(|payload| payload.len() + 28)
        .sum::<usize>();
    let mut writer = Writer::new(bytes + 80);
    writer.vote(&request.vote);
    writer.option(request.prev_log_id.as_ref(), Writer::log_id);
    writer.option(request.leader_commit.as_ref(), Writer::log_id);
    writer.count(request.entries.len());
    for (entry, payload) in request.entries.iter().zip(payloads) {
        writer.log_id(&entry.log_id);
        writer.bytes(&payload);
    }
    writer.finish()
}

/// Reads what [`encode_append`] wrote.
pub(crate) fn decode_append(bytes: Bytes) -> Decoded<AppendRequest> {
    let mut reader = Reader::new(bytes)?;
    let vote = reader.vote()?;
    let prev_log_id = reader.option(Reader::log_id)?;
    let leader_commit = reader.option(Reader::log_id)?;
    let count = reader.items()?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let log_id = reader.log_id()?;
        let payload = decode_payload(reader.bytes()?)?;
        entries.push(Entry { log_id, payload });
    }
    reader.end()?;
    Ok(AppendRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

/// What a follower says to entries.
pub(crate) fn encode_appended(result: &AppendResult) -> Bytes {
    let mut writer = Writer::new(32);
    match result {
        Ok(matching) => {
            writer.byte(0);
            writer.option(matching.as_ref(), Writer::log_id);
        }
        Err(StreamAppendError::Conflict(id)) => {
            writer.byte(1);
            writer.log_id(id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            writer.byte(2);
            writer.vote(vote);
        }
    }
    writer.finish()
}

/// Reads what [`encode_appended`] wrote.
pub(crate) fn decode_appended(bytes: Bytes) -> Decoded<AppendResult> {
    let mut reader = Reader::new(bytes)?;
    let result = match reader.byte()? {
        0 => Ok(reader.option(Reader::log_id)?),
        1 => Err(StreamAppendError::Conflict(reader.log_id()?)),
        2 => Err(StreamAppendError::HigherVote(reader.vote()?)),
        _ => return Err(BadMessage),
    };
    reader.end()?;
    Ok(result)
}

/// A candidate's question.
pub(crate) fn encode_vote_request(request: &VoteRequest<Types>) -> Bytes {
    let mut writer = Writer::new(48);
    writer.vote(&request.vote);
    writer.option(request.last_log_id.as_ref(), Writer::log_id);
    writer.byte(u8::from(request.leadership_transfer));
    writer.finish()
}

/// Reads what [`encode_vote_request`] wrote.
pub(crate) fn decode_vote_request(bytes: Bytes) -> Decoded<VoteRequest<Types>> {
    let mut reader = Reader::new(bytes)?;
    let mut request = VoteRequest::new(reader.vote()?, reader.option(Reader::log_id)?);
    request.leadership_transfer = reader.flag()?;
    reader.end()?;
    Ok(request)
}

/// A voter's answer.
pub(crate) fn encode_vote_response(response: &VoteResponse<Types>) -> Bytes {
    let mut writer = Writer::new(48);
    writer.vote(&response.vote);
    writer.option(response.last_log_id.as_ref(), Writer::log_id);
    writer.byte(u8::from(response.vote_granted));
    writer.finish()
}

/// Reads what [`encode_vote_response`] wrote.
pub(crate) fn decode_vote_response(bytes: Bytes) -> Decoded<VoteResponse<Types>> {
    let mut reader = Reader::new(bytes)?;
    let vote = reader.vote()?;
    let last = reader.option(Reader::log_id)?;
    let granted = reader.flag()?;
    reader.end()?;
    Ok(VoteResponse::new(vote, last, granted))
}

/// A leader's wish to hand over.
pub(crate) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut writer = Writer::new(56);
    writer.vote(request.from_leader());
    writer.number(*request.to_node_id());
    writer.option(request.last_log_id(), Writer::log_id);
    writer.finish()
}

/// Reads what [`encode_transfer`] wrote.
pub(crate) fn decode_transfer(bytes: Bytes) -> Decoded<TransferLeaderRequest<Types>> {
    let mut reader = Reader::new(bytes)?;
    let (vote, to) = (reader.vote()?, reader.number()?);
    let last = reader.option(Reader::log_id)?;
    reader.end()?;
    Ok(TransferLeaderRequest::new(vote, to, last))
}

/// A vote alone: the answer to a snapshot.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut writer = Writer::new(24);
    writer.vote(vote);
    writer.finish()
}

/// Reads what [`encode_vote`] wrote.
pub(crate) fn decode_vote(bytes: Bytes) -> Decoded<Vote> {
    let mut reader = Reader::new(bytes)?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

/// What a tablet keeps next to its data: the last applied entry and the last membership.
pub(crate) fn encode_mark(applied: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    let mut writer = Writer::new(128);
    writer.option(applied, Writer::log_id);
    writer.stored(membership);
    writer.finish()
}

/// Reads what [`encode_mark`] wrote.
pub(crate) fn decode_mark(bytes: Bytes) -> Decoded<SnapshotMeta> {
    let mut reader = Reader::new(bytes)?;
    let meta = SnapshotMeta {
        last_log_id: reader.option(Reader::log_id)?,
        last_membership: reader.stored()?,
    };
    reader.end()?;
    Ok(meta)
}
