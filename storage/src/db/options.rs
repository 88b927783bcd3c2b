//! What all tablets of a process share (one memory budget, a few threads), and the options with which each is opened.
//!
//! Guarantees: block cache, blob cache and memtables of all tablets stay within about `memory_bytes`, beside which each tablet holds its
//! last commits (`tablet`); open files of a tablet are bounded. The write-ahead log of RocksDB is off: the Raft log replays what a crash undoes. Bodies are sealed
//! and do not compress, so values from [`MIN_BLOB_BYTES`] lie apart from the keys, uncompressed, and compaction
//! does not carry them along.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, Env, LogLevel, Options, WriteBufferManager,
    WriteOptions,
};

use crate::error::TabletError;
use crate::state::flush::Odometer;

/// Values from this size, in bytes, lie in files of their own kind.
pub const MIN_BLOB_BYTES: u64 = 2048;

const BLOB_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Bodies move out of the older half of their files when what they belong to is compacted.
pub(super) const BLOB_GC_AGE: f64 = 0.5;
const TABLE_FILE_BYTES: u64 = 16 * 1024 * 1024;
const BLOCK_BYTES: usize = 8 * 1024;
const INFO_LOG_BYTES: usize = 1024 * 1024;
/// Open files of a copy that is read from one end to the other.
const COLD_FILES: i32 = 16;
const BLOOM_BITS: f64 = 10.0;

/// How a process keeps the state of its replicas.
#[derive(Clone, Copy, Debug)]
pub struct StateConfig {
    /// Bytes for the block and blob cache and all memtables together.
    pub memory_bytes: usize,
    /// Bytes of one tablet's memtable before it is flushed. At most a quarter of `memory_bytes` is used for all memtables.
    pub memtable_bytes: usize,
    /// Threads for compactions, for all tablets together; flushes have one more.
    pub compaction_threads: u8,
    /// Open files of one tablet at most.
    pub max_open_files: u16,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            memory_bytes: 192 * 1024 * 1024,
            memtable_bytes: 8 * 1024 * 1024,
            compaction_threads: 2,
            max_open_files: 128,
        }
    }
}

/// Figures about what all tablets share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes in the cache, memtables included.
    pub cache_bytes: u64,
    /// Bytes of the cache that are in use and cannot be given up.
    pub cache_pinned_bytes: u64,
    /// Bytes that the cache may hold.
    pub cache_limit_bytes: u64,
    /// Bytes in memtables.
    pub memtable_bytes: u64,
    /// Bytes that memtables may hold before tablets are flushed early.
    pub memtable_limit_bytes: u64,
}

/// What all tablets of a process share. One for each process.
pub struct RocksEngine {
    config: StateConfig,
    cache: Cache,
    memtables: WriteBufferManager,
    env: Env,
    pub(crate) odometer: Odometer,
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksEngine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl RocksEngine {
    /// Makes what is shared. Opens nothing yet.
    ///
    /// # Errors
    /// When RocksDB cannot start its threads.
    pub fn new(config: StateConfig) -> Result<Self, TabletError> {
        let cache = Cache::new_lru_cache(config.memory_bytes);
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            config.memory_bytes / 4,
            false,
            cache.clone(),
        );
        let mut env = Env::new().map_err(|e| TabletError::rocksdb("start of threads", &e))?;
        env.set_low_priority_background_threads(i32::from(config.compaction_threads.max(1)));
        env.set_high_priority_background_threads(1);
        Ok(Self {
            config,
            cache,
            memtables,
            env,
            odometer: Odometer::default(),
        })
    }

    /// Figures for operators.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            cache_bytes: wide(self.cache.get_usage()),
            cache_pinned_bytes: wide(self.cache.get_pinned_usage()),
            cache_limit_bytes: wide(self.config.memory_bytes),
            memtable_bytes: wide(self.memtables.get_usage()),
            memtable_limit_bytes: wide(self.memtables.get_buffer_size()),
        }
    }

    /// The options of one tablet.
    pub(crate) fn options(&self, create: bool) -> Options {
        let mut options = self.base();
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        options.set_max_open_files(i32::from(self.config.max_open_files));
        options.set_blob_cache(&self.cache);
        options.set_block_based_table_factory(&self.table());
        options
    }

    /// The options of a copy that is read once, from the disk: nothing of it is taken from a cache or kept in one, and where the
    /// file system can, not in the operating system's either.
    pub(crate) fn cold_options(&self, direct: bool) -> Options {
        let mut options = self.base();
        options.set_max_open_files(COLD_FILES);
        options.set_use_direct_reads(direct);
        let mut table = BlockBasedOptions::default();
        table.disable_cache();
        options.set_block_based_table_factory(&table);
        options
    }

    fn base(&self) -> Options {
        let mut options = Options::default();
        options.set_paranoid_checks(true);
        options.set_env(&self.env);
        options.set_max_background_jobs(i32::from(self.config.compaction_threads.max(1)) + 1);
        options.set_table_cache_num_shard_bits(2);
        options.set_skip_stats_update_on_db_open(true);
        // A tablet at rest costs nothing: no periodic dump, no periodic statistics.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(INFO_LOG_BYTES);

        options.set_write_buffer_manager(&self.memtables);
        options.set_write_buffer_size(self.config.memtable_bytes);
        options.set_max_write_buffer_number(3);
        options.set_arena_block_size(self.config.memtable_bytes.min(256 * 1024));
        // What the operating system has yet to write stays small, so that a sync is short.
        options.set_bytes_per_sync(1024 * 1024);

        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(TABLE_FILE_BYTES);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(MIN_BLOB_BYTES);
        options.set_blob_file_size(BLOB_FILE_BYTES);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(BLOB_GC_AGE);
        options.set_blob_gc_force_threshold(0.5);
        options
    }

    fn table(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_optimize_filters_for_memory(true);
        // Indexes and filters count against the budget too.
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table
    }
}

/// How a batch is written: without RocksDB's own log.
pub(crate) fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
