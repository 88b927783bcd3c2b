//! Rewrites this node's state when its operator asks for it, so that nothing but what is current takes place on the disk.
//!
//! One replica after the other, until the host stops; requests go on, a little slower. Nothing of it is Raft's business: the
//! content stays what it is. A replica is left out when it is damaged (it is to be rebuilt anyhow), or when its disk has no room
//! for it twice beside the reserve, without which this node would lead nothing more.

use std::sync::Arc;

use crate::blocking::blocking;
use model::time::UnixMillis;
use parking_lot::Mutex;
use storage::state::TabletStore;
use tokio::sync::Notify;

use super::inner::Inner;
use super::{Host, space};

/// What compacting has come to since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Whether a pass is under way.
    pub running: bool,
    /// Passes ended.
    pub passes: u64,
    /// Bytes of all states that the last of these compacted, before it; snapshots and logs apart.
    pub before: u64,
    /// Bytes of the same after it.
    pub after: u64,
    /// What it left out, and why.
    pub skipped: Vec<(String, String)>,
    /// When it ended.
    pub last: Option<UnixMillis>,
}

impl Host {
    /// Rewrites all state now, so that nothing but what is current takes place on the disk.
    pub fn compact(&self) {
        self.inner.compact.ask();
    }

    /// What compacting has come to.
    #[must_use]
    pub fn compact_report(&self) -> CompactReport {
        self.inner.compact.report()
    }
}

/// The compaction of a node.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    asked: Notify,
    report: Mutex<CompactReport>,
}

impl Compactor {
    /// Asks for a pass now. One that is under way goes on, and another one follows it.
    fn ask(&self) {
        self.asked.notify_one();
    }

    fn report(&self) -> CompactReport {
        self.report.lock().clone()
    }
}

/// Compacts when it is asked to, for as long as the host runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.compact.asked.notified() => {}
        }
        inner.compact.report.lock().running = true;
        let ended = pass(&inner).await;
        if inner.stop.is_cancelled() {
            return;
        }
        tracing::info!(
            before = ended.before,
            after = ended.after,
            skipped = ended.skipped.len(),
            "a compaction has ended"
        );
        let mut report = inner.compact.report.lock();
        let passes = report.passes + 1;
        *report = CompactReport { passes, ..ended };
    }
}

async fn pass(inner: &Arc<Inner>) -> CompactReport {
    let mut report = CompactReport::default();
    for opened in inner.all_opened() {
        let (group, store) = (
            opened.replica.parts.group,
            opened.replica.parts.store.clone(),
        );
        if inner.stop.is_cancelled() {
            break;
        }
        match one(inner, store).await {
            Ok((before, after)) => {
                report.before += before;
                report.after += after;
            }
            Err(why) => {
                tracing::warn!(%group, why, "the state is not compacted");
                report.skipped.push((group.to_string(), why));
            }
        }
    }
    report.last = Some(inner.clocks.wall());
    report
}

/// Bytes before and after; or why it was not done.
async fn one(inner: &Arc<Inner>, store: TabletStore) -> Result<(u64, u64), String> {
    let (stop, folder) = (inner.stop.clone(), inner.folder.clone());
    let work = blocking(move || {
        let bytes = || store.current().stats().disk_bytes;
        let tablet = store.current();
        if tablet.damaged_reads() > 0 {
            return Err("it is damaged, and is to be rebuilt".to_owned());
        }
        tablet.flush().map_err(|error| error.to_string())?;
        drop(tablet);
        let before = bytes();
        if let Some(spare) = space::spare(&folder).filter(|spare| *spare < before) {
            return Err(format!(
                "it needs {before} bytes while it lasts, and {spare} are free beside the reserve"
            ));
        }
        match store.compact(&|| !stop.is_cancelled()) {
            Ok(true) => Ok((before, bytes())),
            Ok(false) => Err("the node stops".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    work.await.map_err(|error| error.to_string())?
}
