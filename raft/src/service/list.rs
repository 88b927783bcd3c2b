//! A page of a tenant's sessions, over all shards of the region in order.
//!
//! First every shard is brought up to date and counted, all at a time; then their parts are taken in order until the page
//! is full. Bounded: records looked at, and bytes of one shard's part; when a bound is met, the page ends early and says where to go on.
//! A list is not one point in time: each shard's part is.

use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use futures::future::try_join_all;
use model::codec;
use model::document::Summary;
use model::id::{GroupId, NodeId, SessionId, TenantId, Version};
use model::limits::MAX_LIST;
use model::placement;
use model::service::{Failure, ListReply, ListRequest, Listed};
use model::shard::{self, Live, Record, ShardHead};
use model::state::{Key, StateError, StateRead};
use model::time::UnixMillis;
use tokio::time::Instant;

use crate::service::Inner;
use crate::service::client::busy;
use crate::service::content::{self, ContentError};
use crate::service::error::{TryError, Why};
use crate::service::keys::KeyRing;
use crate::service::route::{AskError, Links, Target, pause};
use crate::service::view::View;
use crate::service::wire::{Reply, Request};
use crate::shard::ShardGroup;

/// Bytes of summaries in one part, about; one more row may exceed it.
const MAX_PART_BYTES: usize = 4 * 1024 * 1024;
/// Records read from the state at a time.
const SCAN: usize = 256;
/// A scan of one record counts as this many bytes of work.
const RECORD_WORK_BYTES: usize = 4096;

/// What is asked of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct PartRequest {
    pub(super) tenant: TenantId,
    pub(super) after: Option<SessionId>,
    pub(super) skip: usize,
    pub(super) limit: usize,
    pub(super) tag: Option<String>,
    pub(super) name: Option<String>,
    /// Records that may be looked at.
    pub(super) scan: usize,
    pub(super) timeout: Duration,
}

/// One row of a part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Row {
    pub(super) session: SessionId,
    pub(super) version: Version,
    pub(super) created: UnixMillis,
    pub(super) updated: UnixMillis,
    pub(super) expires: Option<UnixMillis>,
    pub(super) expired: bool,
    pub(super) bytes: u64,
    pub(super) summary: Summary,
}

/// One shard's part of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Part {
    pub(super) rows: Vec<Row>,
    /// Matches that were skipped.
    pub(super) skipped: usize,
    /// Records that were looked at.
    pub(super) scanned: usize,
    /// The last one that was looked at.
    pub(super) last: Option<SessionId>,
    /// Whether the shard has more after it.
    pub(super) more: bool,
}

/// How many live sessions a tenant has in a group, and whether the local replica was brought up to date to say so.
#[derive(Clone, Copy, Debug)]
struct Counted {
    live: u64,
    here: bool,
}

impl Inner {
    /// See [`model::service::Sessions::list`].
    pub(super) async fn list(&self, request: &ListRequest) -> Result<ListReply, Failure> {
        let Some(_admitted) = self.clients.admit(0) else {
            self.metrics.refused_busy.increment(1);
            return Err(busy());
        };
        let begun = Instant::now();
        let deadline = Self::deadline_in(request.timeout);
        let page = self.page(request, deadline).await;
        self.metrics.list_seconds.record(begun.elapsed());
        page.map_err(|error| error.into_failure(false))
    }

