//! How a value lies in a tablet: a version byte, the payload, a checksum of both and of the key.
//!
//! Guarantees: a payload that [`open`] returns is the one that [`seal`] was given under the same key; a flipped bit, a
//! cut, or a value that landed under another key is [`BadValue`]. The checksum is CRC-32C: it finds accidents, not
//! forgeries. The version decides; a value of a version that this build does not know is refused, never guessed.

/// The version of the format that this build writes.
pub const VERSION: u8 = 1;
/// How much longer a stored value is than its payload, in bytes.
pub const OVERHEAD: usize = 1 + CHECKSUM_BYTES;

const CHECKSUM_BYTES: usize = 4;

/// Stored bytes that must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Shorter than any value that was ever written.
    #[error("{0} bytes are too few for a value")]
    Short(usize),
    /// The checksum does not hold.
    #[error("checksum does not hold")]
    Checksum,
    /// Whole, but written by a version that this build does not know.
    #[error("value format {0} is not known to this build")]
    Version(u8),
}

/// The stored form of a payload under a key.
#[must_use]
pub fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + OVERHEAD);
    out.push(VERSION);
    out.extend_from_slice(payload);
    let checksum = checksum(key, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The payload of a stored value.
///
/// # Errors
/// When the bytes are not what [`seal`] made for this key.
pub fn open<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], BadValue> {
    let (content, trailer) = stored
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(BadValue::Short(stored.len()))?;
    let (&version, payload) = content.split_first().ok_or(BadValue::Short(stored.len()))?;
    if checksum(key, content) != u32::from_le_bytes(*trailer) {
        return Err(BadValue::Checksum);
    }
    if version != VERSION {
        return Err(BadValue::Version(version));
    }
    Ok(payload)
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_payload_comes_back(key: Vec<u8>, payload: Vec<u8>) {
            let stored = seal(&key, &payload);
            prop_assert_eq!(stored.len(), payload.len() + OVERHEAD);
            prop_assert_eq!(open(&key, &stored), Ok(payload.as_slice()));
        }

        #[test]
        fn one_flipped_bit_anywhere_is_found(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
            let mut stored = seal(b"key", &payload);
            let at = at.index(stored.len());
            stored[at] ^= 1_u8 << bit;
            prop_assert_eq!(open(b"key", &stored), Err(BadValue::Checksum));
        }

        #[test]
        fn a_value_under_another_key_is_found(payload: Vec<u8>, one: [u8; 8], other: [u8; 8]) {
            prop_assume!(one != other);
            let stored = seal(&one, &payload);
            prop_assert_eq!(open(&other, &stored), Err(BadValue::Checksum));
        }

        #[test]
        fn a_cut_value_is_found(payload: Vec<u8>, at: prop::sample::Index) {
            let stored = seal(b"key", &payload);
            prop_assert!(open(b"key", &stored[..at.index(stored.len())]).is_err());
        }
    }

    #[test]
    fn the_bytes_of_a_value_are_those_of_version_one() {
        assert_eq!(
            seal(&[0x01], b"psp"),
            [&[0x01], b"psp".as_slice(), &GOLDEN_CHECKSUM].concat()
        );
    }

    const GOLDEN_CHECKSUM: [u8; 4] = [117, 157, 131, 12];

    #[test]
    fn a_whole_value_of_an_unknown_version_is_refused() {
        let mut content = vec![9, b'x'];
        let sum = checksum(b"key", &content);
        content.extend_from_slice(&sum.to_le_bytes());
        assert_eq!(open(b"key", &content), Err(BadValue::Version(9)));
    }
}
