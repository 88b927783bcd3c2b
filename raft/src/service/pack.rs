//! Compression of what is sealed: zstd, where it helps, small content with a dictionary.
//!
//! A session of a few KiB has little to refer back to: half of it are names and structure that all storage states share. `dictionary.txt` has
//! them, written by hand from what browsers and common scripts leave behind (cookie attributes, names of trackers and frameworks, heads of
//! tokens), the most common last, where references are shortest. Stored content needs it for ever: it never changes, a better one
//! gets another [`Coding`].

use std::cell::RefCell;
use std::sync::LazyLock;

use bincode::{Decode, Encode};
use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// Content below this many bytes is not compressed.
const MIN_COMPRESSED_BYTES: usize = 128;
/// Content up to this many bytes is compressed with the dictionary; what is larger is its own.
const MAX_WITH_DICTIONARY_BYTES: usize = 32 * 1024;
/// The fastest level that is worth its bytes on JSON.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes that content may say it has before compression: the largest document and room for its frame.
const MAX_PLAIN_BYTES: usize = model::limits::MAX_DOCUMENT_BYTES + 4 * 1024 * 1024;

const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");

/// How content is compressed. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Coding {
    /// As it is.
    Plain,
    /// zstd.
    Zstd,
    /// zstd with the dictionary.
    ZstdWithDictionary,
}

impl Coding {
    /// The number that an envelope has for it.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
            Self::ZstdWithDictionary => 2,
        }
    }

    /// What [`Self::number`] was said of.
    pub(super) const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            2 => Some(Self::ZstdWithDictionary),
            _ => None,
        }
    }
}

/// Content, compressed if that helps.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) bytes: Bytes,
    pub(super) coding: Coding,
    /// Length before compression.
    pub(super) plain_bytes: usize,
}

static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, ZSTD_LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

