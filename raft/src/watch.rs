//! A value that is watched: one side sets it, the other waits until it changes.
//!
//! As `tokio::sync::watch`, with one difference: those who wait are woken in the order in which they began to. Tokio's wakes them in an
//! order that it draws, from a generator that nobody can seed; then no run of a simulation repeats.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use openraft::async_runtime::watch as theirs;
use openraft::{OptionalSend, base::OptionalSync};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// All senders are gone, and the value will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody sets this value any more")]
pub struct Closed;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes; changed while the value is locked.
    changes: AtomicU64,
    senders: AtomicUsize,
    changed: Notify,
}

impl<T> Shared<T> {
    async fn changed(&self, seen: &mut u64) -> Result<(), Closed> {
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let changes = self.changes.load(Ordering::Acquire);
            if changes != *seen {
                *seen = changes;
                return Ok(());
            }
            if self.senders.load(Ordering::Acquire) == 0 {
                // It may have been set for the last time since the look above.
                let last = self.changes.load(Ordering::Acquire);
                let missed = last != *seen;
                *seen = last;
                return if missed { Ok(()) } else { Err(Closed) };
            }
            notified.await;
        }
    }
}

/// The value, locked: hold it for a moment, and never while waiting.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Sets the value. Clones set the same one.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Sender<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value),
            changes: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            changed: Notify::new(),
        }))
    }

    /// Watches from now on: the value as it is counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.changes.load(Ordering::Acquire);
        let shared = Arc::clone(&self.0);
        Receiver { shared, seen }
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.value.read())
    }

    /// Sets the value, and returns the old one.
    pub fn send_replace(&self, value: T) -> T {
        let mut old = value;
        self.send_if_modified(|current| {
            std::mem::swap(current, &mut old);
            true
        });
        old
    }

    /// Changes the value; those who wait are told if `modify` says that it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut value = self.0.value.write();
            let modified = modify(&mut value);
            if modified {
                self.0.changes.fetch_add(1, Ordering::AcqRel);
            }
            modified
        };
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }
}

/// Watches a value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Receiver<T> {
    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.changes.load(Ordering::Acquire);
        Ref(value)
    }

    /// The value as it is counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.changes.load(Ordering::Acquire);
    }

    /// Waits for a change that was not seen, and has seen it then. Safe to cancel.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.shared.changed(&mut self.seen).await
    }

    /// Waits until a condition holds of the value. Safe to cancel.
    ///
    /// # Errors
    /// When it does not, and the value will not change any more.
    pub async fn wait_for(
        &mut self,
        mut holds: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Closed> {
        let Self { shared, seen } = self;
        let shared: &Shared<T> = shared;
        loop {
            {
                let value = shared.value.read();
                *seen = shared.changes.load(Ordering::Acquire);
                if holds(&value) {
                    return Ok(Ref(value));
                }
            }
            shared.changed(seen).await?;
        }
    }
}

/// The same, for openraft.
pub(crate) struct Watched;

impl theirs::Watch for Watched {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(init);
        let receiver = sender.subscribe();
        (sender, receiver)
    }
}

impl<T: OptionalSend + OptionalSync> theirs::WatchSender<Watched, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), theirs::SendError<T>> {
        // As tokio's: what nobody can see is not set. The one sender that is here holds one reference.
        let watched = Arc::strong_count(&self.0) > self.0.senders.load(Ordering::Acquire);
        if !watched {
            return Err(theirs::SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        Self::send_if_modified(self, modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Self::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> theirs::WatchReceiver<Watched, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), theirs::RecvError> {
        Self::changed(self)
            .await
            .map_err(|_closed| theirs::RecvError(()))
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        Self::borrow_and_update(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let value = Sender::new(0);
        let woken: Arc<Mutex<Vec<u32>>> = Arc::default();
        let mut tasks = JoinSet::new();
        for number in 0..50 {
            let (mut receiver, woken) = (value.subscribe(), Arc::clone(&woken));
            tasks.spawn(async move {
                receiver.changed().await.unwrap();
                woken.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        value.send_replace(1);
        while tasks.join_next().await.is_some() {}
        assert_eq!(*woken.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_last_one_before_the_end_is_not_missed() {
        let value = Sender::new(0);
        let mut receiver = value.subscribe();
        assert_eq!(value.send_replace(1), 0);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), 1);
        value.send_if_modified(|value| {
            *value = 2;
            false
        });
        let other = value.clone();
        drop(value);
        other.send_replace(3);
        drop(other);
        assert_eq!(*receiver.wait_for(|value| *value == 3).await.unwrap(), 3);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert!(receiver.wait_for(|value| *value == 4).await.is_err());
    }
}
