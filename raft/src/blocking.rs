//! Work that blocks: beside the runtime's own threads, or where it is called, in a runtime of one thread.
//!
//! A runtime of one thread is a test's or a simulation's, where the order of everything is to come from the runtime alone, unless the
//! process [says](beside) that it is a node's with one worker: what blocks must never hold that up.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, spawn_blocking};

static BESIDE: AtomicBool = AtomicBool::new(false);

/// From now on what blocks has threads of its own in this process, also in a runtime of one thread. A node's process says so before it
/// starts anything.
pub fn beside() {
    BESIDE.store(true, Ordering::Relaxed);
}

/// Whether everything runs on this one thread.
pub(crate) fn is_alone() -> bool {
    !BESIDE.load(Ordering::Relaxed)
        && Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Does work that may block.
///
/// # Errors
/// When it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_alone() {
        return Ok(work());
    }
    spawn_blocking(work).await
}
