//! Chance that needs no secrecy: when timers end, and whom to ask among equals.
//!
//! It comes from the system, or in a simulation from a seed, for all that runs on the thread ([`seeded`]): then the same seed
//! and the same events give the same run. Keys, nonces and ids never come from here.

use std::convert::Infallible;
#[cfg(any(test, feature = "testing"))]
use std::{cell::RefCell, marker::PhantomData};

use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use rand::RngCore;
#[cfg(any(test, feature = "testing"))]
use rand::{SeedableRng as _, rngs::StdRng};

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// While it lives, chance on this thread comes from the seed.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct Seeded {
    before: Option<StdRng>,
    /// It belongs to its thread.
    here: PhantomData<*const ()>,
}

/// Makes chance on this thread repeat. For a simulation, all of which runs on one thread.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn seeded(seed: u64) -> Seeded {
    let before = SEEDED.replace(Some(StdRng::seed_from_u64(seed)));
    Seeded {
        before,
        here: PhantomData,
    }
}

#[cfg(any(test, feature = "testing"))]
impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.set(self.before.take());
    }
}

/// Draws from chance.
pub(crate) fn draw<T>(with: impl FnOnce(&mut dyn RngCore) -> T) -> T {
    #[cfg(any(test, feature = "testing"))]
    if let Some(mut seeded) = SEEDED.take() {
        let drawn = with(&mut seeded);
        SEEDED.set(Some(seeded));
        return drawn;
    }
    with(&mut rand::rng())
}

/// Chance, for openraft.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance;

impl rand_core::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(draw(|chance| chance.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(draw(|chance| chance.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        draw(|chance| chance.fill_bytes(bytes));
        Ok(())
    }
}

/// Tokio, as openraft sees it; its chance is ours.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: std::time::Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: std::time::Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Chance {
        Chance
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> [u64; 4] {
        std::array::from_fn(|_| draw(|chance| chance.next_u64()))
    }

    #[test]
    fn a_seed_repeats_and_ends_with_its_guard() {
        let outer = seeded(1);
        let first = four();
        {
            let _inner = seeded(1);
            assert_eq!(four(), first);
        }
        assert_ne!(four(), first, "the outer seed goes on");
        drop(outer);
        assert_ne!(four(), four());
    }
}
