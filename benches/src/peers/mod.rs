//! Those we are measured against, and ourselves: each started on this machine as it is meant to be run where data matters.
//!
//! | file | what runs |
//! |---|---|
//! | `psp.rs` | `pspd dev` with three nodes |
//! | `etcd.rs` | three members with their defaults |
//! | `nats.rs` | three servers, JetStream, `sync_interval: always` |
//! | `redis.rs` | a primary and two replicas, `appendfsync always` |
//! | `postgres.rs` | a primary and two standbys, one of which must have synced |
//! | `nginx.rs` | one worker and files |
//! | `reference.rs` | the stand-in of the PSP reference server |
//! | `server.rs` | a process: start, signal, wait |
//!
//! Everything is on the loopback interface and in a folder of its own, which is empty at the start. What was started is ended by its
//! process id, also when this is dropped; after SIGKILL to this process itself servers can be left.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::Store;

pub mod etcd;
pub mod nats;
pub mod nginx;
pub mod postgres;
pub mod psp;
pub mod redis;
pub mod reference;
mod server;

pub use server::{Server, signal};

/// How long a system may take until it is ready.
const READY: Duration = Duration::from_mins(1);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);
/// Nodes of each system that has nodes.
const NODES: u16 = 3;

/// Where things are, as absolute paths, and may be put.
#[derive(Clone, Debug)]
pub struct Place {
    /// Each system has a folder in here.
    pub folder: PathBuf,
    /// What `benches/peers/install` put.
    pub bin: PathBuf,
    /// Our server.
    pub pspd: PathBuf,
    /// The stand-in's script.
    pub reference: PathBuf,
    /// The first port; up to 999 after it are used.
    pub port: u16,
}

impl Place {
    /// For ours alone: our server, a folder, and the first port.
    ///
    /// # Errors
    /// In words, when a path cannot be made whole.
    pub fn alone(pspd: &Path, folder: &Path, port: u16) -> Result<Self, String> {
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let folder = whole(folder)?;
        Ok(Self {
            bin: folder.join("bin"),
            pspd: whole(pspd)?,
            reference: PathBuf::new(),
            port,
            folder,
        })
    }

    /// An empty folder for a system.
    ///
    /// # Errors
    /// In words.
    pub fn empty(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        let fails = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(fails)?;
        }
        std::fs::create_dir_all(&folder).map_err(fails)?;
        Ok(folder)
    }

    /// A port; an error when somebody listens there.
    ///
    /// # Errors
    /// In words.
    pub fn port(&self, offset: u16) -> Result<u16, String> {
        let port = self.port.saturating_add(offset);
        let free = std::net::TcpListener::bind(local(port));
        free.map_err(|error| format!("port {port}, on which a server is to listen: {error}"))?;
        Ok(port)
    }
}

/// A system that runs.
pub trait Peer: Sized {
    /// How it is spoken to.
    type Store: Store;

    /// Starts it, and waits until it can be asked.
    ///
    /// # Errors
    /// In words; then nothing of it runs.
    fn start(place: &Place) -> impl Future<Output = Result<Self, String>>;

    /// Its clients, who know where the leader is now; a request that takes longer than `limit` has failed.
    ///
    /// # Errors
    /// In words.
    fn store(&self, limit: Duration) -> impl Future<Output = Result<Self::Store, String>>;

    /// The processes that are its nodes; what they start counts with them.
    fn nodes(&self) -> Vec<u32>;

    /// The process to kill when a leader is to be lost.
    ///
    /// # Errors
    /// In words; also when it has none.
    fn leader(&self) -> impl Future<Output = Result<u32, String>>;

    /// Ends it in order.
    fn stop(self) -> impl Future<Output = ()>;
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Looks again and again, until it is so or takes too long; then the last reason is given.
async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= end => {
                return Err(format!("{what}: not within {limit:?}: {why}"));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// The same, while all these live.
async fn ready<T>(
    what: &str,
    servers: &mut [Server],
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let mut ended = None;
    let found = until(what, READY, async || {
        let all = servers.iter_mut().try_for_each(Server::lives);
        if let Err(why) = all {
            ended = Some(why);
            return Ok(None);
        }
        look().await.map(Some)
    });
    let found = found.await?;
    found.ok_or_else(|| ended.unwrap_or_default())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
