//! From a session to its shard: a table made with the region, in contiguous ranges of slots.

use crate::id::{GroupId, RegionId, SessionId, ShardId, Slot};

/// The shard that holds a slot, in a region of `shards` shards (at least one).
#[must_use]
pub fn shard_of(slot: Slot, shards: u16) -> ShardId {
    let index = u32::from(slot.get()).saturating_mul(u32::from(shards.max(1))) >> Slot::BITS;
    ShardId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// The group of a session in the region that it was born in.
#[must_use]
pub fn group_of(session: SessionId, shards: u16) -> GroupId {
    GroupId::Shard(session.birth(), shard_of(session.slot(), shards))
}

/// All shard groups of a region, in order.
pub fn groups(region: RegionId, shards: u16) -> impl Iterator<Item = GroupId> {
    (0..shards).map(move |shard| GroupId::Shard(region, ShardId(shard)))
}

/// The slot in which a keyed create is born: a function of the key's hash, so that a retry through any gateway
/// meets the first try.
#[must_use]
pub const fn slot_of_key(hash: &[u8; 32]) -> Slot {
    let [a, b, ..] = *hash;
    Slot::wrapping(u16::from_be_bytes([a, b]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_contiguous_and_every_shard_has_slots(shards in 1..=64_u16) {
            let table: Vec<u16> = (0..Slot::COUNT).map(|slot| shard_of(Slot::wrapping(slot), shards).0).collect();
            prop_assert!(table.is_sorted());
            prop_assert_eq!(table.first(), Some(&0));
            prop_assert_eq!(table.last(), Some(&(shards.saturating_sub(1))));
            let mut distinct = table;
            distinct.dedup();
            prop_assert_eq!(distinct.len(), usize::from(shards));
        }
    }
}
