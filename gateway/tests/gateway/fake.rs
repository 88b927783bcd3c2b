//! A store in memory: the model's documents, versions, keys and watches, without replication.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use gateway::{AdminHooks, AdminReply, AdminRequest};
use model::document::{self, DocumentError, Input, Sections};
use model::id::{GroupId, RegionId, SessionId, TenantId, Version};
use model::service::{
    Change, Changes, Consistency, Failure, ListReply, ListRequest, Listed, ReadReply, ReadRequest,
    Refused, Sessions, Stored, WriteOp, WriteReply, WriteRequest,
};
use model::time::{Clock, UnixMillis};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

/// A wall clock that stands until it is moved.
pub(crate) struct Wall(pub(crate) AtomicU64);

impl Clock for Wall {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// See the module's text.
pub(crate) struct Fake {
    clock: Arc<Wall>,
    state: Mutex<State>,
    changes: broadcast::Sender<(SessionId, Change)>,
    /// Calls wait here while it is held shut.
    pub(crate) gate: Mutex<Option<Arc<Notify>>>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<SessionId, Stored>,
    gone: HashMap<SessionId, Version>,
    keys: HashMap<[u8; 32], ([u8; 32], SessionId)>,
    next_failure: Option<Failure>,
    writes: Vec<WriteRequest>,
}

fn bad(error: &DocumentError) -> Failure {
    if let DocumentError::TooLarge { .. } = error {
        return Refused::TooLarge.into();
    }
    let path = error.path().map(str::to_owned);
    Refused::BadDocument {
        text: error.to_string(),
        path,
    }
    .into()
}

impl Fake {
    pub(crate) fn new(clock: Arc<Wall>) -> Self {
        let (changes, _) = broadcast::channel(64);
        Self {
            clock,
            state: Mutex::default(),
            changes,
            gate: Mutex::default(),
        }
    }

    /// The next call ends so.
    pub(crate) fn fail_next(&self, failure: Failure) {
        self.state.lock().next_failure = Some(failure);
    }

    /// The writes that came, newest last.
    pub(crate) fn writes(&self) -> Vec<WriteRequest> {
        self.state.lock().writes.clone()
    }

    pub(crate) fn tell(&self, session: SessionId, change: Change) {
        let _told = self.changes.send((session, change));
    }

