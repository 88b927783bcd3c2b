//! What one replica pays for a committed entry: its bytes are decoded, its commands applied to the state, the changes committed.
//!
//! The state is RocksDB in a temporary folder, with 1,000 sessions of one shard that are written again and again; nothing is synced
//! here, as in a node. Bodies are random bytes as long as a sealed 4 KiB session is.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use model::codec::{self, Blob};
use model::id::{RegionId, RequestId, SessionId, Slot, TenantId, Version};
use model::shard::{self, BEHAVIOR, Body, Command, Content, RequestTag, ShardEntry};
use model::time::UnixMillis;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use storage::db::StateConfig;
use storage::state::{StateEngine, Tablet, TabletStore};

/// Sessions of the shard.
const SESSIONS: u64 = 1000;
/// Bytes of a body as it is stored, and of a summary.
const BODY: usize = 1700;
const SUMMARY: usize = 300;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    codec_of_entries(&mut criterion);
    entries(&mut criterion);
    criterion.final_summary();
}

/// An entry's way to bytes and back.
fn codec_of_entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply/codec");
    for commands in [1, 16, 64] {
        let entry = Shard::new().entry(commands);
        let bytes = codec::encode(&entry);
        group.throughput(Throughput::Elements(commands));
        group.bench_with_input(
            BenchmarkId::new("encode", commands),
            &entry,
            |bencher, it| {
                bencher.iter(|| codec::encode_about(black_box(it), bytes.len()));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("decode", commands),
            &bytes,
            |bencher, it| {
                bencher.iter(|| {
                    codec::decode::<ShardEntry>(black_box(it)).expect("it was encoded here")
                });
            },
        );
    }
    group.finish();
}

/// Entries of so many updates, each decoded, applied and committed.
fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply/entry_of_updates");
    for commands in [1, 16, 64] {
        let state = State::open();
        let mut shard = Shard::new();
        state.apply(&codec::encode(&shard.creations()));
        group.throughput(Throughput::Elements(commands));
        group.bench_function(BenchmarkId::from_parameter(commands), |bencher| {
            bencher.iter_batched(
                || codec::encode(&shard.entry(commands)),
                |bytes| state.apply(&bytes),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Makes entries, one after the other, each of which fits the state after the one before it.
struct Shard {
    dice: ChaCha8Rng,
    now: UnixMillis,
    versions: Vec<Version>,
    next: usize,
}

impl Shard {
    fn new() -> Self {
        Self {
            dice: ChaCha8Rng::seed_from_u64(1),
            now: UnixMillis(1_000_000),
            versions: (0..SESSIONS).map(|_| Version::FIRST).collect(),
            next: 0,
        }
    }

    fn bytes(&mut self, length: usize) -> Blob {
        let mut bytes = vec![0; length];
        self.dice.fill(&mut bytes[..]);
        Blob(Bytes::from(bytes))
    }

    fn content(&mut self) -> Content {
        Content {
            summary: self.bytes(SUMMARY),
            body: Body::Inline(self.bytes(BODY)),
            plain_bytes: 4096,
            expires: None,
        }
    }

    fn request(&mut self) -> RequestTag {
        RequestTag {
            id: RequestId(self.dice.random()),
            not_after: UnixMillis(self.now.0 + 1000),
        }
    }

    fn of(&mut self, commands: Vec<Command>) -> ShardEntry {
        // Some requests are forgotten with every entry, as they are when time goes on.
        self.now = UnixMillis(self.now.0 + 100);
        ShardEntry {
            behavior: BEHAVIOR,
            log_time: self.now,
            commands,
        }
    }

    fn creations(&mut self) -> ShardEntry {
        let mut commands = Vec::new();
        for number in 0..SESSIONS {
            commands.push(Command::Create {
                tenant: TenantId::DEFAULT,
                session: session(number),
                request: self.request(),
                idempotency: None,
                key: self.bytes(60),
                content: self.content(),
            });
        }
        self.of(commands)
    }

    /// Updates of the sessions that come next.
    fn entry(&mut self, updates: u64) -> ShardEntry {
        let mut commands = Vec::new();
        for _ in 0..updates {
            let place = self.next % self.versions.len();
            self.next += 1;
            let expected = self.versions[place];
            self.versions[place] = expected.next();
            commands.push(Command::Update {
                tenant: TenantId::DEFAULT,
                session: session(place as u64),
                request: self.request(),
                idempotency: None,
                expected,
                after: None,
                content: self.content(),
            });
        }
        self.of(commands)
    }
}

fn session(number: u64) -> SessionId {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let region = RegionId::new(0).expect("in range");
    SessionId::new(region, Slot::wrapping(5), random)
}

/// A replica's state on the disk.
struct State {
    tablet: Arc<dyn Tablet>,
    /// Closed before the folder goes.
    _store: TabletStore,
    _folder: tempfile::TempDir,
}

impl State {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = StateEngine::rocksdb(StateConfig::default()).expect("RocksDB starts");
        let store = engine.open(folder.path(), 1).expect("an empty state opens");
        Self {
            tablet: store.current(),
            _store: store,
            _folder: folder,
        }
    }

    fn apply(&self, bytes: &Bytes) {
        let entry: ShardEntry = codec::decode(bytes).expect("it was encoded here");
        let mut txn = self.tablet.begin();
        let applied = shard::apply(&mut txn, &entry).expect("the state can be read");
        let done = |outcome: &shard::Outcome| matches!(outcome, shard::Outcome::Written { .. });
        assert!(applied.outcomes.iter().all(done), "an update was refused");
        self.tablet
            .commit(&txn, b"mark")
            .expect("the disk takes it");
        black_box(applied);
    }
}
