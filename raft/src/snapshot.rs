//! Snapshots: a store's checkpoint, sent file by file and switched in atomically.
//!
//! A transfer that broke goes on where it was: the receiver says which files it has whole, by content hash, and only the
//! others are sent. Hashes and the checkpoint's own checksums are verified before anything is installed. What is half
//! received is ignored at the next start.
//!
//! | direction | message |
//! |---|---|
//! | to the follower | the stream's header: vote and manifest |
//! | back | which bytes of which files are missing |
//! | to the follower | these bytes |
//! | back | the follower's vote, when the snapshot is installed |

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::storage::RaftSnapshotBuilder;
use storage::disk::is_full;
use storage::error::TabletError;
use storage::log::GroupLog;
use storage::snapshot::{Missing, SnapshotManifest, SnapshotReceiver};
use storage::state::TabletStore;
use storage::state::store::Checkpoint;
use tokio::time::{sleep, timeout};

use crate::message::{self, BadMessage, Reader, Writer};
use crate::transport::{ByteStream, ByteStreamReader, ByteStreamWriter};
use crate::types::{Snapshot, SnapshotMeta, Types, Vote};

/// Bytes of a file that are read and sent at once.
const PIECE_BYTES: usize = 256 << 10;
/// How long a transfer may stand still.
const STALLED: Duration = Duration::from_secs(20);
/// How long an installation may take.
pub(crate) const INSTALL: Duration = Duration::from_secs(300);
/// Between two attempts to write a manifest on a full disk: each reads the whole checkpoint.
const SEAL_AGAIN: Duration = Duration::from_secs(5);
/// Longest list of what is missing, in bytes.
const MAX_MISSING_BYTES: usize = 4 << 20;

/// The content of a snapshot.
#[derive(Clone, Debug)]
pub(crate) enum SnapshotData {
    /// Taken from a store of this node, or current there.
    Taken(Arc<storage::snapshot::Snapshot>),
    /// Arrived in the store that is to install it.
    Received(Arc<SnapshotReceiver>),
}

impl SnapshotData {
    fn manifest(&self) -> &SnapshotManifest {
        match self {
            Self::Taken(taken) => taken.manifest(),
            Self::Received(received) => received.manifest(),
        }
    }

    /// With what openraft wants to know of it.
    pub(crate) fn named(self) -> io::Result<Snapshot> {
        let meta = match &self.manifest().applied {
            Some(mark) => message::decode_mark(mark.clone())
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?,
            None => SnapshotMeta::default(),
        };
        let snapshot = self;
        Ok(Snapshot { meta, snapshot })
    }

    /// Reads all of what has arrived in `store`, so that nothing can be wrong with it when it is installed.
    pub(crate) async fn verify(self, store: TabletStore) -> io::Result<()> {
        blocking(move || match &self {
            Self::Received(received) => store.verify(received),
            Self::Taken(_) => Ok(()),
        })
        .await
    }

    /// Replaces the state of `store` by this.
    pub(crate) async fn install(self, store: TabletStore) -> io::Result<()> {
        blocking(move || {
            let receiver = match self {
                Self::Received(receiver) => receiver,
                Self::Taken(taken) => Arc::new(copy(&taken, &store)?),
            };
            store.install(&receiver).map(drop)
        })
        .await
    }
}

fn copy(
    from: &storage::snapshot::Snapshot,
    store: &TabletStore,
) -> Result<SnapshotReceiver, TabletError> {
    let mut receiver = store.receive(from.manifest().clone())?;
    for Missing {
        file,
        mut offset,
        length,
    } in receiver.missing()
    {
        let end = offset + length;
        while offset < end {
            let piece = from.read_at(file, offset, PIECE_BYTES)?;
            receiver.write_at(file, offset, &piece)?;
            offset += piece.len() as u64;
        }
    }
    Ok(receiver)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TabletError> + Send + 'static,
) -> io::Result<T> {
    crate::blocking::blocking(work)
        .await
        .map_err(io::Error::other)?
        .map_err(|error| {
            let full = error.is_disk_full();
            let kind = if full {
                io::ErrorKind::StorageFull
            } else {
                io::ErrorKind::Other
            };
            io::Error::new(kind, error)
        })
}

