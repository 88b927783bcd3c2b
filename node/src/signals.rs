//! The signals that ask a process to end.
//!
//! SIGTERM and SIGINT: this node leaves, the others stay, so it hands its leaderships over first. SIGQUIT: the whole
//! cluster ends, so there is nobody to hand them to. A second signal does not hasten anything: every step is bounded.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why a node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This node alone.
    Leave,
    /// All nodes at once.
    Together,
}

/// Waits for signals.
#[derive(Debug)]
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    /// From now on, the signals do not end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.term.recv() => Stop::Leave,
            _ = self.int.recv() => Stop::Leave,
            _ = self.quit.recv() => Stop::Together,
        }
    }
}
