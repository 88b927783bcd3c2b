//! The service against groups in memory.

mod list;
mod read;
mod watch;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::codec::Blob;
use model::document::{Served, serve};
use model::id::{RequestId, SessionId, Slot, TenantId, Version};
use model::service::{
    Consistency, Failure, ReadReply, ReadRequest, Sessions, Stored, WriteOp, WriteReply,
    WriteRequest,
};
use model::time::Clock;

use crate::service::testing::FakeRegion;
use crate::service::{ServiceConfig, keys};

const TENANT: TenantId = TenantId::DEFAULT;

/// Short times, because the tests run on the real clock.
fn config() -> ServiceConfig {
    ServiceConfig {
        try_timeout: Duration::from_millis(500),
        barrier_timeout: Duration::from_millis(50),
        poll_period: Duration::from_millis(10),
        ..ServiceConfig::default()
    }
}

fn region(nodes: u64, replicas: u64) -> FakeRegion {
    FakeRegion::new(nodes, replicas, 3, &config())
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    let so = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, so)
        .await
        .expect("it becomes so in time");
}

fn blob(text: &str) -> Blob {
    Blob(Bytes::copy_from_slice(text.as_bytes()))
}

fn new_session(region: &FakeRegion) -> SessionId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let slot = Slot::wrapping(u16::try_from(next * 997 % 16_384).unwrap());
    SessionId::new(region.region(), slot, keys::random())
}

fn write(region: &FakeRegion, session: SessionId, op: WriteOp) -> WriteRequest {
    WriteRequest {
        tenant: TENANT,
        session,
        request: RequestId(keys::random()),
        not_after: region.clock.now().plus(Duration::from_secs(20)),
        op,
        if_match: None,
        idempotency: None,
        want_document: true,
    }
}

async fn created(region: &FakeRegion, body: &str) -> SessionId {
    let session = new_session(region);
    let request = write(region, session, WriteOp::Create(blob(body)));
    let reply = region.service(1).write(request).await.unwrap();
    assert_eq!(reply.version, Version::FIRST);
    session
}

async fn put(region: &FakeRegion, session: SessionId, body: &str) -> Result<WriteReply, Failure> {
    let request = write(region, session, WriteOp::Put(blob(body)));
    region.service(1).write(request).await
}

fn reading(session: SessionId) -> ReadRequest {
    ReadRequest {
        tenant: TENANT,
        session,
        consistency: Consistency::Linearizable,
        known: Vec::new(),
        timeout: Duration::from_secs(5),
    }
}

async fn read(region: &FakeRegion, node: u64, session: SessionId) -> Result<Stored, Failure> {
    match region.service(node).read(reading(session)).await? {
        ReadReply::Found { stored, .. } => Ok(*stored),
        ReadReply::Unchanged { .. } => panic!("no version was known"),
    }
}

fn text(stored: &Stored) -> String {
    let served = Served {
        id: stored.session,
        version: stored.version,
        created: stored.created,
        updated: stored.updated,
        expires: stored.expires,
        sections: &stored.sections,
    };
    String::from_utf8(serve(&served)).unwrap()
}

fn version(revision: u64) -> Version {
    Version { epoch: 1, revision }
}
