//! The node's own tasks: each has a name, an owner, and an end.
//!
//! A task ends when it is told to ([`Tasks::end`]); one that ends before, or panics, ends the node, because nothing
//! here is dispensable. The other crates own theirs.
//!
//! | task | what | on cancel |
//! |---|---|---|
//! | `upkeep` | moves metrics' samples out of buffers | ends at once |

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{Registry, UPKEEP};

/// The tasks, owned: dropping this ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<&'static str>);

impl Tasks {
    /// Starts a task that only ends when it is told to.
    pub(crate) fn start(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    /// The name of a task that ended by itself. Cancel-safe. Never returns while all run.
    pub(crate) async fn ended(&mut self) -> &'static str {
        match self.0.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_panic)) => "one that panicked",
            None => std::future::pending().await,
        }
    }

    /// Ends all.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// The task `upkeep`.
pub(crate) async fn upkeep(registry: Registry) {
    const { assert!(UPKEEP.as_millis() >= Duration::from_secs(1).as_millis()) };
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        let mut tasks = Tasks::default();
        tasks.start("forever", std::future::pending());
        tasks.start("short", async {});
        assert_eq!(tasks.ended().await, "short");
        tasks.end().await;
    }
}
