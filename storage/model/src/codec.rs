//! The one place where our types become bytes and come back: a version byte, then bincode.
//!
//! Guarantees: what was written by version N is read by every later version or refused with
//! [`CodecError::Version`]; the marker decides, and a body that does not decode is damage, never "maybe
//! older". Input is bounded by [`MAX_VALUE_BYTES`]. Checksums belong to the layer that stores or sends.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::limits::MAX_VALUE_BYTES;

/// The version of the encoding that this build writes.
pub const FORMAT: u8 = 3;
/// Room for what most values take.
const USUAL_BYTES: usize = 256;

const fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_VALUE_BYTES>()
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a version that this build does not know.
    #[error("format version {0} is not known to this build")]
    Version(u8),
    /// Marker right, content wrong: damaged, or not ours.
    #[error("value does not decode")]
    Damaged(#[source] bincode::error::DecodeError),
    /// The value has bytes after its end.
    #[error("value has {0} bytes after its end")]
    Trailing(usize),
    /// No bytes at all.
    #[error("value is empty")]
    Empty,
}

/// Encodes a value in the current format.
///
/// # Panics
/// When the value is larger than [`MAX_VALUE_BYTES`]: callers bound what they build.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Bytes {
    encode_about(value, USUAL_BYTES)
}

/// The same, for a value of which is known about how many bytes it takes: they are had once, instead of growing.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_about<T: Encode>(value: &T, bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(bytes);
    out.push(FORMAT);
    bincode::encode_into_std_write(value, &mut out, config())
        .expect("values of the model are built within MAX_VALUE_BYTES");
    Bytes::from(out)
}

/// Decodes a value that [`encode`] made.
///
/// # Errors
/// See [`CodecError`]; all of them mean that the bytes must not be used.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != FORMAT {
        return Err(CodecError::Version(version));
    }
    let (value, read) = bincode::decode_from_slice(body, config()).map_err(CodecError::Damaged)?;
    match body.len().saturating_sub(read) {
        0 => Ok(value),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

/// A run of bytes that is cheap to clone, for bodies inside commands and replies.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Encode for Blob {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.as_ref().encode(encoder)
    }
}

impl<C> Decode<C> for Blob {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Ok(Self(Bytes::from(Vec::<u8>::decode(decoder)?)))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Blob {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_trailing_bytes_and_emptiness_are_refused() {
        let bytes = encode(&(7_u32, Blob(Bytes::from_static(b"abc"))));
        assert_eq!(bytes.as_ref(), [3, 7, 3, b'a', b'b', b'c']);
        let back: (u32, Blob) = decode(&bytes).expect("decodes");
        assert_eq!(back.1.0.as_ref(), b"abc");
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(
            decode::<(u32, Blob)>(&longer),
            Err(CodecError::Trailing(1))
        ));
        longer.insert(0, 9);
        assert!(matches!(
            decode::<(u32, Blob)>(&longer),
            Err(CodecError::Version(9))
        ));
        assert!(matches!(decode::<u32>(&[]), Err(CodecError::Empty)));
        assert!(matches!(
            decode::<(u32, Blob)>(&bytes.slice(..3)),
            Err(CodecError::Damaged(_))
        ));
    }
}
