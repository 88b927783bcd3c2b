//! How one try ends without an answer, and what that permits the one who tries.
//!
//! [`TryError`] also travels between nodes. Only `client` turns it into a [`Failure`], because only there it is known
//! whether an earlier try of the same request may have been applied.

use std::time::Duration;

use bincode::{Decode, Encode};
use model::id::NodeId;
use model::service::{Failure, Refused};
use model::state::StateError;

use crate::service::content::ContentError;
use crate::shard::{BarrierError, ProposeError};

/// When it is worth to try again after a bound of this node was reached.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One try's end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub(super) enum TryError {
    /// A final "no": nothing was changed.
    #[error(transparent)]
    Refused(Refused),
    /// Log time has passed the request's `not_after`: this try changed nothing; an earlier one may have.
    #[error("the request's time is over")]
    Late,
    /// The node asked does not lead the group: nothing was changed.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Nothing was changed; another try, or another node, may do better.
    #[error("not ready: {0}")]
    NotReady(Why),
    /// A bound is reached: nothing was changed, and trying again at once makes it worse.
    #[error("too busy")]
    Busy,
    /// The disk is full: nothing was changed.
    #[error("disk full")]
    DiskFull,
    /// The write may or may not be applied.
    #[error("outcome unknown")]
    Unknown,
    /// What this replica has stored is damaged: nothing was changed.
    #[error("stored data is damaged")]
    Damaged,
}

/// Why a node is not ready; a fixed set, so that nothing secret can be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub(super) enum Why {
    /// The service was not attached yet, or is closed.
    #[error("the node is starting or stopping")]
    Starting,
    /// No quorum or no leader answered.
    #[error("no quorum answered in time")]
    NoQuorum,
    /// No node with a replica could be reached.
    #[error("no replica could be reached")]
    Unreachable,
    /// The time given was over.
    #[error("time was over before anything was done")]
    TimeOver,
    /// A replica that is fresh enough was not found.
    #[error("no replica is fresh enough")]
    Stale,
    /// Whether the session's time is over depends on which of the nodes' clocks is right.
    #[error("the nodes' clocks differ, and the session may have expired")]
    Clocks,
    /// The other node speaks another version.
    #[error("the other node did not understand")]
    NotUnderstood,
}

impl TryError {
    /// Whether another try under the same request id may end better.
    pub(super) const fn may_retry(&self) -> bool {
        match self {
            Self::NotLeader(_) | Self::NotReady(_) | Self::Unknown => true,
            Self::Refused(_) | Self::Late | Self::Busy | Self::DiskFull | Self::Damaged => false,
        }
    }

    /// What the client is told. `uncertain`: an earlier try may have been applied.
    pub(super) fn into_failure(self, uncertain: bool) -> Failure {
        match self {
            Self::Refused(refused) if !uncertain || is_lasting(&refused) => {
                Failure::Refused(refused)
            }
            Self::Refused(_) | Self::Unknown => Failure::Unknown,
            // Nothing below says what became of an earlier try.
            _ if uncertain => Failure::Unknown,
            Self::DiskFull => Failure::DiskFull,
            Self::Damaged => Failure::Damaged,
            Self::Late | Self::NotLeader(_) | Self::NotReady(_) | Self::Busy => {
                Failure::Unavailable {
                    reason: self.to_string(),
                    retry_after: RETRY_AFTER,
                }
            }
        }
    }
}

/// Whether a refusal also holds for an earlier try of the same request that may still be under way: what it says of the
/// session, its versions or the key never becomes otherwise.
const fn is_lasting(refused: &Refused) -> bool {
    match refused {
        Refused::NotFound
        | Refused::VersionMismatch { .. }
        | Refused::BadDocument { .. }
        | Refused::KeyReused
        | Refused::BranchLost => true,
        Refused::Expired { .. } | Refused::TooLarge | Refused::TooManyRequests { .. } => false,
    }
}

impl From<Refused> for TryError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<ProposeError> for TryError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader(leader),
            ProposeError::Busy => Self::Busy,
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::Unknown => Self::Unknown,
        }
    }
}

impl From<BarrierError> for TryError {
    fn from(_: BarrierError) -> Self {
        Self::NotReady(Why::NoQuorum)
    }
}

impl From<StateError> for TryError {
    fn from(error: StateError) -> Self {
        ContentError::from(error).into()
    }
}

impl From<ContentError> for TryError {
    fn from(error: ContentError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "stored content cannot be read"
        );
        Self::Damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_unknown_try_only_a_lasting_refusal_is_an_answer() {
        for error in [
            TryError::Late,
            TryError::Busy,
            TryError::DiskFull,
            TryError::Damaged,
            TryError::NotLeader(None),
            TryError::NotReady(Why::NoQuorum),
            TryError::Unknown,
            TryError::Refused(Refused::TooLarge),
        ] {
            assert_eq!(error.into_failure(true), Failure::Unknown);
        }
        let refused = TryError::Refused(Refused::NotFound);
        assert_eq!(
            refused.into_failure(true),
            Failure::Refused(Refused::NotFound)
        );
        assert!(matches!(
            TryError::Late.into_failure(false),
            Failure::Unavailable { .. }
        ));
    }
}
