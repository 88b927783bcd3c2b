//! What a transport is started with, and its bounds.

use std::net::SocketAddr;
use std::time::Duration;

use super::answers::AnswerLimits;
use super::ca::Identity;
use super::queue::LaneLimits;
use super::tls::TlsError;

/// How to start a transport.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, UDP. Port 0 takes any.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: Identity,
    /// Timers.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// A configuration with the usual timers and bounds.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: Identity) -> Self {
        Self {
            listen,
            identity,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// Timers of connections. Raft's heartbeats find a dead peer first; these clean up after it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest that a dial may take, greeting included.
    pub dial: Duration,
    /// After how much silence a main connection says something. Less than a third of `idle`.
    pub keep_alive: Duration,
    /// After how much silence a main connection is given up.
    pub idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(1),
            keep_alive: Duration::from_millis(300),
            idle: Duration::from_millis(1200),
        }
    }
}

/// Bounds: for each peer, except where it says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls of the control lane.
    pub control: LaneLimits,
    /// Calls of the data lane.
    pub data: LaneLimits,
    /// Large calls; their bytes count until the reply.
    pub bulk: LaneLimits,
    /// Calls of one lane of an accepted connection that are not answered.
    pub answers: AnswerLimits,
    /// Bytes of large calls that arrive or are being handled, over all peers.
    pub bulk_arriving_bytes: usize,
    /// Accepted connections, over all peers.
    pub connections: usize,
    /// Processes that ask to join at the same time.
    pub joiners: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control: LaneLimits {
                calls: 4096,
                waiting_bytes: 4 << 20,
            },
            data: LaneLimits {
                calls: 16_384,
                waiting_bytes: 32 << 20,
            },
            bulk: LaneLimits {
                calls: 48,
                waiting_bytes: 256 << 20,
            },
            answers: AnswerLimits {
                calls: 8192,
                waiting_bytes: 32 << 20,
            },
            bulk_arriving_bytes: 256 << 20,
            connections: 1024,
            joiners: 8,
        }
    }
}

/// Why a transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("the node's UDP address cannot be bound")]
    Bind(#[source] std::io::Error),
    /// The certificates cannot be used.
    #[error("the node's identity cannot be used")]
    Identity(#[source] TlsError),
}
