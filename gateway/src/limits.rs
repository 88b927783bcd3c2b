//! Admission: what the gateway takes on, over all requests. Beyond it the answer is 503 with `Retry-After`, at once.
//!
//! Guarantees: requests, bytes of bodies (sent, decoded, and answers) and watches each have a bound; what is taken is
//! given back when it is dropped. It is not fair between tenants: that comes with them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;
use crate::error::{ApiError, Code};

/// Bytes are counted in pieces of this size.
const PIECE: usize = 1024;
/// When it is worth to try again: a slot comes free within a request's time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts what is in hand.
pub struct Admission {
    requests: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    most_pieces: usize,
}

/// Bytes in hand; given back when dropped.
#[derive(Debug, Default)]
pub struct Hold(Option<OwnedSemaphorePermit>);

impl Hold {
    /// How many bytes are held, rounded up.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |permit| permit.num_permits().saturating_mul(PIECE))
    }

    /// Both as one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        match (&mut self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, theirs) => self.0 = theirs,
            (Some(_), None) => {}
        }
        self
    }
}

impl Admission {
    /// With the configured bounds.
    #[must_use]
    pub fn new(limits: &LimitsConfig) -> Self {
        let most_pieces = (limits.body_bytes / PIECE).min(Semaphore::MAX_PERMITS);
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            requests: semaphore(limits.requests),
            pieces: semaphore(most_pieces),
            watches: semaphore(limits.watches),
            most_pieces,
        }
    }

    /// A place for one request.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub fn request(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        one(&self.requests)
    }

    /// A place for one watch.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub fn watch(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        one(&self.watches)
    }

    /// Makes a hold cover `bytes`.
    ///
    /// # Errors
    /// [`Code::Overloaded`]; what was held stays held.
    pub fn grow(&self, hold: &mut Hold, bytes: usize) -> Result<(), ApiError> {
        let pieces = missing(hold, bytes);
        if pieces > 0 {
            let permit = Arc::clone(&self.pieces).try_acquire_many_owned(pieces);
            let permit = permit.map_err(|_full| overloaded())?;
            *hold = std::mem::take(hold).and(Hold(Some(permit)));
        }
        Ok(())
    }

    /// Makes a hold cover `bytes`, as soon as there is room. For watches, which wait instead of failing; holders of
    /// bytes wait for nothing, so this ends.
    pub async fn grow_when_free(&self, hold: &mut Hold, bytes: usize) {
        let most = u32::try_from(self.most_pieces).unwrap_or(u32::MAX);
        let pieces = missing(hold, bytes).min(most);
        if pieces > 0 {
            let permit = Arc::clone(&self.pieces).acquire_many_owned(pieces).await;
            let permit = permit.expect("the semaphore is never closed");
            *hold = std::mem::take(hold).and(Hold(Some(permit)));
        }
    }

    /// Bytes in hand.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let free = self.pieces.available_permits();
        self.most_pieces.saturating_sub(free).saturating_mul(PIECE)
    }
}

fn missing(hold: &Hold, bytes: usize) -> u32 {
    let pieces = bytes.saturating_sub(hold.bytes()).div_ceil(PIECE);
    u32::try_from(pieces).unwrap_or(u32::MAX)
}

fn one(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(semaphore)
        .try_acquire_owned()
        .map_err(|_full| overloaded())
}

fn overloaded() -> ApiError {
    ApiError::retry(Code::Overloaded, RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let limits = LimitsConfig {
            body_bytes: 10 * PIECE,
            requests: 1,
            ..LimitsConfig::default()
        };
        let admission = Admission::new(&limits);
        let mut hold = Hold::default();
        admission.grow(&mut hold, 1).expect("free");
        admission.grow(&mut hold, PIECE).expect("covered already");
        assert_eq!(admission.bytes_held(), PIECE);
        admission.grow(&mut hold, 10 * PIECE).expect("just fits");
        let mut other = Hold::default();
        let full = admission.grow(&mut other, 1).expect_err("full");
        assert_eq!(full.code(), Code::Overloaded);
        drop(hold);
        assert_eq!(admission.bytes_held(), 0);
        let first = admission.request().expect("free");
        assert!(admission.request().is_err());
        drop(first);
        assert!(admission.request().is_ok());
    }
}
