//! openraft's log storage over one group of the segment log.
//!
//! Keeps openraft's rules: entries can be read when `append` returns; votes and appends go through one queue, in order;
//! every callback is called, also when the disk fails; `save_committed` syncs nothing; what is read at once is bounded in
//! bytes ([`READ_BYTES`]), except where openraft demands the whole range. An entry that cannot be decoded is damage and
//! an error, never skipped.

use std::io;
use std::ops::{Bound, RangeBounds};

use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use storage::log::GroupLog;
use tokio::sync::oneshot;

use crate::message;
use crate::types::{Entry, LogId, Types, Vote, log_id};

/// How much of the log is read at once, in bytes; also the usual size of an append to a follower.
const READ_BYTES: usize = 1 << 20;

/// The log of one group. Clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: GroupLog,
}

impl LogStore {
    /// Over an opened group of the log.
    pub(crate) const fn new(log: GroupLog) -> Self {
        Self { log }
    }

    fn read(&self, from: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        if from >= end {
            return Ok(Vec::new());
        }
        self.log
            .read(from, end, bytes)?
            .into_iter()
            .map(decode)
            .collect()
    }

    /// First and end of what a range covers of the log that is there.
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.log.state();
        let first = state.purged.map_or(0, |id| id.index.saturating_add(1));
        let end = state.last.map_or(0, |id| id.index.saturating_add(1));
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(first), to.min(end))
    }
}

impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore")
            .field("state", &self.log.state())
            .finish()
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (mut from, end) = self.bounds(&range);
        let mut entries = Vec::new();
        while from < end {
            let part = self.read(from, end, READ_BYTES)?;
            let Some(last) = part.last() else {
                return Err(io::Error::other(format!("entry {from} is missing")));
            };
            from = last.index().saturating_add(1);
            entries.extend(part);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (from, end) = self.bounds(&range);
        let part: std::vec::IntoIter<Entry> = Vec::new().into_iter();
        let state = (self.clone(), from, end, part);
        let entries = stream::unfold(state, |(store, mut from, end, mut part)| async move {
            if part.len() == 0 && from < end {
                match store.read(from, end, READ_BYTES) {
                    Ok(entries) if entries.is_empty() => {
                        let error = io::Error::other(format!("entry {from} is missing"));
                        return Some((Err(error), (store, end, end, part)));
                    }
                    Ok(entries) => part = entries.into_iter(),
                    Err(error) => return Some((Err(error), (store, end, end, part))),
                }
            }
            let entry = part.next()?;
            from = entry.index().saturating_add(1);
            Some((Ok(entry), (store, from, end, part)))
        });
        Box::pin(entries.fuse())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote().map(|vote| {
            let mut own = Vote::new(vote.term, vote.node);
            own.committed = vote.committed;
            own
        }))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.log.state();
        Ok(LogState {
            last_log_id: state.last.map(own_id),
            last_purged_log_id: state.purged.map(own_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = storage::log::Vote {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        };
        let (done, saved) = oneshot::channel();
        // Nobody waits any more when the group stops.
        self.log
            .save_vote(vote, Box::new(move |result| drop(done.send(result))));
        saved
            .await
            .map_err(|_gone| io::Error::other("the log stopped"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed.as_ref().map(raw_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(own_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries
            .into_iter()
            .map(|entry| storage::log::Entry {
                id: raw_id(&entry.log_id),
                payload: message::encode_payload(&entry.payload),
            })
            .collect();
        self.log.append(
            entries,
            Box::new(move |result| callback.io_completed(result)),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        // A failure to sync it also fails the append that follows in the same queue.
        self.log
            .truncate_after(last.map(|id| id.index), Box::new(log_failure));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(raw_id(&upto));
        Ok(())
    }
}

fn log_failure(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "log could not be truncated");
    }
}

const fn own_id(id: storage::log::LogId) -> LogId {
    log_id(id.term, id.node, id.index)
}

const fn raw_id(id: &LogId) -> storage::log::LogId {
    storage::log::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

fn decode(entry: storage::log::Entry) -> io::Result<Entry> {
    let log_id = own_id(entry.id);
    let payload = message::decode_payload(entry.payload)
        .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
    Ok(Entry { log_id, payload })
}
