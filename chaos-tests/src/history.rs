//! What was asked, when, and how it ended.
//!
//! One record for each operation, written when it ends; an operation that a client tries again under the same
//! `Idempotency-Key`, through whatever gateway, is one operation. Times are microseconds since the history began, on one
//! monotonic clock. An operation without an answer is *unknown*: it may take effect at any later time.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use model::id::Version;
use model::time::{Clock as _, UnixMillis};
use node::clock::SystemClock;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

/// How an operation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Acknowledged; of a read, also an answer that the session is not there, has expired, or has another version.
    Ok,
    /// Refused: it had no effect, and says nothing of the session.
    Fail,
    /// No answer, or one that says that the outcome is unknown.
    #[default]
    Unknown,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A new session.
    Create,
    /// `PUT`: replaces the body.
    #[default]
    Put,
    /// `PUT` with `If-Match`.
    PutIfMatch,
    /// `PATCH`: replaces the tags.
    Patch,
    /// `PATCH` of `timestamps.expires`.
    Renew,
    /// The end of a session.
    Delete,
    /// A linearizable read.
    Read,
    /// A read of the nearest replica.
    ReadLocal,
}

impl Action {
    /// Whether it may change something.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::ReadLocal)
    }
}

/// What an answer shows of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// It was carried out, or the session was read.
    Done,
    /// There is no such session.
    Absent,
    /// Its time is over.
    Expired,
    /// It has another version than `If-Match` names: the one in `version`.
    Mismatch,
}

/// The two fields of a session that the load writes, each by the unique name of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Description, cookies and local storage together: what `PUT` replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The tag: what `PATCH` replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// One operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Which of its operations.
    pub number: u64,
    /// What was asked for.
    pub action: Action,
    /// The session; empty for a creation whose answer never came.
    pub session: String,
    /// The fields that a write replaces.
    pub wrote: Content,
    /// The fields that a read showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Content>,
    /// When the session is to expire, for a write that says so (microseconds of the history); for an answer "expired",
    /// when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The version that `If-Match` names.
    #[serde(default, with = "text", skip_serializing_if = "Option::is_none")]
    pub if_match: Option<Version>,
    /// For a local read: the version that the client has seen, as its token says.
    #[serde(default, with = "text", skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Version>,
    /// For a local read: how old the answer may be, as it says (microseconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness: Option<u64>,
    /// When it was due, in microseconds (the load is open-loop: latency counts from here).
    pub due: u64,
    /// When its first try was sent.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// How it ended.
    pub outcome: End,
    /// What its answer shows, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
    /// The HTTP status of the last answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The `code` of an error answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The version that the answer names.
    #[serde(default, with = "text", skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The gateway of the last try.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What is wrong with the answer itself: bytes that nobody wrote, a checksum that does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl Operation {
    /// Whether it is a write that was acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.action.writes() && self.outcome == End::Ok && self.shown == Some(Shown::Done)
    }

    /// Time from due to end, in microseconds.
    #[must_use]
    pub const fn latency(&self) -> u64 {
        self.end.saturating_sub(self.due)
    }
}

/// A growing history.
#[derive(Debug)]
pub struct History {
    start: Instant,
    /// The wall clock at `start`, in microseconds since 1970.
    wall: u64,
    operations: Mutex<Vec<Operation>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            wall: wall(),
            operations: Mutex::new(Vec::new()),
        }
    }
}

/// The wall clock, in microseconds since 1970.
fn wall() -> u64 {
    SystemClock.now().0.saturating_mul(1000)
}

impl History {
    /// Microseconds since the history began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// An instant, in microseconds since the history began.
    #[must_use]
    pub fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// A point in time as documents have it, in microseconds since the history began (0 for all before).
    #[must_use]
    pub fn at_wall(&self, text: &str) -> Option<u64> {
        let at = model::document::parse_date(text)?;
        Some((at.0 * 1000).saturating_sub(self.wall))
    }

    /// The text of a point in time by the wall clock, for [`Self::at_wall`].
    #[must_use]
    pub fn wall_in(&self, ahead: std::time::Duration) -> String {
        let millis = (wall() / 1000).saturating_add(u64::try_from(ahead.as_millis()).unwrap_or(0));
        model::document::format_date(UnixMillis(millis))
    }

    /// Adds an operation that has ended.
    pub fn record(&self, operation: Operation) {
        self.operations.lock().push(operation);
    }

    /// How many operations have ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.lock().len()
    }

    /// Whether none has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many operations have ended as acknowledged writes.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let operations = self.operations.lock();
        operations.iter().filter(|it| it.is_acknowledged()).count()
    }

    /// All operations so far, in order of their end.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut all = self.operations.lock().clone();
        all.sort_by_key(|operation| operation.end);
        all
    }

    /// Writes the history as JSON Lines.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> std::io::Result<PathBuf> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for operation in self.operations() {
            serde_json::to_writer(&mut file, &operation)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Ok(path.to_owned())
    }
}

/// Reads what [`History::save`] has written.
///
/// # Errors
/// When the file cannot be read or is not a history.
pub fn load(path: &Path) -> std::io::Result<Vec<Operation>> {
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    file.lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

/// Versions as the text that clients see.
mod text {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Version};

    pub(super) fn serialize<S: Serializer>(
        version: &Option<Version>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        version.map(|version| version.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Version>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_history_comes_back() {
        let history = History::default();
        let operation = Operation {
            session: "s".to_owned(),
            version: Some(Version {
                epoch: 1,
                revision: 7,
            }),
            wrote: Content {
                body: Some("0-1".to_owned()),
                tag: None,
            },
            outcome: End::Ok,
            shown: Some(Shown::Done),
            ..Operation::default()
        };
        history.record(operation.clone());
        let dir = tempfile::tempdir().unwrap();
        let path = history.save(&dir.path().join("history.jsonl")).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{:?}", vec![operation]));
        assert!(loaded[0].is_acknowledged());
    }
}
