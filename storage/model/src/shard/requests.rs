//! The requests that a session remembers.
//!
//! A session that is written often remembers many, and each write of it reads, adds one, and writes them all, on every replica. So they
//! stand in memory as they are stored: 24 bytes each, counted from what a run of them has in common. Reading them is a copy, looking for
//! one is a comparison of ids, and only the one that is found becomes a [`Remembered`].
//!
//! Guarantees: what was added comes back as it was, whatever its times and versions; the order of addition is kept; the bytes
//! depend on nothing but the additions and removals, so replicas agree.

use bincode::de::read::Reader as _;
use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};

use crate::id::{RequestId, Version};
use crate::limits::{MAX_REMEMBERED, MIN_REMEMBERED};
use crate::shard::record::Ending;
use crate::time::UnixMillis;

/// A request that changed the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub id: RequestId,
    /// Until then it must be remembered.
    pub not_after: UnixMillis,
    /// How it ended.
    pub ending: Ending,
}

/// Bytes of a request: its id, then the milliseconds of `not_after` since the run's, then 0 for a deletion or one more than the revisions
/// that its version is above the run's; numbers are big-endian.
const BYTES: usize = 16 + 4 + 4;

/// Requests that are counted from the same time and version.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
struct Run {
    since: UnixMillis,
    from: Version,
    packed: Vec<u8>,
}

