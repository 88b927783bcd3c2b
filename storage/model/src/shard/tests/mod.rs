//! The shard's commands, each against the invariants of the crate's header.

mod ahead;
mod chunks;

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::id::{RegionId, Slot};
use crate::limits::{CHUNK_TTL, IDEMPOTENCY_TTL, MAX_REMEMBERED, PURGE_AFTER, TOMBSTONE_TTL};
use crate::testing::MemoryState;

const TENANT: TenantId = TenantId::DEFAULT;
const START: UnixMillis = UnixMillis(1_000_000);

/// A shard in memory whose log time the test moves.
struct Shard {
    state: MemoryState,
    now: UnixMillis,
    requests: u8,
    events: Vec<Event>,
}

fn shard() -> Shard {
    Shard {
        state: MemoryState::default(),
        now: START,
        requests: 0,
        events: Vec::new(),
    }
}

fn session(random: u8) -> SessionId {
    SessionId::new(
        RegionId::new(7).expect("in range"),
        Slot::wrapping(5),
        [random; 16],
    )
}

fn content(text: &'static str) -> Content {
    Content {
        summary: Blob::default(),
        body: Body::Inline(Blob(Bytes::from_static(text.as_bytes()))),
        plain_bytes: 1,
        expires: None,
    }
}

impl Shard {
    fn tag(&mut self) -> RequestTag {
        self.requests = self.requests.wrapping_add(1);
        let mut id = [0; 16];
        id[0] = self.requests;
        RequestTag {
            id: RequestId(id),
            not_after: self.now.plus(Duration::from_secs(10)),
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let entry = ShardEntry {
            behavior: BEHAVIOR,
            log_time: self.now,
            commands: vec![command],
        };
        let mut applied = apply(&mut self.state, &entry).expect("memory does not fail");
        self.events.append(&mut applied.events);
        applied.outcomes.pop().expect("one outcome for one command")
    }

    fn create(&mut self, session: SessionId, content: Content) -> (Command, Outcome) {
        let request = self.tag();
        let key = Blob(Bytes::from_static(b"key"));
        let command = Command::Create {
            tenant: TENANT,
            session,
            request,
            idempotency: None,
            key,
            content,
        };
        (command.clone(), self.apply(command))
    }

    fn update(&mut self, session: SessionId, expected: Version, content: Content) -> Outcome {
        let request = self.tag();
        let idempotency = None;
        self.apply(Command::Update {
            tenant: TENANT,
            session,
            request,
            idempotency,
            expected,
            after: None,
            content,
        })
    }

    fn delete(&mut self, session: SessionId) -> Outcome {
        let request = self.tag();
        let (idempotency, expected) = (None, None);
        self.apply(Command::Delete {
            tenant: TENANT,
            session,
            request,
            idempotency,
            expected,
        })
    }

    fn put_chunk(&mut self, id: u8) -> Outcome {
        let data = Blob(Bytes::from_static(b"sealed"));
        self.apply(Command::PutChunk {
            tenant: TENANT,
            chunk: ChunkId([id; 16]),
            data,
        })
    }

    fn record(&self, session: SessionId) -> Option<Record> {
        Record::load(&self.state, TENANT, session).expect("memory does not fail")
    }
}

fn version(revision: u64) -> Version {
    Version { epoch: 1, revision }
}

fn chunked(ids: &[u8]) -> Content {
    let chunks = ids.iter().map(|&id| ChunkId([id; 16])).collect();
    Content {
        body: Body::Chunked {
            manifest: Blob::default(),
            chunks,
        },
        ..content("")
    }
}

#[test]
fn a_retried_create_is_applied_once_and_answers_the_same() {
    let mut shard = shard();
    let (command, outcome) = shard.create(session(1), content("a"));
    assert_eq!(
        outcome,
        Outcome::Written {
            session: session(1),
            version: Version::FIRST,
            replayed: false
        }
    );
    let before = shard.state.clone();
    let again = shard.apply(command);
    assert_eq!(
        again,
        Outcome::Written {
            session: session(1),
            version: Version::FIRST,
            replayed: true
        }
    );
    assert_eq!(shard.state, before);
    assert_eq!(shard.events.len(), 1);
    assert_eq!(live_sessions(&shard.state, TENANT).expect("reads"), 1);
}

#[test]
fn an_update_from_an_old_version_is_refused_and_names_the_current_one() {
    let mut shard = shard();
    shard.create(session(1), content("a"));
    shard.update(session(1), version(1), content("b"));
    let outcome = shard.update(session(1), version(1), content("c"));
    let current = version(2);
    assert_eq!(
        outcome,
        Outcome::Rejected(Rejection::VersionMismatch { current })
    );
}

#[test]
fn a_command_after_its_time_is_refused_unless_it_was_carried_out() {
    let mut shard = shard();
    let (first, _) = shard.create(session(1), content("a"));
    let request = shard.tag();
    let late = Command::Create {
        tenant: TENANT,
        session: session(2),
        request,
        idempotency: None,
        key: Blob::default(),
        content: content("b"),
    };
    shard.now = shard.now.plus(Duration::from_secs(11));
    assert_eq!(shard.apply(late), Outcome::Rejected(Rejection::Late));
    assert!(matches!(
        shard.apply(first),
        Outcome::Written { replayed: true, .. }
    ));
}

#[test]
fn log_time_does_not_go_back() {
    let mut shard = shard();
    shard.create(session(1), content("a"));
    shard.now = UnixMillis(5);
    shard.update(session(1), version(1), content("b"));
    let Some(Record::Live(live)) = shard.record(session(1)) else {
        panic!("is there")
    };
    assert_eq!(live.updated, START);
}

#[test]
fn a_session_remembers_its_last_requests_and_refuses_more_live_ones_than_it_may() {
    let mut shard = shard();
    shard.create(session(1), content("a"));
    let mut revision = 1;
    for i in 1..MAX_REMEMBERED {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&(i as u64).to_be_bytes());
        let request = RequestTag {
            id: RequestId(id),
            not_after: START.plus(Duration::from_secs(60)),
        };
        let command = Command::Update {
            tenant: TENANT,
            session: session(1),
            request,
            idempotency: None,
            expected: version(revision),
            after: None,
            content: content("b"),
        };
        assert!(matches!(shard.apply(command), Outcome::Written { .. }));
        revision += 1;
    }
    let full = shard.update(session(1), version(revision), content("c"));
    assert_eq!(full, Outcome::Rejected(Rejection::TooManyRequests));
    shard.now = START.plus(Duration::from_secs(61));
    assert!(matches!(
        shard.update(session(1), version(revision), content("c")),
        Outcome::Written { .. }
    ));
    assert_eq!(
        shard
            .record(session(1))
            .expect("is there")
            .remembered()
            .len(),
        16
    );
}