    async fn page(&self, request: &ListRequest, deadline: Instant) -> Result<ListReply, TryError> {
        let links = self.links()?;
        let (region, shards) = links.directory.region();
        let groups: Vec<GroupId> = placement::groups(region, shards).collect();
        let counts = groups
            .iter()
            .map(|group| self.count(&links, *group, request.tenant, deadline));
        let counts = try_join_all(counts).await?;
        let filtered = request.tag.is_some() || request.name.is_some();
        let first = request
            .after
            .map(|after| placement::group_of(after, shards));
        let mut page = ListReply {
            total: if filtered {
                0
            } else {
                counts.iter().map(|counted| counted.live).sum()
            },
            ..ListReply::default()
        };
        if request.limit == 0 {
            return Ok(page);
        }
        let mut last = request.after;
        let mut skip = request.offset;
        let mut scan = self.config.list_scan;
        let limit = request.limit.min(MAX_LIST);
        let from = groups
            .iter()
            .position(|group| first.is_none_or(|first| first == *group))
            .unwrap_or(groups.len());
        for (at, (group, counted)) in groups.iter().zip(&counts).enumerate().skip(from) {
            let after = request.after.filter(|_| at == from);
            let live = usize::try_from(counted.live).unwrap_or(usize::MAX);
            if live == 0 || !filtered && after.is_none() && skip >= live {
                skip -= if filtered { 0 } else { live };
                continue;
            }
            let part = PartRequest {
                tenant: request.tenant,
                after,
                skip,
                limit: limit - page.sessions.len(),
                tag: request.tag.clone(),
                name: request.name.clone(),
                // Skipping costs no opening, so it is not what the bound is for.
                scan: scan + if filtered { 0 } else { skip.min(live) },
                timeout: Self::left(deadline)?,
            };
            let part = self
                .part(&links, (*group, *counted), part, deadline)
                .await?;
            skip -= part.skipped;
            scan = scan.saturating_sub(part.scanned - if filtered { 0 } else { part.skipped });
            last = part.last.or(last);
            if filtered {
                let matches = part.rows.len() + part.skipped;
                page.total += u64::try_from(matches).unwrap_or(u64::MAX);
            }
            page.sessions.extend(part.rows.into_iter().map(listed));
            let later = counts[at + 1..].iter().any(|counted| counted.live > 0);
            let full = page.sessions.len() >= limit || scan == 0;
            if part.more || full && later {
                page.next = last;
                break;
            }
        }
        Ok(page)
    }

    /// Live sessions of the tenant in a group that was brought up to date.
    async fn count(
        &self,
        links: &Links,
        group: GroupId,
        tenant: TenantId,
        deadline: Instant,
    ) -> Result<Counted, TryError> {
        if let Some(local) = links.directory.local(group) {
            match self.count_here(&local, tenant, deadline).await {
                Err(error) if error.may_retry() => {}
                end => return end.map(|live| Counted { live, here: true }),
            }
        }
        let request = |timeout| Request::Count(tenant, timeout);
        match self.ask_some(links, group, request, deadline).await? {
            Reply::Counted(live) => Ok(Counted { live, here: false }),
            _ => Err(TryError::NotReady(Why::NotUnderstood)),
        }
    }

    pub(super) async fn count_here(
        &self,
        group: &Arc<dyn ShardGroup>,
        tenant: TenantId,
        deadline: Instant,
    ) -> Result<u64, TryError> {
        let timeout = Self::left(deadline)?.min(self.config.barrier_timeout);
        group.barrier(timeout).await?;
        Ok(shard::live_sessions(&View::of(group)?, tenant)?)
    }

    async fn part(
        &self,
        links: &Links,
        (group, counted): (GroupId, Counted),
        request: PartRequest,
        deadline: Instant,
    ) -> Result<Part, TryError> {
        // A local replica that was counted is up to date; one that could not be is not asked.
        if counted.here
            && let Some(local) = links.directory.local(group)
        {
            match self.part_here(&local, request.clone()).await {
                Err(error) if error.may_retry() || error == TryError::Damaged => {}
                end => return end,
            }
        }
        let asked = |timeout| {
            Request::List(PartRequest {
                timeout,
                ..request.clone()
            })
        };
        match self.ask_some(links, group, asked, deadline).await? {
            Reply::Listed(part) => Ok(part),
            _ => Err(TryError::NotReady(Why::NotUnderstood)),
        }
    }

    /// A part from the replica on this node, as it is: the caller has brought it up to date.
    pub(super) async fn part_here(
        &self,
        group: &Arc<dyn ShardGroup>,
        request: PartRequest,
    ) -> Result<Part, TryError> {
        let view = View::of(group)?;
        let now = group.log_time().max(ShardHead::load(&view)?.log_time);
        let live = shard::live_sessions(&view, request.tenant)?;
        let records = usize::try_from(live).unwrap_or(usize::MAX);
        let keys = Arc::clone(&self.keys);
        let job = move || scan(&view, &keys, &request, now);
        let work = records.saturating_mul(RECORD_WORK_BYTES);
        Ok(self.work.run(work, job).await??)
    }