impl<C> Decode<C> for Run {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let since = Decode::decode(decoder)?;
        let from = Decode::decode(decoder)?;
        // As a vector is decoded, with room for the one that is added next.
        let length = u64::decode(decoder)?;
        let length = usize::try_from(length).map_err(|_too_long| DecodeError::LimitExceeded)?;
        decoder.claim_container_read::<u8>(length)?;
        if !length.is_multiple_of(BYTES) {
            return Err(DecodeError::Other("a remembered request is cut"));
        }
        let mut packed = Vec::with_capacity(length.saturating_add(BYTES));
        packed.resize(length, 0);
        decoder.reader().read(&mut packed)?;
        Ok(Self {
            since,
            from,
            packed,
        })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Run {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

impl Run {
    fn starting_with(request: &Remembered) -> Self {
        let from = match request.ending {
            Ending::Written(version) => version,
            Ending::Deleted => Version {
                epoch: 0,
                revision: 0,
            },
        };
        Self {
            since: request.not_after,
            from,
            packed: Vec::new(),
        }
    }

    /// Its bytes in this run, if it can be counted from here.
    fn pack(&self, request: &Remembered) -> Option<[u8; BYTES]> {
        let after = request.not_after.0.checked_sub(self.since.0)?;
        let end = match request.ending {
            Ending::Deleted => 0,
            Ending::Written(version) if version.epoch == self.from.epoch => {
                let above = version.revision.checked_sub(self.from.revision)?;
                u32::try_from(above).ok()?.checked_add(1)?
            }
            Ending::Written(_) => return None,
        };
        let mut bytes = [0; BYTES];
        let (id, rest) = bytes.split_first_chunk_mut::<16>()?;
        let (time, last) = rest.split_first_chunk_mut::<4>()?;
        *id = request.id.0;
        *time = u32::try_from(after).ok()?.to_be_bytes();
        *last.first_chunk_mut()? = end.to_be_bytes();
        Some(bytes)
    }

    fn packed(&self) -> impl DoubleEndedIterator<Item = &[u8; BYTES]> {
        self.packed.as_chunks().0.iter()
    }

    fn not_after(&self, bytes: &[u8; BYTES]) -> UnixMillis {
        let [.., a, b, c, d, _, _, _, _] = *bytes;
        let after = u32::from_be_bytes([a, b, c, d]);
        UnixMillis(self.since.0.saturating_add(after.into()))
    }

    fn unpack(&self, bytes: &[u8; BYTES]) -> Remembered {
        let [id @ .., _, _, _, _, _, _, _, _] = *bytes;
        let [.., a, b, c, d] = *bytes;
        let ending = match u32::from_be_bytes([a, b, c, d]).checked_sub(1) {
            None => Ending::Deleted,
            Some(above) => Ending::Written(Version {
                epoch: self.from.epoch,
                revision: self.from.revision.saturating_add(above.into()),
            }),
        };
        Remembered {
            id: RequestId(id),
            not_after: self.not_after(bytes),
            ending,
        }
    }
}

/// The newest requests of a session, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Requests(Vec<Run>);

impl Requests {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.packed.len() / BYTES).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let runs = self.0.iter();
        runs.map(|run| size_of::<Run>().saturating_add(run.packed.len()))
            .sum()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Remembered> {
        let runs = self.0.iter();
        runs.flat_map(|run| run.packed().map(|bytes| run.unpack(bytes)))
    }

    /// The newest one.
    #[must_use]
    pub fn last(&self) -> Option<Remembered> {
        let run = self.0.last()?;
        run.packed().next_back().map(|bytes| run.unpack(bytes))
    }

    /// The one with this id.
    #[must_use]
    pub fn find(&self, id: RequestId) -> Option<Remembered> {
        self.0.iter().find_map(|run| {
            let mut packed = run.packed();
            let found = packed.find(|bytes| bytes.first_chunk() == Some(&id.0))?;
            Some(run.unpack(found))
        })
    }

    /// Whether as many must be remembered as may be.
    pub(super) fn is_full(&self, now: UnixMillis) -> bool {
        if self.len() < MAX_REMEMBERED {
            return false;
        }
        let runs = self.0.iter();
        let live = |run: &Run| {
            let packed = run.packed();
            packed.filter(|bytes| run.not_after(bytes) >= now).count()
        };
        runs.map(live).sum::<usize>() >= MAX_REMEMBERED
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Adds one, and forgets the oldest of those that may be forgotten. The caller has asked [`Self::is_full`].
    pub(super) fn remember(&mut self, request: &Remembered, now: UnixMillis) {
        self.push(request);
        let mut surplus = self.len().saturating_sub(MIN_REMEMBERED);
        for run in &mut self.0 {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(run.forget(surplus, now));
        }
        self.0.retain(|run| !run.packed.is_empty());
    }

    fn push(&mut self, request: &Remembered) {
        if let Some(run) = self.0.last_mut()
            && let Some(bytes) = run.pack(request)
        {
            run.packed.extend_from_slice(&bytes);
            return;
        }
        let mut run = Run::starting_with(request);
        let bytes = run.pack(request).expect("it is counted from itself");
        run.packed.extend_from_slice(&bytes);
        self.0.push(run);
    }
}

impl Run {
    /// Forgets at most so many of those whose time is over, the oldest first; says how many.
    fn forget(&mut self, most: usize, now: UnixMillis) -> usize {
        let over = |bytes: &&[u8; BYTES]| self.not_after(bytes) < now;
        // Nearly always those at the front, or none.
        let front = self.packed().take(most).take_while(over).count();
        let more = most.saturating_sub(front);
        let behind = self.packed().skip(front).filter(over).take(more).count();
        if behind == 0 {
            self.packed.drain(..front.saturating_mul(BYTES));
            return front;
        }
        let mut left = most;
        let kept = self.packed().filter(|bytes| {
            let forget = left > 0 && over(bytes);
            left = left.saturating_sub(usize::from(forget));
            !forget
        });
        self.packed = kept.flatten().copied().collect();
        most.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn written(epoch: u32, revision: u64) -> Ending {
        Ending::Written(Version { epoch, revision })
    }

    fn request(id: u8, not_after: u64, ending: Ending) -> Remembered {
        Remembered {
            id: RequestId([id; 16]),
            not_after: UnixMillis(not_after),
            ending,
        }
    }

    fn all(requests: &Requests) -> Vec<Remembered> {
        requests.iter().collect()
    }

    #[test]
    fn requests_have_these_bytes_and_come_back() {
        let list = [
            request(7, 258, written(3, 4)),
            request(8, 259, Ending::Deleted),
            request(9, 1258, written(3, 6)),
            request(10, 257, written(3, 7)),
        ];
        let mut requests = Requests::default();
        for one in &list {
            requests.push(one);
        }
        assert_eq!(all(&requests), list);
        let bytes = codec::encode(&requests);
        let (seven, eight) = ("07".repeat(16), "08".repeat(16));
        let (nine, ten) = ("09".repeat(16), "0a".repeat(16));
        let first = format!(
            "fb0201030448{seven}0000000000000001{eight}0000000100000000{nine}000003e800000003"
        );
        let second = format!("fb010103 0718{ten}0000000000000001").replace(' ', "");
        assert_eq!(hex::encode(&bytes), format!("0302{first}{second}"));
        assert_eq!(codec::decode::<Requests>(&bytes).unwrap(), requests);
    }

    #[test]
    fn what_can_not_be_counted_from_the_first_begins_a_run() {
        let far = u64::from(u32::MAX);
        let list = [
            request(1, 50, written(1, 1)),
            request(2, 50 + far, written(1, far)),
            request(3, 51 + far, written(1, far)),
            request(4, 60 + far, written(1, 2 * far + 1)),
            request(5, 60 + far, written(2, 1)),
            request(6, u64::MAX, written(2, u64::MAX)),
        ];
        let mut requests = Requests::default();
        for one in &list {
            requests.push(one);
        }
        assert_eq!(all(&requests), list);
        assert_eq!(requests.0.len(), 5);
        assert_eq!(requests.last(), list.last().copied());
        for one in list {
            assert_eq!(requests.find(one.id), Some(one));
        }
        assert_eq!(requests.find(RequestId([9; 16])), None);
    }

    fn ending() -> impl Strategy<Value = Ending> {
        let version = (0..3_u32, prop_oneof![0..50_u64, any::<u64>()]);
        prop_oneof![
            1 => Just(Ending::Deleted),
            9 => version.prop_map(|(epoch, revision)| written(epoch, revision)),
        ]
    }

    proptest! {
        /// The list that it stands for, kept in the plain way.
        #[test]
        fn it_is_the_list_that_it_stands_for(
            steps in prop::collection::vec((any::<u8>(), 0..200_u64, ending(), 0..4_u64), 0..120),
        ) {
            let (mut requests, mut list) = (Requests::default(), Vec::new());
            let mut now = 1000_u64;
            for (id, wait, ending, passed) in steps {
                now = now.saturating_add(passed);
                let one = request(id, now.saturating_add(wait), ending);
                requests.remember(&one, UnixMillis(now));
                list.push(one);
                let mut surplus = list.len().saturating_sub(MIN_REMEMBERED);
                list.retain(|old| {
                    let forget = surplus > 0 && old.not_after.0 < now;
                    surplus = surplus.saturating_sub(usize::from(forget));
                    !forget
                });
                prop_assert_eq!(all(&requests), list.clone());
                prop_assert_eq!(requests.len(), list.len());
                prop_assert_eq!(requests.last(), list.last().copied());
                let same = RequestId([id; 16]);
                let first = list.iter().find(|old| old.id == same).copied();
                prop_assert_eq!(requests.find(same), first);
            }
            let bytes = codec::encode(&requests);
            prop_assert_eq!(codec::decode::<Requests>(&bytes).unwrap(), requests);
        }
    }

    #[test]
    fn one_that_is_cut_is_damage() {
        let run = Run {
            since: UnixMillis(1),
            from: Version::FIRST,
            packed: vec![0; BYTES - 1],
        };
        assert!(codec::decode::<Requests>(&codec::encode(&Requests(vec![run]))).is_err());
    }

    #[test]
    fn it_is_full_of_those_that_must_be_remembered() {
        let mut requests = Requests::default();
        for revision in 0..MAX_REMEMBERED as u64 {
            assert!(!requests.is_full(UnixMillis(10)));
            requests.remember(&request(1, 10, written(1, revision)), UnixMillis(10));
        }
        assert!(requests.is_full(UnixMillis(10)));
        assert!(!requests.is_full(UnixMillis(11)));
        requests.remember(&request(2, 30, written(1, 9999)), UnixMillis(11));
        assert_eq!(requests.len(), MIN_REMEMBERED);
    }
}
