//! openraft's conformance suite, on memory and RocksDB, on the simulated and the real disk; and a start that it leaves out.

use std::path::Path;
use std::sync::Arc;

use model::id::GroupId;
use openraft::StorageError;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, StorageHelper};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use storage::disk::{Disk, RealDisk, SimDisk};
use storage::log::{LogConfig, LogEngine};
use storage::state::StateEngine;

use crate::log_store::LogStore;
use crate::machine::{Machine, Parts};
use crate::testing::Echo;
use crate::types::{Entry, Payload, Types, log_id};

struct Builder {
    real: bool,
    rocksdb: bool,
}

/// What must outlive a store.
struct Guard {
    _log: LogEngine,
    _folder: tempfile::TempDir,
}

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 256 << 10,
        ..LogConfig::default()
    }
}

fn disk(real: bool, folder: &Path) -> Arc<dyn Disk> {
    if real {
        Arc::new(RealDisk::open(folder).unwrap())
    } else {
        Arc::new(SimDisk::new(1))
    }
}

impl StoreBuilder<Types, LogStore, Machine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = LogEngine::open(disk(self.real, folder.path()), small()).unwrap();
        let engine = if self.rocksdb {
            StateEngine::rocksdb(storage::db::StateConfig::default()).unwrap()
        } else {
            StateEngine::memory()
        };
        let groups = folder.path().join("groups");
        std::fs::create_dir_all(&groups).unwrap();
        let group = GroupId::Meta;
        let machine = Machine::open(Parts {
            group,
            store: engine.open(&groups, group.to_raw()).unwrap(),
            log: log.group(group.to_raw()),
            events: Arc::new(Echo::default()),
        })
        .unwrap();
        let store = LogStore::new(log.group(group.to_raw()));
        let guard = Guard {
            _log: log,
            _folder: folder,
        };
        Ok((guard, store, machine))
    }
}

fn suite(builder: Builder) {
    Types::run(async move { Suite::test_all(builder).await.unwrap() });
}

#[test]
fn the_suite_passes_in_memory() {
    suite(Builder {
        real: false,
        rocksdb: false,
    });
}

#[test]
fn the_suite_passes_on_disk() {
    suite(Builder {
        real: true,
        rocksdb: true,
    });
}

#[test]
fn the_suite_passes_in_memory_above_a_real_disk() {
    suite(Builder {
        real: true,
        rocksdb: false,
    });
}

#[test]
fn the_suite_passes_in_rocksdb_above_a_simulated_disk() {
    suite(Builder {
        real: false,
        rocksdb: true,
    });
}

/// As after a crash that the state has survived and the end of the log has not.
#[tokio::test]
async fn a_state_ahead_of_its_log_gets_a_snapshot_that_reaches_to_the_log() {
    let apply = |machine: Machine, indexes: std::ops::RangeInclusive<u64>| async move {
        let mut machine = machine;
        let entries = indexes.map(|index| {
            let (log_id, payload) = (log_id(1, 1, index), Payload::Blank);
            Ok((Entry { log_id, payload }, None))
        });
        machine.apply(futures::stream::iter(entries)).await.unwrap();
        machine
    };
    let builder = Builder {
        real: false,
        rocksdb: false,
    };
    let (_guard, mut log, machine) = builder.build().await.unwrap();
    let mut machine = apply(machine, 0..=5).await;
    let mut older = machine.get_snapshot_builder().await;
    older.build_snapshot().await.unwrap();
    let mut machine = apply(machine, 6..=6).await;

    for start in 0..2 {
        let mut helper = StorageHelper::new(&mut log, &mut machine).with_id(1);
        let state = helper.get_initial_state().await.unwrap();
        let newest = Some(log_id(1, 1, 6));
        assert_eq!(state.snapshot_meta.last_log_id, newest, "start {start}");
        let kept = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(kept.meta.last_log_id, newest, "start {start}");
    }
}
