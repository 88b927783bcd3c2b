//! Why a host does not start, and why it cannot go on.

use std::io;

use model::id::{GroupId, NodeId};

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder belongs to another node.
    #[error("the folder belongs to node {found}, not to node {expected}")]
    OtherNode {
        /// Whose folder it is.
        found: NodeId,
        /// Who wants to start.
        expected: NodeId,
    },
    /// The node's small files cannot be used.
    #[error("the node's own files cannot be used")]
    Memory(#[source] io::Error),
    /// The log, or what the node remembers, is not what was written: it may have lost what it promised. It must be rebuilt
    /// under a new id, and neither votes nor acknowledges until then.
    #[error("what this node promised is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log cannot be opened.
    #[error("the log cannot be opened")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A group's state cannot be opened.
    #[error("the state of {group} cannot be opened")]
    State {
        /// Which.
        group: GroupId,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A group's consensus does not start.
    #[error("{group} does not start: {reason}")]
    Group {
        /// Which.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The transport does not start.
    #[error("the transport does not start")]
    Transport(#[from] crate::transport::StartError),
    /// A value of the configuration is wrong.
    #[error("the configuration is wrong: {0}")]
    Config(String),
}

/// Why a node must end its process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A peer refuses this node for good: it must be rebuilt with an empty disk under a new id.
    #[error("this node must be rebuilt under a new id: {reason}")]
    Rebuild {
        /// What the peer said.
        reason: String,
    },
    /// A group stopped: its log or state cannot be written or read.
    #[error("{group} stopped: {reason}")]
    Group {
        /// Which.
        group: GroupId,
        /// What openraft said.
        reason: String,
    },
    /// The log cannot be written.
    #[error("the log cannot be written: {reason}")]
    Log {
        /// What the operating system said.
        reason: String,
    },
    /// The node's own files cannot be written.
    #[error("the node's own files cannot be written: {reason}")]
    Memory {
        /// What the operating system said.
        reason: String,
    },
}
