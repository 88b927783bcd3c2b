//! A replica's state from any other replica, for one that lost its own.
//!
//! openraft sends a snapshot to a follower whose log is behind; a replica whose log and vote are whole, and whose state is
//! damaged, has to ask for one. Any replica may give it, leader or not: what one has applied is committed. The asker says
//! how far it must reach: up to where its own log is purged. From there on it applies its own log again.
//!
//! | direction | message |
//! |---|---|
//! | to the giver | the stream's header: [`Ask`] |
//! | back | the manifest |
//! | to the giver | which bytes of which files are missing |
//! | back | these bytes |
//!
//! Hashes are verified as files arrive, every value at the install. Goes on where it was interrupted, as any snapshot does.

use std::io;

use bytes::Bytes;
use storage::snapshot::SnapshotManifest;
use storage::state::TabletStore;

use crate::message::{self, BadMessage, Reader, Writer};
use crate::snapshot::{
    INSTALL, Pieces, SnapshotData, blocking, broken, receive_files, send_missing, write_block,
};
use crate::transport::ByteStream;
use crate::types::Snapshot;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The state must hold this entry.
    pub(crate) at_least: u64,
    /// A snapshot that is there already does not do: one from this giver was not whole.
    pub(crate) fresh: bool,
}

impl Ask {
    pub(crate) fn encode(self) -> Bytes {
        let mut writer = Writer::new(10);
        writer.number(self.at_least);
        writer.byte(u8::from(self.fresh));
        writer.finish()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(bytes)?;
        let (at_least, fresh) = (reader.number()?, reader.flag()?);
        reader.end()?;
        Ok(Self { at_least, fresh })
    }
}

/// Gives this store's state to who asks for it.
///
/// # Errors
/// When it does not reach as far as asked, when it cannot be read, or when the stream breaks.
pub(crate) async fn give(ask: Ask, store: TabletStore, stream: ByteStream) -> io::Result<()> {
    let reaches = |manifest: &SnapshotManifest| {
        let mark = manifest.applied.clone();
        let meta = mark.and_then(|mark| message::decode_mark(mark).ok());
        let last = meta.and_then(|meta| meta.last_log_id);
        last.is_some_and(|last| last.index >= ask.at_least)
    };
    let kept = store
        .snapshot()
        .filter(|kept| !ask.fresh && reaches(kept.manifest()));
    let taken = match kept {
        Some(kept) => kept,
        None => blocking(move || store.checkpoint()?.seal()).await?,
    };
    if !reaches(taken.manifest()) {
        return Err(broken("this replica is behind what is asked for"));
    }
    let mut stream = stream;
    write_block(&mut stream, taken.manifest().encode()).await?;
    let ByteStream { writer, reader } = stream;
    send_missing(&taken, writer, &mut Pieces::new(reader)).await
}

/// Receives what was asked for into the staging area of `store`; it is not installed.
///
/// # Errors
/// When the giver has none that reaches so far, when what arrives is not whole, or when the stream breaks.
pub(crate) async fn fetch(
    ask: Ask,
    store: TabletStore,
    stream: ByteStream,
) -> io::Result<Snapshot> {
    let ByteStream { writer, reader } = stream;
    let mut pieces = Pieces::new(reader);
    // The giver may have to read all of its state first.
    let manifest = pieces.block(INSTALL).await?;
    let manifest = SnapshotManifest::decode(&manifest).map_err(io::Error::other)?;
    let reader = pieces.into_reader()?;
    let mut stream = ByteStream { writer, reader };
    let received: SnapshotData = receive_files(manifest, store, &mut stream).await?;
    let snapshot = received.named()?;
    match snapshot.meta.last_log_id {
        Some(last) if last.index >= ask.at_least => Ok(snapshot),
        _ => Err(broken("it does not reach as far as it must")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_ask() {
        let ask = Ask {
            at_least: 258,
            fresh: true,
        };
        let bytes = ask.encode();
        assert_eq!(hex::encode(&bytes), "01020100000000000001");
        assert_eq!(Ask::decode(bytes.clone()).ok(), Some(ask));
        for short in 0..bytes.len() {
            assert!(Ask::decode(bytes.slice(..short)).is_err(), "{short}");
        }
    }
}