    async fn arrive(&self) -> Result<(), Failure> {
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        match self.state.lock().next_failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn fresh(&self, request: &WriteRequest, input: Input) -> Stored {
        Stored {
            session: request.session,
            version: Version::FIRST,
            created: self.clock.now(),
            updated: self.clock.now(),
            expires: input.expires,
            sections: input.sections,
        }
    }
}

impl State {
    fn get(&self, session: SessionId) -> Result<Stored, Failure> {
        self.sessions
            .get(&session)
            .cloned()
            .ok_or(Failure::Refused(Refused::NotFound))
    }
}

#[async_trait]
impl Sessions for Fake {
    fn birth_region(&self) -> RegionId {
        RegionId::new(0).expect("in range")
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteReply, Failure> {
        self.arrive().await?;
        let mut state = self.state.lock();
        state.writes.push(request.clone());
        if let Some(tag) = request.idempotency
            && let Some((fingerprint, session)) = state.keys.get(&tag.key).copied()
        {
            if fingerprint != tag.fingerprint {
                return Err(Refused::KeyReused.into());
            }
            let stored = state.get(session)?;
            let version = stored.version;
            let stored = request.want_document.then_some(stored);
            return Ok(WriteReply {
                session,
                version,
                stored,
                clean: None,
                replayed: true,
            });
        }
        let now = self.clock.now();
        let mut clean = None;
        let stored = match &request.op {
            WriteOp::Create(body) => {
                self.fresh(&request, document::create(&body.0).map_err(|e| bad(&e))?)
            }
            WriteOp::CreateV1(body) => {
                self.fresh(&request, document::create_v1(&body.0).map_err(|e| bad(&e))?)
            }
            WriteOp::Put(_) | WriteOp::Patch(_) | WriteOp::Clean | WriteOp::Delete => {
                let current = state.get(request.session)?;
                if let Some(wanted) = &request.if_match
                    && !wanted.contains(&current.version)
                {
                    return Err(Refused::VersionMismatch {
                        current: current.version,
                    }
                    .into());
                }
                let change = |sections: &Sections| match &request.op {
                    WriteOp::Put(body) => {
                        document::put(sections, &body.0).map(|input| (input, None))
                    }
                    WriteOp::Patch(body) => {
                        document::patch(sections, &body.0).map(|input| (input, None))
                    }
                    _ => {
                        document::clean(sections, now).map(|(input, report)| (input, Some(report)))
                    }
                };
                if request.op == WriteOp::Delete {
                    state.sessions.remove(&request.session);
                    let version = current.version.next();
                    state.gone.insert(request.session, version);
                    self.tell(request.session, Change::Deleted { version });
                    let session = request.session;
                    return Ok(WriteReply {
                        session,
                        version,
                        stored: None,
                        clean: None,
                        replayed: false,
                    });
                }
                let (input, report) = change(&current.sections).map_err(|e| bad(&e))?;
                clean = report;
                Stored {
                    version: current.version.next(),
                    updated: now,
                    expires: input.expires,
                    sections: input.sections,
                    ..current
                }
            }
        };
        state.sessions.insert(stored.session, stored.clone());
        if let Some(tag) = request.idempotency {
            state
                .keys
                .insert(tag.key, (tag.fingerprint, stored.session));
        }
        self.tell(
            stored.session,
            Change::Updated {
                stored: Box::new(stored.clone()),
                resync: false,
            },
        );
        let (session, version) = (stored.session, stored.version);
        let stored = request.want_document.then_some(stored);
        Ok(WriteReply {
            session,
            version,
            stored,
            clean,
            replayed: false,
        })
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadReply, Failure> {
        self.arrive().await?;
        let stored = self.state.lock().get(request.session)?;
        if let Some(at) = stored.expires.filter(|at| *at <= self.clock.now()) {
            return Err(Refused::Expired { at }.into());
        }
        let staleness = match request.consistency {
            Consistency::Linearizable => None,
            Consistency::Local { at_least } if at_least > Some(stored.version) => {
                return Err(Refused::BranchLost.into());
            }
            Consistency::Local { .. } => Some(Duration::from_millis(42)),
        };
        if request.known.contains(&stored.version) {
            return Ok(ReadReply::Unchanged {
                version: stored.version,
                staleness,
            });
        }
        Ok(ReadReply::Found { stored, staleness })
    }

    async fn list(&self, request: ListRequest) -> Result<ListReply, Failure> {
        self.arrive().await?;
        let state = self.state.lock();
        let fits = |stored: &&Stored| {
            let summary = stored.sections.summary();
            request
                .tag
                .as_ref()
                .is_none_or(|tag| summary.tags.contains(tag))
                && request
                    .name
                    .as_ref()
                    .is_none_or(|name| *name == summary.name)
        };
        let all: Vec<_> = state.sessions.values().filter(fits).collect();
        let after = all
            .iter()
            .filter(|stored| Some(stored.session) > request.after)
            .skip(request.offset);
        let page: Vec<_> = after.clone().take(request.limit).collect();
        let more = after.count() > page.len();
        let sessions = page.iter().map(|stored| Listed {
            session: stored.session,
            version: stored.version,
            created: stored.created,
            updated: stored.updated,
            expires: stored.expires,
            expired: stored.expires.is_some_and(|at| at <= self.clock.now()),
            bytes: stored.sections.len() as u64,
            summary: stored.sections.summary().clone(),
        });
        Ok(ListReply {
            sessions: sessions.collect(),
            total: all.len() as u64,
            next: page.last().filter(|_| more).map(|stored| stored.session),
        })
    }

    async fn watch(
        &self,
        _: TenantId,
        session: SessionId,
        from: Option<Version>,
    ) -> Result<Changes, Failure> {
        self.arrive().await?;
        let changes = self.changes.subscribe();
        let stored = self.state.lock().get(session)?;
        let missed = from.filter(|from| *from < stored.version).map(|from| {
            let resync = from.next() < stored.version;
            Change::Updated {
                stored: Box::new(stored),
                resync,
            }
        });
        let live = futures::stream::unfold(changes, |mut changes| async {
            Some((changes.recv().await.ok()?, changes))
        });
        let live = live
            .filter_map(move |(id, change)| std::future::ready((id == session).then_some(change)));
        Ok(Box::pin(futures::stream::iter(missed).chain(live)))
    }

    fn leaderless(&self) -> Vec<GroupId> {
        vec![GroupId::Meta]
    }
}

/// A node that is ready unless it is told otherwise.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) unready: Mutex<Vec<String>>,
}

#[async_trait]
impl AdminHooks for Hooks {
    fn sick(&self) -> Vec<String> {
        Vec::new()
    }

    fn unready(&self) -> Vec<String> {
        self.unready.lock().clone()
    }

    fn metrics(&self) -> String {
        "psp_up 1\n".to_owned()
    }

    async fn admin(&self, request: AdminRequest) -> AdminReply {
        match request.path.as_str() {
            "cluster" => AdminReply::ok("{\"nodes\":[]}".to_owned()),
            "drain" => AdminReply::MethodNotAllowed("POST"),
            _ => AdminReply::NotFound,
        }
    }
}