/// What a thread keeps for one way of compressing; made when it is needed first.
struct Codecs {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl Codecs {
    const fn new() -> Self {
        Self {
            compressor: None,
            decompressor: None,
        }
    }
}

thread_local! {
    static ALONE: RefCell<Codecs> = const { RefCell::new(Codecs::new()) };
    static WITH_DICTIONARY: RefCell<Codecs> = const { RefCell::new(Codecs::new()) };
}

fn compress(plain: &[u8]) -> Option<(Coding, Vec<u8>)> {
    if plain.len() <= MAX_WITH_DICTIONARY_BYTES {
        return WITH_DICTIONARY.with_borrow_mut(|codecs| {
            if codecs.compressor.is_none() {
                codecs.compressor = Compressor::with_prepared_dictionary(&ENCODER).ok();
            }
            let packed = codecs.compressor.as_mut()?.compress(plain).ok()?;
            Some((Coding::ZstdWithDictionary, packed))
        });
    }
    ALONE.with_borrow_mut(|codecs| {
        if codecs.compressor.is_none() {
            codecs.compressor = Compressor::new(ZSTD_LEVEL).ok();
        }
        let packed = codecs.compressor.as_mut()?.compress(plain).ok()?;
        Some((Coding::Zstd, packed))
    })
}

/// Content that stays as it is.
pub(super) fn plain(plain: Vec<u8>) -> Packed {
    Packed {
        plain_bytes: plain.len(),
        bytes: Bytes::from(plain),
        coding: Coding::Plain,
    }
}

/// Compresses content if that saves at least a sixteenth of it.
pub(super) fn pack(content: Vec<u8>) -> Packed {
    let plain_bytes = content.len();
    let packed = (plain_bytes >= MIN_COMPRESSED_BYTES)
        .then(|| compress(&content))
        .flatten()
        .filter(|(_, packed)| packed.len() < plain_bytes - plain_bytes / 16);
    match packed {
        Some((coding, packed)) => Packed {
            bytes: Bytes::from(packed),
            coding,
            plain_bytes,
        },
        None => plain(content),
    }
}

/// The content as it was before [`pack`]; nothing when that is not what it is, or not so long as it says.
pub(super) fn unpack(packed: Packed) -> Option<Bytes> {
    let length = packed.plain_bytes;
    if length > MAX_PLAIN_BYTES {
        return None;
    }
    let plain = match packed.coding {
        Coding::Plain => Some(packed.bytes),
        Coding::Zstd => ALONE.with_borrow_mut(|codecs| {
            if codecs.decompressor.is_none() {
                codecs.decompressor = Decompressor::new().ok();
            }
            decompress(codecs, &packed.bytes, length)
        }),
        Coding::ZstdWithDictionary => WITH_DICTIONARY.with_borrow_mut(|codecs| {
            if codecs.decompressor.is_none() {
                codecs.decompressor = Decompressor::with_prepared_dictionary(&DECODER).ok();
            }
            decompress(codecs, &packed.bytes, length)
        }),
    };
    plain.filter(|plain| plain.len() == length)
}

fn decompress(codecs: &mut Codecs, packed: &[u8], length: usize) -> Option<Bytes> {
    let plain = codecs.decompressor.as_mut()?.decompress(packed, length);
    plain.ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(count: usize) -> Vec<u8> {
        let one = |number: usize| {
            format!(
                r#"{{"name":"_ga","value":"GA1.1.{}","domain":".example.com","path":"/","expires":1790000000.{number},"httpOnly":false,"secure":true,"sameSite":"Lax"}}"#,
                number * 7919
            )
        };
        let all: Vec<String> = (0..count).map(one).collect();
        format!(r#"{{"cookies":[{}]}}"#, all.join(",")).into_bytes()
    }

    #[test]
    fn the_dictionary_is_the_one_that_stored_content_needs() {
        let hash = blake3::hash(DICTIONARY).to_hex();
        assert_eq!(
            &hash[..16],
            "dd72b161ab8b1f57",
            "a changed one is another coding"
        );
    }

    #[test]
    fn content_comes_back_whatever_its_length_and_the_dictionary_makes_small_content_smaller() {
        for count in [0, 1, 2, 10, 100, 2000] {
            let content = cookies(count);
            let packed = pack(content.clone());
            let expected = match content.len() {
                0..MIN_COMPRESSED_BYTES => Coding::Plain,
                MIN_COMPRESSED_BYTES..=MAX_WITH_DICTIONARY_BYTES => Coding::ZstdWithDictionary,
                _ => Coding::Zstd,
            };
            assert_eq!(packed.coding, expected, "{count}");
            if count == 1 {
                let alone = zstd::bulk::compress(&content, ZSTD_LEVEL).unwrap().len();
                assert!(packed.bytes.len() * 2 < alone, "{alone}");
            }
            assert_eq!(unpack(packed).unwrap(), content, "{count}");
        }
    }

    #[test]
    fn a_coding_is_its_number() {
        let all = [Coding::Plain, Coding::Zstd, Coding::ZstdWithDictionary];
        for (number, coding) in (0..).zip(all) {
            assert_eq!(coding.number(), number, "in an envelope");
            assert_eq!(Coding::of(number), Some(coding));
            let encoded = model::codec::encode(&coding);
            assert_eq!(encoded.last(), Some(&number), "in a manifest");
        }
        assert_eq!(Coding::of(3), None);
    }

    #[test]
    fn a_length_or_a_coding_that_lies_is_refused() {
        let packed = pack(cookies(5));
        let longer = Packed {
            plain_bytes: packed.plain_bytes + 1,
            ..packed.clone()
        };
        let shorter = Packed {
            plain_bytes: packed.plain_bytes - 1,
            ..packed.clone()
        };
        let alone = Packed {
            coding: Coding::Zstd,
            ..packed
        };
        for lie in [longer, shorter, alone] {
            assert_eq!(unpack(lie), None);
        }
    }
}
