//! What a request costs before and after the store: the gateway over loopback, with its client in the same thread, before a store
//! that answers at once. One request at a time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use benches::data::{self, Text};
use benches::store::psp::{Protocol, Psp};
use benches::store::{Connection as _, Fresh, Store as _};
use criterion::{BenchmarkId, Criterion};
use gateway::{
    AdminHooks, AdminReply, AdminRequest, Gateway, GatewayConfig, LimitsConfig, Secrets,
};
use model::document::{self, Sections};
use model::id::{GroupId, RegionId, SessionId, TenantId, Version};
use model::service::{
    Changes, Failure, ListReply, ListRequest, ReadReply, ReadRequest, Refused, Sessions, Stored,
    WriteReply, WriteRequest,
};
use model::time::{Clock, UnixMillis};
use secrecy::SecretBox;
use tokio::task::LocalSet;
use tokio::time::Instant;

const KEY: &str = "psp_bench";
const SIZES: [usize; 3] = [2 << 10, 4 << 10, 64 << 10];
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

struct Stands;

impl Clock for Stands {
    fn now(&self) -> UnixMillis {
        NOW
    }
}

/// Takes every write, and reads the same document of every session.
struct AtOnce {
    sections: Sections,
}

#[async_trait]
impl Sessions for AtOnce {
    fn birth_region(&self) -> RegionId {
        RegionId::new(0).expect("a number of a region")
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteReply, Failure> {
        let stored = request.want_document.then(|| self.stored(request.session));
        Ok(WriteReply {
            session: request.session,
            version: Version::FIRST,
            stored,
            clean: None,
            replayed: false,
        })
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadReply, Failure> {
        Ok(ReadReply::Found {
            stored: Box::new(self.stored(request.session)),
            staleness: None,
        })
    }

    async fn list(&self, _request: ListRequest) -> Result<ListReply, Failure> {
        Ok(ListReply::default())
    }

    async fn watch(
        &self,
        _tenant: TenantId,
        _session: SessionId,
        _from: Option<Version>,
    ) -> Result<Changes, Failure> {
        Err(Refused::NotFound.into())
    }

    fn leaderless(&self) -> Vec<GroupId> {
        Vec::new()
    }
}

impl AtOnce {
    fn stored(&self, session: SessionId) -> Stored {
        Stored {
            session,
            version: Version::FIRST,
            created: NOW,
            updated: NOW,
            expires: None,
            sections: self.sections.clone(),
        }
    }
}

struct Healthy;

#[async_trait]
impl AdminHooks for Healthy {
    fn sick(&self) -> Vec<String> {
        Vec::new()
    }

    fn unready(&self) -> Vec<String> {
        Vec::new()
    }

    fn metrics(&self) -> String {
        String::new()
    }

    async fn admin(&self, _request: AdminRequest) -> AdminReply {
        AdminReply::NotFound
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("http");
    for size in SIZES {
        let body = data::state(1, 1, size, Text::Real);
        let local = LocalSet::new();
        let (gateway, mut client) = local.block_on(&runtime, async {
            let gateway = start(&body).await;
            let nodes = vec![gateway.addresses().http];
            let store = Psp::new(nodes, KEY, Protocol::Http1, (1, Duration::from_secs(10)));
            let mut client = store.expect("a key").connect(0).await.expect("a way");
            client.fill(0, body.clone()).await.expect("it is taken");
            (gateway, client)
        });
        group.bench_function(BenchmarkId::new("put", size), |bencher| {
            bencher.iter_custom(|requests| {
                let began = Instant::now();
                local.block_on(&runtime, async {
                    for _ in 0..requests {
                        client.put(0, body.clone()).await.expect("it is taken");
                    }
                });
                began.elapsed()
            });
        });
        group.bench_function(BenchmarkId::new("get", size), |bencher| {
            bencher.iter_custom(|requests| {
                let began = Instant::now();
                local.block_on(&runtime, async {
                    for _ in 0..requests {
                        client
                            .get(0, Fresh::Linearizable)
                            .await
                            .expect("it is there");
                    }
                });
                began.elapsed()
            });
        });
        drop(client);
        local.block_on(&runtime, gateway.drain(Duration::from_secs(1)));
    }
    group.finish();
    criterion.final_summary();
}

async fn start(body: &bytes::Bytes) -> Gateway {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = GatewayConfig {
        http: any,
        admin: any,
        tls: None,
        limits: LimitsConfig::default(),
    };
    let secrets = Secrets {
        api_key: KEY.into(),
        cluster: SecretBox::new(Box::new([7; 32])),
    };
    let sections = document::create(body).expect("a document").sections;
    let gateway = Gateway::start(
        config,
        secrets,
        Arc::new(AtOnce { sections }),
        Arc::new(Stands),
        Arc::new(Healthy),
    );
    gateway.await.expect("sockets")
}