    /// Asks nodes that have a replica, one after another, until the deadline.
    async fn ask_some(
        &self,
        links: &Links,
        group: GroupId,
        request: impl Fn(Duration) -> Request,
        deadline: Instant,
    ) -> Result<Reply, TryError> {
        let mut avoid: Vec<NodeId> = Vec::new();
        loop {
            let node = match self.leader(links, group, &mut avoid)? {
                Target::Node(node) => node,
                Target::Here(_) => self.any_other(links, group, &mut avoid)?,
            };
            let until = self.try_deadline(deadline, 0);
            let request = request(Self::left(until)?);
            let error = match self.ask(links, (node, group), request, until).await {
                Ok(reply) => return Ok(reply),
                Err(AskError::Failed(error)) if !error.may_retry() => return Err(error),
                Err(error) => error.of_a_read(),
            };
            avoid.push(node);
            let pause = pause();
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn listed(row: Row) -> Listed {
    Listed {
        session: row.session,
        version: row.version,
        created: row.created,
        updated: row.updated,
        expires: row.expires,
        expired: row.expired,
        bytes: row.bytes,
        summary: row.summary,
    }
}

/// The id after this one, if there is one.
fn successor(id: SessionId) -> Option<SessionId> {
    let number = u128::from_be_bytes(*id.as_bytes()).checked_add(1)?;
    Some(SessionId::from_bytes(number.to_be_bytes()))
}

/// Looks at a tenant's records in order of their ids.
fn scan(
    view: &impl StateRead,
    keys: &KeyRing,
    request: &PartRequest,
    now: UnixMillis,
) -> Result<Part, ContentError> {
    let tenant = request.tenant;
    let mut part = Part::default();
    let mut bytes = 0;
    let mut from = match request.after {
        Some(after) => successor(after),
        None => Some(SessionId::from_bytes([0; 16])),
    };
    while let Some(begin) = from {
        let page = view.scan(&Key::Session(tenant, begin), SCAN)?;
        let whole = page.len() == SCAN;
        from = None;
        for (key, value) in page {
            let Key::Session(owner, session) = key else {
                return Ok(part);
            };
            if owner != tenant {
                return Ok(part);
            }
            let record: Record = codec::decode(&value).map_err(StateError::from)?;
            part.scanned += 1;
            part.last = Some(session);
            if let Record::Live(live) = record {
                bytes += look_at(view, keys, (request, now), (session, live), &mut part)?;
            }
            let full = part.rows.len() >= request.limit || bytes >= MAX_PART_BYTES;
            if full || part.scanned >= request.scan {
                part.more = has_more(view, tenant, session);
                return Ok(part);
            }
            from = whole.then(|| successor(session)).flatten();
        }
    }
    Ok(part)
}

fn has_more(view: &impl StateRead, tenant: TenantId, last: SessionId) -> bool {
    let next = successor(last).map(|next| view.scan(&Key::Session(tenant, next), 1));
    match next {
        None => false,
        Some(Ok(rows)) => rows
            .first()
            .is_some_and(|(key, _)| matches!(key, Key::Session(owner, _) if *owner == tenant)),
        Some(Err(_)) => true,
    }
}

/// Takes one session into the part if it matches; answers its bytes there.
fn look_at(
    view: &impl StateRead,
    keys: &KeyRing,
    (request, now): (&PartRequest, UnixMillis),
    (session, live): (SessionId, Live),
    part: &mut Part,
) -> Result<usize, ContentError> {
    let filtered = request.tag.is_some() || request.name.is_some();
    if !filtered && part.skipped < request.skip {
        part.skipped += 1;
        return Ok(0);
    }
    let who = (request.tenant, session);
    let key = content::load_key(view, keys, who)?;
    let summary = content::open_summary(&key, who, &live.summary)?;
    let matches = request
        .tag
        .as_ref()
        .is_none_or(|tag| summary.tags.contains(tag))
        && request
            .name
            .as_ref()
            .is_none_or(|name| summary.name == *name);
    if !matches {
        return Ok(0);
    }
    if part.skipped < request.skip {
        part.skipped += 1;
        return Ok(0);
    }
    let bytes = codec::encode(&summary).len();
    part.rows.push(Row {
        session,
        version: live.version,
        created: live.created,
        updated: live.updated,
        expires: live.expires,
        expired: live.expires.is_some_and(|at| at <= now),
        bytes: live.plain_bytes,
        summary,
    });
    Ok(bytes)
}