/// Builds the snapshot of a checkpoint that was taken when it was made.
///
/// openraft ends a group whose snapshot fails, and a full disk must not end one: a builder waits for room.
pub(crate) struct Builder {
    checkpoint: Option<io::Result<Checkpoint>>,
    log: GroupLog,
}

impl Builder {
    /// Takes the checkpoint, away from the runtime's threads.
    pub(crate) async fn take(store: TabletStore, log: GroupLog) -> Self {
        let checkpoint = Some(blocking(move || store.checkpoint()).await);
        Self { checkpoint, log }
    }

    /// Whether there was no room for the checkpoint; then it is dropped, and another made later.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(&self.checkpoint, Some(Err(error)) if is_full(error))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut checkpoint = self
            .checkpoint
            .take()
            .ok_or_else(|| io::Error::other("the builder is used up"))??;
        let taken = loop {
            let (tried, sealed) = blocking(move || {
                let sealed = checkpoint.seal();
                Ok((checkpoint, sealed))
            })
            .await?;
            match sealed {
                Ok(taken) => break taken,
                Err(error) if error.is_disk_full() && !self.log.is_closed() => {
                    tracing::warn!(%error, group = self.log.id(), "the snapshot waits for room");
                    checkpoint = tried;
                    sleep(SEAL_AGAIN).await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        tracing::info!(
            group = taken.manifest().group,
            bytes = taken.manifest().total_bytes(),
            "snapshot taken"
        );
        SnapshotData::Taken(taken).named()
    }
}

/// What opens a transfer.
pub(crate) struct Offer {
    /// The leader's.
    pub(crate) vote: Vote,
    /// What is to be sent.
    pub(crate) manifest: SnapshotManifest,
}

impl Offer {
    pub(crate) fn new(vote: Vote, data: &SnapshotData) -> Self {
        let manifest = data.manifest().clone();
        Self { vote, manifest }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let manifest = self.manifest.encode();
        let mut writer = Writer::new(32 + manifest.len());
        writer.vote(&self.vote);
        writer.bytes(&manifest);
        writer.finish()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(bytes)?;
        let (vote, manifest) = (reader.vote()?, reader.bytes()?);
        reader.end()?;
        let manifest = SnapshotManifest::decode(&manifest).map_err(|_malformed| BadMessage)?;
        Ok(Self { vote, manifest })
    }
}

fn encode_missing(missing: &[Missing]) -> Bytes {
    let mut writer = Writer::new(8 + missing.len() * 24);
    writer.count(missing.len());
    for part in missing {
        writer.number(part.file as u64);
        writer.number(part.offset);
        writer.number(part.length);
    }
    writer.finish()
}

fn decode_missing(bytes: Bytes) -> Result<Vec<Missing>, BadMessage> {
    let mut reader = Reader::new(bytes)?;
    let mut missing = Vec::new();
    for _ in 0..reader.items()? {
        let file = usize::try_from(reader.number()?).map_err(|_large| BadMessage)?;
        let (offset, length) = (reader.number()?, reader.number()?);
        missing.push(Missing {
            file,
            offset,
            length,
        });
    }
    reader.end()?;
    Ok(missing)
}

pub(crate) fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, what)
}

/// Sends a snapshot over a stream that an [`Offer`] opened; returns the follower's vote after it is installed there.
pub(crate) async fn send(data: &SnapshotData, stream: ByteStream) -> io::Result<Vote> {
    let SnapshotData::Taken(taken) = data else {
        return Err(broken("only a snapshot that was taken is sent"));
    };
    let ByteStream { writer, reader } = stream;
    let mut reader = Pieces::new(reader);
    let sent = send_missing(taken, writer, &mut reader).await;
    let answered = match sent {
        Ok(()) => reader.block(INSTALL).await,
        Err(error) => Err(error),
    };
    // Whether it broke there or here is not to be seen; what is wrong with its files is.
    let vote = answered.inspect_err(|_broken| taken.suspect())?;
    message::decode_vote(vote).map_err(io::Error::other)
}

