//! What is measured: a store of values under keys, through one connection of a client.
//!
//! Each store is spoken to as directly as its protocol allows, by a client that does as little as it can: what differs between two
//! results is the servers.
//!
//! | file | what | durable when it answers a write |
//! |---|---|---|
//! | `psp.rs` | PSP Edge | synced on a majority |
//! | `etcd.rs` | etcd | synced on a majority |
//! | `nats.rs` | a key-value bucket of NATS JetStream | synced on a majority, with `sync_interval: always` |
//! | `redis.rs` | Redis and `WAIT 1` | synced on the primary, received by a replica |
//! | `postgres.rs` | PostgreSQL | synced on the primary and on a standby |
//! | `plain.rs` | plain HTTP: nginx with files, a stand-in of the PSP reference server | no |
//! | `wire.rs` | a connection's bytes | |

pub mod etcd;
pub mod nats;
pub mod plain;
pub mod postgres;
pub mod psp;
pub mod redis;
mod wire;

use std::future::Future;

use bytes::Bytes;

/// What a read must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Every write that was acknowledged before.
    Linearizable,
    /// What the node that is asked has.
    Local,
}

/// A store that can be reached.
pub trait Store {
    /// A client's way to it.
    type Connection: Connection + 'static;

    /// Connects a client. Clients are numbered from 0; which node one of them asks follows from its number.
    ///
    /// # Errors
    /// In words.
    fn connect(&self, client: usize) -> impl Future<Output = Result<Self::Connection, String>>;
}

/// One client's connection. It connects again by itself when it has to.
pub trait Connection {
    /// Writes a key for the first time.
    ///
    /// # Errors
    /// In words.
    fn fill(&mut self, key: usize, body: Bytes) -> impl Future<Output = Result<(), String>>;

    /// Writes a key that is there.
    ///
    /// # Errors
    /// In words, whether it was written or not.
    fn put(&mut self, key: usize, body: Bytes) -> impl Future<Output = Result<(), String>>;

    /// Reads a key's whole value.
    ///
    /// # Errors
    /// In words; also when there is no value.
    fn get(&mut self, key: usize, fresh: Fresh) -> impl Future<Output = Result<(), String>>;
}
