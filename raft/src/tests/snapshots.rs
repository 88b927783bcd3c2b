//! The transfer of a snapshot between two stores: one that breaks goes on where it was; and its making on a full disk.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::GroupId;
use model::state::{Key, StateWrite};
use openraft::storage::RaftSnapshotBuilder;
use storage::db::StateConfig;
use storage::disk::SimDisk;
use storage::log::{LogConfig, LogEngine};
use storage::memory::MemoryDisk;
use storage::state::{StateEngine, TabletStore};
use tokio::time::timeout;

use crate::snapshot::{self, Builder, Offer, SnapshotData};
use crate::testing::chunk;
use crate::transport::{ByteStream, ByteStreamReader, ByteStreamWriter};
use crate::types::Vote;

const LIMIT: Duration = Duration::from_secs(20);
const VALUES: Range<u64> = 0..40;

/// One that does not compress.
fn value(number: u64) -> Bytes {
    let mut out = vec![0; 100_000];
    let mut reader = blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof();
    reader.fill(&mut out);
    out.into()
}

fn open(folder: &tempfile::TempDir) -> TabletStore {
    // Small files, so that some are whole when the transfer breaks.
    let config = StateConfig {
        memtable_bytes: 128 << 10,
        ..StateConfig::default()
    };
    let engine = StateEngine::rocksdb(config).unwrap();
    engine.open(folder.path(), GroupId::Meta.to_raw()).unwrap()
}

/// Carries pieces to the other side; breaks after `limit` bytes. Says how many it carried.
async fn carry(mut from: ByteStreamReader, mut to: ByteStreamWriter, limit: usize) -> usize {
    let mut carried = 0;
    while let Ok(Some(piece)) = from.next().await {
        if carried + piece.len() > limit {
            return carried;
        }
        carried += piece.len();
        if to.write(piece).await.is_err() {
            return carried;
        }
    }
    // The other side may be gone already: it has what it wanted.
    to.finish().await.ok();
    carried
}

/// Sends the snapshot to a store; the way breaks after `limit` bytes. Says how many went.
async fn transfer(data: &SnapshotData, target: &TabletStore, limit: usize) -> (usize, bool) {
    let vote = Vote::new(3, 1);
    let offer = Offer::decode(Offer::new(vote, data).encode()).unwrap();
    let ((leader, near), (far, mut follower)) = (ByteStream::pair(4), ByteStream::pair(4));
    // Each end is dropped when it is done, so that the other sees it.
    let receive = async {
        let received = snapshot::receive(&offer, target.clone(), &mut follower).await;
        let installed = match received {
            Ok(received) => received.install(target.clone()).await,
            Err(error) => Err(error),
        };
        match installed {
            Ok(()) => snapshot::finish(&offer.vote, follower).await,
            Err(error) => {
                drop(follower);
                Err(error)
            }
        }
    };
    let all = async {
        tokio::join!(
            snapshot::send(data, leader),
            receive,
            carry(near.reader, far.writer, limit),
            carry(far.reader, near.writer, usize::MAX),
        )
    };
    let (sent, received, there, _back) = timeout(LIMIT, all).await.unwrap();
    assert_eq!(sent.is_ok(), received.is_ok(), "{sent:?} {received:?}");
    if let Ok(answered) = &sent {
        assert_eq!(*answered, vote);
    }
    (there, sent.is_ok())
}

#[tokio::test]
async fn a_transfer_that_broke_goes_on_where_it_was() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(&here);
    for number in VALUES {
        let tablet = source.current();
        let mut txn = tablet.begin();
        txn.put(Key::Chunk(chunk(number)), value(number));
        tablet.commit(&txn, &number.to_be_bytes()).unwrap();
    }
    let taken = source.checkpoint().unwrap().seal().unwrap();
    let total = usize::try_from(taken.manifest().total_bytes()).unwrap();
    let data = SnapshotData::Taken(Arc::clone(&taken));

    let (first, whole) = transfer(&data, &open(&there), total / 2).await;
    assert!(!whole && first > total / 4, "{first} of {total} went");
    // The follower's process has ended meanwhile.
    let target = open(&there);
    assert_eq!(target.current().applied(), None, "half of it is nothing");
    let (second, whole) = transfer(&data, &target, usize::MAX).await;
    assert!(whole);
    assert!(second < total - total / 4, "{second} of {total} went again");
    assert!(first + second >= total);
    let view = target.current().view();
    for number in VALUES {
        let found = view.get(&Key::Chunk(chunk(number))).unwrap();
        assert!(found == Some(value(number)), "{number}");
    }
}

#[tokio::test]
async fn a_snapshot_that_finds_no_room_for_its_manifest_waits_for_it() {
    let (state, folder) = (MemoryDisk::default(), tempfile::tempdir().unwrap());
    let store = StateEngine::Memory(state.clone())
        .open(folder.path(), GroupId::Meta.to_raw())
        .unwrap();
    let (log, _) = LogEngine::open(Arc::new(SimDisk::new(1)), LogConfig::default()).unwrap();
    let mut builder = Builder::take(store.clone(), log.group(0)).await;
    assert!(!builder.is_disk_full());
    state.set_full(true);
    assert!(
        Builder::take(store.clone(), log.group(0))
            .await
            .is_disk_full()
    );
    let refused = state.refused();
    let build = builder.build_snapshot();
    let freed = async {
        while state.refused() < refused + 1 {
            tokio::task::yield_now().await;
        }
        assert!(store.snapshot().is_none());
        state.set_full(false);
    };
    let (built, ()) = timeout(LIMIT, async { tokio::join!(build, freed) })
        .await
        .unwrap();
    built.unwrap();
    assert!(store.snapshot().is_some());

    // Nobody waits for room when the node stops.
    let mut builder = Builder::take(store, log.group(0)).await;
    state.set_full(true);
    log.close().unwrap();
    assert!(
        timeout(LIMIT, builder.build_snapshot())
            .await
            .unwrap()
            .is_err()
    );
}
