//! What an operator can set of the session service. Every value is a bound.

use std::time::Duration;

/// Bounds of the session service of one node.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Requests of clients that this node carries out at a time; past it they are refused at once.
    pub max_requests: usize,
    /// Bytes of their bodies.
    pub max_request_bytes: usize,
    /// Calls of other nodes that this node carries out at a time.
    pub max_inbound: usize,
    /// Bytes of their bodies.
    pub max_inbound_bytes: usize,
    /// Writes that wait for one session; past it 429.
    pub max_waiters: usize,
    /// Bytes of opened documents kept for the next merge or read.
    pub cache_bytes: usize,
    /// Bytes of recent changes that each group keeps for watchers that come back.
    pub history_bytes: usize,
    /// Watchers on this node.
    pub max_watchers: usize,
    /// Changes that wait for one watcher; past it they are coalesced to the newest.
    pub watcher_queue: usize,
    /// How often a watch is brought up to date when this node has no replica of its session.
    pub poll_period: Duration,
    /// How long one try at another node may take, apart from what its bytes take.
    pub try_timeout: Duration,
    /// How long one quorum round may take before another way is tried.
    pub barrier_timeout: Duration,
    /// Large documents that are parsed, compressed or opened at a time.
    pub max_large: usize,
    /// Session records that one page of a list may look at.
    pub list_scan: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_requests: 4096,
            max_request_bytes: 256 * MIB,
            max_inbound: 4096,
            max_inbound_bytes: 256 * MIB,
            max_waiters: 512,
            cache_bytes: 64 * MIB,
            history_bytes: 4 * MIB,
            max_watchers: 10_000,
            watcher_queue: 64,
            poll_period: Duration::from_millis(250),
            try_timeout: Duration::from_secs(2),
            barrier_timeout: Duration::from_secs(1),
            max_large: 2,
            list_scan: 20_000,
        }
    }
}
