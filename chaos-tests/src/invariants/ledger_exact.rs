//! I-9, the ledger is exact: a request makes one version at most, a version is made by one request and follows the one before it, a
//! session is deleted once.
//!
//! Source: S-1, S-2, S-3. It is told of every event that a replica applies ([`Ledger`]), in all lives of all nodes, so that a request that is
//! applied again after a crash must make the same version. That an acknowledged request made the version that it was told is the
//! oracle's to check (`sim::oracle`). Meters are not built yet: acts, not units, are counted.

use std::collections::BTreeMap;

use model::id::{RequestId, SessionId, Version};

/// What the groups applied, as their events told it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The request that made a version.
    pub made: BTreeMap<(SessionId, Version), RequestId>,
    /// The versions that a request made.
    pub by_request: BTreeMap<RequestId, (SessionId, Version)>,
    /// The version of a session's deletion.
    pub deleted: BTreeMap<SessionId, Version>,
    /// Two replicas, or two moments, that do not agree.
    pub conflict: Option<String>,
}

impl Ledger {
    /// A replica applied a request.
    pub fn applied(&mut self, session: SessionId, version: Version, request: RequestId) {
        let before = Version {
            revision: version.revision.saturating_sub(1),
            ..version
        };
        if version.revision > Version::FIRST.revision && !self.made.contains_key(&(session, before))
        {
            self.conflict.get_or_insert_with(|| {
                format!("version {version} of {session} was made, and {before} never was")
            });
        }
        let made = *self.made.entry((session, version)).or_insert(request);
        let by = *self.by_request.entry(request).or_insert((session, version));
        if made != request {
            self.conflict.get_or_insert_with(|| {
                format!("version {version} of {session} was made by two requests")
            });
        }
        if by != (session, version) {
            self.conflict.get_or_insert_with(|| {
                format!(
                    "a request was applied twice: it made {} of {} and {version} of {session}",
                    by.1, by.0
                )
            });
        }
    }

    /// A replica buried a session.
    pub fn buried(&mut self, session: SessionId, version: Version) {
        let first = *self.deleted.entry(session).or_insert(version);
        if first != version {
            self.conflict.get_or_insert_with(|| {
                format!("{session} was deleted at {first} and at {version}")
            });
        }
    }
}