#[test]
fn a_deleted_session_is_gone_and_a_retried_delete_is_told_so() {
    let mut shard = shard();
    shard.create(session(1), content("a"));
    let request = shard.tag();
    let (idempotency, expected) = (None, Some(version(1)));
    let command = Command::Delete {
        tenant: TENANT,
        session: session(1),
        request,
        idempotency,
        expected,
    };
    assert_eq!(
        shard.apply(command.clone()),
        Outcome::Deleted {
            session: session(1),
            replayed: false
        }
    );
    assert_eq!(
        shard.apply(command),
        Outcome::Deleted {
            session: session(1),
            replayed: true
        }
    );
    assert_eq!(
        shard.delete(session(1)),
        Outcome::Rejected(Rejection::NotFound)
    );
    assert_eq!(live_sessions(&shard.state, TENANT).expect("reads"), 0);
    assert_eq!(
        shard
            .state
            .get(&Key::Secret(TENANT, session(1)))
            .expect("reads"),
        None
    );
    shard.now = shard.now.plus(TOMBSTONE_TTL);
    shard.apply(Command::Sweep);
    assert_eq!(shard.record(session(1)), None);
}

#[test]
fn an_idempotency_key_answers_with_the_first_session_for_a_day_and_refuses_another_request() {
    let mut shard = shard();
    let keyed = |shard: &mut Shard, id: u8, fingerprint: u8| {
        let request = shard.tag();
        let idempotency = Some(IdempotencyTag {
            key: [4; 32],
            fingerprint: [fingerprint; 32],
        });
        let (key, content) = (Blob::default(), content("a"));
        shard.apply(Command::Create {
            tenant: TENANT,
            session: session(id),
            request,
            idempotency,
            key,
            content,
        })
    };
    assert!(matches!(
        keyed(&mut shard, 1, 1),
        Outcome::Written {
            replayed: false,
            ..
        }
    ));
    let replayed = Outcome::Written {
        session: session(1),
        version: Version::FIRST,
        replayed: true,
    };
    assert_eq!(keyed(&mut shard, 2, 1), replayed);
    assert_eq!(
        keyed(&mut shard, 3, 2),
        Outcome::Rejected(Rejection::KeyReused)
    );
    shard.now = START.plus(IDEMPOTENCY_TTL);
    shard.apply(Command::Sweep);
    assert!(matches!(
        keyed(&mut shard, 4, 2),
        Outcome::Written {
            replayed: false,
            ..
        }
    ));
}

#[test]
fn the_bytes_of_an_entry_are_those_of_format_three() {
    let entry = ShardEntry {
        behavior: BEHAVIOR,
        log_time: UnixMillis(1000),
        commands: vec![
            Command::PutChunk {
                tenant: TenantId(1),
                chunk: ChunkId([7; 16]),
                data: Blob(Bytes::from_static(b"xyz")),
            },
            Command::Sweep,
        ],
    };
    let bytes = codec::encode(&entry);
    assert_eq!(
        hex::encode(&bytes),
        "0301fbe8030203010707070707070707070707070707070703".to_owned() + "78797a04"
    );
    assert_eq!(codec::decode::<ShardEntry>(&bytes).expect("decodes"), entry);
}
