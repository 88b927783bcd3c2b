//! The names of things: tenants, regions, nodes, groups, sessions, requests.
//!
//! Every identifier is a type of its own, so that two of them cannot be exchanged by mistake. Text forms
//! round-trip. A session's id carries its birth region and slot (`design.md`, section 5), so that any node
//! finds its shard without a lookup. Nothing here makes randomness: callers hand it in.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// A customer of the store. Records of two tenants never share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The one tenant of a cluster that has no tenants of its own yet.
    pub const DEFAULT: Self = Self(1);
}

/// A geographic place, 0 to 1,023. The number of a removed region is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RegionId(u16);

impl RegionId {
    /// The largest region number: ten bits of a session id.
    pub const MAX: u16 = (1 << 10) - 1;

    /// A region, or `None` above [`Self::MAX`].
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number, 0 to 1,023.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// One of the 16,384 fixed parts of a region's session space. A table maps slots to shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Slot(u16);

impl Slot {
    /// How many bits of a session id name the slot.
    pub const BITS: u32 = 14;

    /// How many slots a region has.
    pub const COUNT: u16 = 1 << Self::BITS;

    /// The slot that a number falls into (the low fourteen bits).
    #[must_use]
    pub const fn wrapping(number: u16) -> Self {
        Self(number & (Self::COUNT - 1))
    }

    /// The number, 0 to 16,383.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A fixed part of a region's session space, replicated by one Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ShardId(pub u16);

/// One running node process. Never used twice, also not after its disk was wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum GroupId {
    /// Regions, nodes, shard map, tenants.
    Meta,
    /// The sessions of one shard of one region.
    Shard(RegionId, ShardId),
}

impl GroupId {
    const SHARD_BIT: u32 = 1 << 31;

    /// The number used in logs, frames and folder names. Zero is the meta group.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Meta => 0,
            Self::Shard(region, shard) => {
                Self::SHARD_BIT | ((region.0 as u32) << 16) | shard.0 as u32
            }
        }
    }

    /// The group with this number, if it is one that [`Self::to_raw`] makes.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        if raw == 0 {
            return Some(Self::Meta);
        }
        let region = u16::try_from((raw & !Self::SHARD_BIT) >> 16).ok()?;
        let shard = u16::try_from(raw & 0xFFFF).ok()?;
        (raw & Self::SHARD_BIT != 0)
            .then(|| RegionId::new(region).map(|region| Self::Shard(region, ShardId(shard))))
            .flatten()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Shard(region, shard) => write!(f, "r{}-s{}", region.0, shard.0),
        }
    }
}

/// A text that is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid identifier")]
pub struct BadId;

/// A session: UUID version 8 with ten bits of birth region, fourteen bits of slot and 98 random bits.
/// Opaque to clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Builds an id from its place and sixteen random bytes, of which 98 bits are used.
    #[must_use]
    pub const fn new(birth: RegionId, slot: Slot, random: [u8; 16]) -> Self {
        let place = ((birth.0 as u32) << 14) | slot.0 as u32;
        let [_, high, middle, low] = place.to_be_bytes();
        let [_, _, _, d, e, f, g, h, i, j, k, l, m, n, o, p] = random;
        Self([
            high,
            middle,
            low,
            d,
            e,
            f,
            0x80 | (g & 0x0F),
            h,
            0x80 | (i & 0x3F),
            j,
            k,
            l,
            m,
            n,
            o,
            p,
        ])
    }

    /// The id with these bytes. Any sixteen bytes are an id; [`Self::is_ours`] says whether we made it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, in text order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether version and variant are those that [`Self::new`] sets. Another UUID was never a session here.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        let [_, _, _, _, _, _, version, _, variant, ..] = self.0;
        version >> 4 == 8 && variant >> 6 == 0b10
    }

    const fn place(self) -> u32 {
        let [high, middle, low, ..] = self.0;
        u32::from_be_bytes([0, high, middle, low])
    }

    /// The region in which the session was born.
    #[must_use]
    pub const fn birth(self) -> RegionId {
        let [_, _, high, low] = (self.place() >> 14).to_be_bytes();
        RegionId(u16::from_be_bytes([high, low]))
    }

    /// The slot, the same in every region.
    #[must_use]
    pub const fn slot(self) -> Slot {
        let [_, _, high, low] = self.place().to_be_bytes();
        Slot::wrapping(u16::from_be_bytes([high, low]))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = BadId;

    /// The hyphenated text form, upper or lower case.
    fn from_str(text: &str) -> Result<Self, BadId> {
        let parts: Vec<&str> = text.split('-').collect();
        let [a, b, c, d, e] = parts.as_slice() else {
            return Err(BadId);
        };
        if [a, b, c, d, e].map(|part| part.len()) != [8, 4, 4, 4, 12] {
            return Err(BadId);
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(parts.concat(), &mut bytes).map_err(|_malformed| BadId)?;
        Ok(Self(bytes))
    }
}

/// One client request, made by the gateway at arrival; every retry carries the same one, so it is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// One piece of at most 1 MiB of a large body. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkId(pub [u8; 16]);

/// What a session's content is, and nothing else has: its history's epoch and the write within it.
///
/// Whatever may step back in history raises the epoch, so no version ever names two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Version {
    /// Counts the session's homes and rollbacks, from 1.
    pub epoch: u32,
    /// Counts the writes within the epoch, from 1.
    pub revision: u64,
}

impl Version {
    /// The version of a session that was just created.
    pub const FIRST: Self = Self {
        epoch: 1,
        revision: 1,
    };

    /// The version after one more write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            epoch: self.epoch,
            revision: self.revision.saturating_add(1),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

impl FromStr for Version {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (epoch, revision) = text.split_once('.').ok_or(BadId)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(epoch) || !digits(revision) {
            return Err(BadId);
        }
        Ok(Self {
            epoch: epoch.parse().map_err(|_overflow| BadId)?,
            revision: revision.parse().map_err(|_overflow| BadId)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_session_id_keeps_its_place_and_its_text(region in 0..=RegionId::MAX, slot in 0..Slot::COUNT, random: [u8; 16]) {
            let region = RegionId::new(region).expect("in range");
            let id = SessionId::new(region, Slot::wrapping(slot), random);
            prop_assert!(id.is_ours());
            prop_assert_eq!(id.birth(), region);
            prop_assert_eq!(id.slot().get(), slot);
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
            prop_assert_eq!(id.to_string().to_uppercase().parse::<SessionId>(), Ok(id));
        }

        #[test]
        fn a_group_keeps_its_number(region in 0..=RegionId::MAX, shard: u16) {
            let group = GroupId::Shard(RegionId::new(region).expect("in range"), ShardId(shard));
            prop_assert_eq!(GroupId::from_raw(group.to_raw()), Some(group));
        }

        #[test]
        fn any_text_is_refused_or_round_trips(text in "\\PC{0,40}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
            }
            if let Ok(id) = text.parse::<SessionId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn the_meta_group_is_zero_and_other_numbers_are_refused() {
        assert_eq!(GroupId::from_raw(0), Some(GroupId::Meta));
        assert_eq!(GroupId::from_raw(7), None);
    }
}
