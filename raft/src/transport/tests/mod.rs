//! Endpoints on loopback, with real sockets.
//!
//! Each file is one promise of the module's header. Nothing sleeps: conditions are waited for, with a limit.

mod authority;
mod bounds;
mod calls;
mod frames;
mod large;
mod memory;
mod trust;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::id::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::api::{Call, Inbound, Kind, Lane, Refusal, RemoteError, Request, StreamOpen};
use super::ca::{Authority, Identity, Validity};
use super::config::Config;
use super::reply::Reply;
use super::stream::ByteStream;
use super::{Peer, Transport};

/// Answers with what it got.
const ECHO: Kind = Kind(100);
/// Keeps the reply until the test gives it.
const HOLD: Kind = Kind(101);
/// Answers with an error.
const FAIL: Kind = Kind(102);
/// Drops the reply.
const DROP: Kind = Kind(103);

const LONG: Duration = Duration::from_secs(10);
/// Tests that measure time, or that need it to be whole, do not run beside each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Handlers that remember what they saw.
#[derive(Default)]
struct Handlers {
    seen: Mutex<Vec<Request>>,
    held: Mutex<Vec<Reply>>,
    refusing: Mutex<Option<Refusal>>,
    unwelcome: Mutex<Option<Refusal>>,
    greeted: Mutex<Vec<Bytes>>,
    refused: Mutex<Vec<(NodeId, Refusal)>>,
    tasks: TaskTracker,
}

impl Inbound for Handlers {
    fn call(&self, request: Request, reply: Reply) {
        let (kind, body) = (request.kind, request.body.clone());
        self.seen.lock().push(request);
        match kind {
            HOLD => self.held.lock().push(reply),
            FAIL => reply.send(Err(RemoteError {
                code: 77,
                detail: body,
            })),
            DROP => drop(reply),
            _ => reply.send(Ok(body)),
        }
    }

    /// Sends back all that comes, and the header first.
    fn stream(&self, _from: NodeId, open: StreamOpen, stream: ByteStream) {
        let ByteStream {
            mut writer,
            mut reader,
        } = stream;
        drop(self.tasks.spawn(async move {
            writer.write(open.header).await.unwrap();
            while let Ok(Some(bytes)) = reader.next().await {
                writer.write(bytes).await.unwrap();
            }
            writer.finish().await.unwrap();
        }));
    }

    fn hello_out(&self, to: NodeId) -> Bytes {
        Bytes::from(format!("hello {to}"))
    }

    fn hello(&self, from: NodeId, hello: Bytes) -> Result<Bytes, Refusal> {
        self.greeted.lock().push(hello);
        match &*self.refusing.lock() {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(Bytes::from(format!("welcome {from}"))),
        }
    }

    fn welcome(&self, _from: NodeId, welcome: Bytes) -> Result<(), Refusal> {
        self.greeted.lock().push(welcome);
        self.unwelcome.lock().clone().map_or(Ok(()), Err)
    }

    fn refused(&self, peer: NodeId, refusal: &Refusal) {
        self.refused.lock().push((peer, refusal.clone()));
    }

    fn join(&self, from: Option<NodeId>, request: Bytes, reply: Reply) {
        reply.send(if let Some(node) = from {
            Ok(Bytes::from(format!("again, {node}")))
        } else if request.starts_with(b"token") {
            Ok(Bytes::from_static(b"certificate"))
        } else {
            Err(RemoteError::code(40))
        });
    }
}

impl Handlers {
    fn bodies(&self, lane: Lane) -> Vec<Bytes> {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|request| request.lane == lane)
            .map(|r| r.body.clone())
            .collect()
    }
}

struct Node {
    transport: Transport,
    handlers: Arc<Handlers>,
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.transport.local_addr().unwrap()
    }

    fn meet(&self, other: &Self) -> Peer {
        self.transport
            .set_address(other.transport.node(), other.address());
        self.transport.peer(other.transport.node())
    }
}

fn authority() -> Authority {
    Authority::create("test".parse().unwrap(), wall()).unwrap()
}

/// Certificates are checked against the real clock, so these are too.
fn wall() -> u64 {
    rustls_pki_types::UnixTime::now().as_secs()
}

fn identity(authority: &Authority, node: u64) -> Identity {
    authority
        .identity(
            NodeId(node),
            Validity {
                now: wall(),
                days: 30,
            },
        )
        .unwrap()
}

fn config(authority: &Authority, node: u64) -> Config {
    Config::new((Ipv4Addr::LOCALHOST, 0).into(), identity(authority, node))
}

fn start(config: Config) -> Node {
    let handlers = Arc::new(Handlers::default());
    let transport = Transport::start(config, Arc::clone(&handlers) as _).unwrap();
    Node {
        transport,
        handlers,
    }
}

fn pair() -> (Node, Node, Peer) {
    let authority = authority();
    let (one, two) = (start(config(&authority, 1)), start(config(&authority, 2)));
    let peer = one.meet(&two);
    (one, two, peer)
}

fn call(lane: Lane, kind: Kind, body: impl Into<Bytes>) -> Call {
    Call {
        lane,
        kind,
        group: GroupId::Meta,
        body: body.into(),
        timeout: LONG,
    }
}

/// Waits for a condition, with a limit.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Calls until there is an answer, within [`LONG`].
async fn until_answered(peer: &Peer, make: impl Fn() -> Call) {
    let begin = tokio::time::Instant::now();
    while peer.call(make()).await.is_err() {
        assert!(begin.elapsed() < LONG);
        until_the_next_look().await;
    }
}

/// The period between two looks at a condition that a test waits for.
async fn until_the_next_look() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
