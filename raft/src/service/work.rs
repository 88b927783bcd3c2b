//! Where work on documents is done: small work where the request is, because handing it over would cost more than the
//! work; large work on a few threads of its own.
//!
//! Those threads run at a low priority (nice 10), so that a document of 50 MiB takes what is left of the processor and no
//! small request, heartbeat or sync waits for it. At most as much large work is taken as there are threads; the rest waits
//! with its caller and is gone with it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use rustix::process::setpriority_process;
use tokio::sync::{Semaphore, oneshot};

use crate::blocking::is_alone;
use crate::service::error::{TryError, Why};

/// Work on more than this many bytes is large.
const LARGE_BYTES: usize = 256 * 1024;
/// Nicer than everything else in the process.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads for large work. They end when this is dropped.
pub(super) struct Work {
    free: Semaphore,
    jobs: mpsc::Sender<Job>,
}

impl Work {
    /// # Panics
    /// When no thread can be started.
    pub(super) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name("large-work".to_owned())
                .spawn(move || work(&queue))
                .expect("a thread can be started");
        }
        Self {
            free: Semaphore::new(threads),
            jobs,
        }
    }

    /// Does work on about this many bytes.
    ///
    /// # Errors
    /// When the service is stopping.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TryError> {
        if bytes <= LARGE_BYTES || is_alone() {
            return Ok(job());
        }
        let _permit = self
            .free
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let (sender, done) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            // A caller that is gone needs no result.
            drop(sender.send(catch_unwind(AssertUnwindSafe(job))));
        });
        let stopping = TryError::NotReady(Why::Starting);
        self.jobs.send(job).map_err(|_ended| stopping.clone())?;
        match done.await.map_err(|_ended| stopping)? {
            Ok(done) => Ok(done),
            Err(panic) => resume_unwind(panic),
        }
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    // On Linux this is about the calling thread only.
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::warn!(%error, "large work runs at the common priority");
    }
    loop {
        // One thread waits for the next job, the others for the lock; it is not held while a job runs.
        let job = queue.lock().recv();
        let Ok(job) = job else { return };
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = LARGE_BYTES + 1;

    fn here() -> (thread::ThreadId, i32) {
        let nice = rustix::process::getpriority_process(None).unwrap();
        (thread::current().id(), nice)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn small_work_stays_and_large_work_goes_to_a_nice_thread() {
        let work = Work::new(2);
        let (me, nice) = here();
        assert_eq!(work.run(LARGE_BYTES, here).await.unwrap(), (me, nice));
        let (other, low) = work.run(LARGE, here).await.unwrap();
        assert_ne!(other, me);
        assert_eq!(low, NICE.max(nice));
        assert_eq!(
            here(),
            (me, nice),
            "only the threads of large work are nice"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_panic_reaches_its_caller_and_the_threads_go_on() {
        let work = Arc::new(Work::new(1));
        let one = Arc::clone(&work);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { one.run(LARGE, || panic!("as told")).await });
        let result: Result<Result<(), TryError>, _> = tasks.join_next().await.unwrap();
        assert!(result.unwrap_err().is_panic());
        assert_eq!(work.run(LARGE, || 7).await.unwrap(), 7);
    }
}
