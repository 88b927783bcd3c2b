//! Work that blocks: beside the runtime's own threads, or where it is called, in a runtime of one thread.
//!
//! A runtime of one thread is a test's or a simulation's; there the order of everything is to come from the runtime alone.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, spawn_blocking};

/// Whether everything runs on this one thread.
pub(crate) fn is_alone() -> bool {
    Handle::try_current()
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
