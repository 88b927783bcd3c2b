//! Many who ask share one round: while one is under way, all that ask wait for the next.
//!
//! So an answer is never older than its question, and there is at most one round at a time, whoever gives up.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Most questions that wait for a round.
const MAX_WAITING: usize = 16_384;

struct State<K, V> {
    running: bool,
    waiting: Vec<(K, oneshot::Sender<V>)>,
}

/// One series of rounds. Clones share it.
pub(crate) struct Coalesce<K, V>(Arc<Mutex<State<K, V>>>);

impl<K, V> Clone for Coalesce<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Coalesce<K, V> {
    fn default() -> Self {
        let waiting = Vec::new();
        let running = false;
        Self(Arc::new(Mutex::new(State { running, waiting })))
    }
}

impl<K: Send + 'static, V: Send + 'static> Coalesce<K, V> {
    /// The answer of the first round that begins after this call. `None` when too many wait, or the round gave none.
    ///
    /// `round` gets the questions and returns as many answers, in the same order.
    pub(crate) async fn ask<F>(
        &self,
        tasks: &TaskTracker,
        key: K,
        round: impl Fn(Vec<K>) -> F + Send + 'static,
    ) -> Option<V>
    where
        F: Future<Output = Vec<V>> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let start = {
            let mut state = self.0.lock();
            if state.waiting.len() >= MAX_WAITING {
                return None;
            }
            state.waiting.push((key, sender));
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tasks.spawn(self.clone().rounds(round));
        }
        answer.await.ok()
    }

    async fn rounds<F>(self, round: impl Fn(Vec<K>) -> F + Send + 'static)
    where
        F: Future<Output = Vec<V>> + Send + 'static,
    {
        loop {
            let waiting = {
                let mut state = self.0.lock();
                // Who gave up needs no answer.
                state.waiting.retain(|(_, sender)| !sender.is_closed());
                if state.waiting.is_empty() {
                    state.running = false;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let (keys, senders): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            for (sender, answer) in senders.into_iter().zip(round(keys).await) {
                drop(sender.send(answer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn those_who_come_during_a_round_share_the_next() {
        let tasks = TaskTracker::new();
        let series: Coalesce<usize, (usize, usize)> = Coalesce::default();
        let rounds = Arc::new(AtomicUsize::new(0));
        let ask = |key: usize| {
            let (series, tasks, rounds) = (series.clone(), tasks.clone(), Arc::clone(&rounds));
            async move {
                let round = move |keys: Vec<usize>| {
                    let number = rounds.fetch_add(1, Ordering::SeqCst);
                    async move {
                        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                        keys.into_iter().map(|key| (key, number)).collect()
                    }
                };
                series.ask(&tasks, key, round).await
            }
        };
        let later = async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            tokio::join!(ask(2), ask(3))
        };
        let (first, (second, third)) = tokio::join!(ask(1), later);
        assert_eq!(first, Some((1, 0)));
        assert_eq!((second, third), (Some((2, 1)), Some((3, 1))));
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}