/// Sends what the other side says is missing there.
pub(crate) async fn send_missing(
    taken: &Arc<storage::snapshot::Snapshot>,
    mut writer: ByteStreamWriter,
    reader: &mut Pieces,
) -> io::Result<()> {
    let missing = decode_missing(reader.block(STALLED).await?).map_err(io::Error::other)?;
    for Missing {
        file,
        mut offset,
        length,
    } in missing
    {
        let end = offset.saturating_add(length);
        while offset < end {
            let taken = Arc::clone(taken);
            let most = usize::try_from(end - offset)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            let piece = blocking(move || taken.read_at(file, offset, most)).await?;
            if piece.is_empty() {
                return Err(broken("what is missing there is not here"));
            }
            offset += piece.len() as u64;
            let sent = timeout(STALLED, writer.write(piece)).await;
            sent.map_err(|_late| broken("the transfer stands still"))?
                .map_err(io::Error::other)?;
        }
    }
    writer.finish().await.map_err(io::Error::other)
}

/// Receives a snapshot into the staging area of `store`. The stream is for [`finish`] then.
pub(crate) async fn receive(
    offer: &Offer,
    store: TabletStore,
    stream: &mut ByteStream,
) -> io::Result<SnapshotData> {
    receive_files(offer.manifest.clone(), store, stream).await
}

/// Receives the files of a snapshot: asks for those that are missing.
pub(crate) async fn receive_files(
    manifest: SnapshotManifest,
    store: TabletStore,
    stream: &mut ByteStream,
) -> io::Result<SnapshotData> {
    let mut receiver = blocking(move || store.receive(manifest)).await?;
    let missing = receiver.missing();
    write_block(stream, encode_missing(&missing)).await?;
    let mut rest = Bytes::new();
    for Missing {
        file,
        mut offset,
        length,
    } in missing
    {
        let end = offset + length;
        loop {
            if rest.is_empty() && offset < end {
                let next = timeout(STALLED, stream.reader.next()).await;
                let next = next.map_err(|_late| broken("the transfer stands still"))?;
                rest = next
                    .map_err(io::Error::other)?
                    .ok_or_else(|| broken("it ends early"))?;
            }
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = rest.split_to(rest.len().min(left));
            let (at, taken) = (offset, piece.len() as u64);
            receiver =
                blocking(move || receiver.write_at(file, at, &piece).map(|()| receiver)).await?;
            offset += taken;
            // An empty file is written once, too.
            if offset >= end {
                break;
            }
        }
    }
    Ok(SnapshotData::Received(Arc::new(receiver)))
}

/// Tells the leader that its snapshot is installed.
pub(crate) async fn finish(vote: &Vote, mut stream: ByteStream) -> io::Result<()> {
    write_block(&mut stream, message::encode_vote(vote)).await?;
    stream.writer.finish().await.map_err(io::Error::other)
}

pub(crate) async fn write_block(stream: &mut ByteStream, block: Bytes) -> io::Result<()> {
    let length = u32::try_from(block.len()).map_err(io::Error::other)?;
    let mut framed = BytesMut::from(&length.to_le_bytes()[..]);
    framed.extend_from_slice(&block);
    stream
        .writer
        .write(framed.freeze())
        .await
        .map_err(io::Error::other)
}

/// Reads blocks, each after its length, from a stream.
pub(crate) struct Pieces {
    reader: ByteStreamReader,
    rest: Bytes,
}

impl Pieces {
    pub(crate) const fn new(reader: ByteStreamReader) -> Self {
        let rest = Bytes::new();
        Self { reader, rest }
    }

    pub(crate) async fn block(&mut self, limit: Duration) -> io::Result<Bytes> {
        let length = self.exactly(4, limit).await?;
        let length = u32::from_le_bytes(length.as_ref().try_into().map_err(io::Error::other)?);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > MAX_MISSING_BYTES {
            return Err(broken("a block is too long"));
        }
        self.exactly(length, STALLED).await
    }

    /// The reader, when nothing is left over of what was read.
    pub(crate) fn into_reader(self) -> io::Result<ByteStreamReader> {
        match self.rest.is_empty() {
            true => Ok(self.reader),
            false => Err(broken("it says more than was asked")),
        }
    }

    async fn exactly(&mut self, length: usize, limit: Duration) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(length);
        while out.len() < length {
            if self.rest.is_empty() {
                let next = timeout(limit, self.reader.next()).await;
                let next = next.map_err(|_late| broken("the transfer stands still"))?;
                self.rest = next
                    .map_err(io::Error::other)?
                    .ok_or_else(|| broken("it ends early"))?;
            }
            let part = self.rest.split_to(self.rest.len().min(length - out.len()));
            out.extend_from_slice(&part);
        }
        Ok(out.freeze())
    }
}
