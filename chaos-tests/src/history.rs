//! What was asked, when, and how it ended.
//!
//! One record for each operation, written when it ends. Times are microseconds since the history began, on one
//! monotonic clock. An operation without an answer is *unknown*: it may take effect at any later time.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Acknowledged.
    Ok,
    /// Refused: it had no effect.
    Fail,
    /// No answer, or one that says that the outcome is unknown.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Which of its operations.
    pub number: u64,
    /// The session written.
    pub session: String,
    /// The value written, unique in the history.
    pub value: String,
    /// When it was due, in microseconds (the load is open-loop: latency counts from here).
    pub due: u64,
    /// When it ended, in microseconds.
    pub end: u64,
    /// How it ended.
    pub outcome: End,
    /// The HTTP status of the last answer, if there was one.
    pub status: Option<u16>,
    /// The `code` of an error answer.
    pub code: Option<String>,
    /// The revision that the acknowledgement named.
    pub revision: Option<u64>,
}

/// A growing history.
#[derive(Debug)]
pub struct History {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            operations: Mutex::new(Vec::new()),
        }
    }
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

    /// Adds an operation that has ended.
    pub fn record(&self, operation: Operation) {
        self.operations.lock().push(operation);
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
