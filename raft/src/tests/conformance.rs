//! openraft's conformance suite, on memory and RocksDB, on the simulated and the real disk.

use std::path::Path;
use std::sync::Arc;

use model::id::GroupId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use storage::disk::{Disk, RealDisk, SimDisk};
use storage::log::{LogConfig, LogEngine};
use storage::state::StateEngine;

use crate::log_store::LogStore;
use crate::machine::{Machine, Parts};
use crate::testing::Echo;
use crate::types::Types;

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
