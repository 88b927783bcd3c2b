//! Content coding: what the client takes (`Accept-Encoding`), and making it.
//!
//! Guarantees: the answer has a coding that the client takes, `identity` when it takes nothing that we have; small
//! bodies stay as they are; bodies above [`INLINE_BYTES`] are compressed off the runtime's workers. Reading the
//! header is bounded by the header's own bound.

use std::io::{self, Write};

use bytes::Bytes;

/// Below this a coding costs more than it saves, in bytes.
pub const MIN_BYTES: usize = 1024;
/// Above this, compression leaves the runtime's workers, in bytes.
pub const INLINE_BYTES: usize = 32 * 1024;
/// Fast levels: the answer waits for it.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 1;

/// A content coding that we read and write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As it is.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

impl Coding {
    /// The name in `Content-Encoding`, if it has to be named.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// What an entity tag says of it.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => "-gzip",
            Self::Zstd => "-zstd",
        }
    }

    /// The coding with this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("identity") {
            Some(Self::Identity)
        } else if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// The coding of an answer: the one with the highest weight, and of equals zstd, then gzip, then none. Without a header
/// none; parts of the header that are malformed are skipped.
#[must_use]
pub fn choose(accept_encoding: Option<&str>) -> Coding {
    let Some(header) = accept_encoding else {
        return Coding::Identity;
    };
    let (mut zstd, mut gzip, mut identity, mut others) = (None, None, None, None);
    for part in header.split(',') {
        let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
        let Some(weight) = weight(parameters) else {
            continue;
        };
        let name = name.trim();
        let place = match Coding::named(name) {
            Some(Coding::Zstd) => &mut zstd,
            Some(Coding::Gzip) => &mut gzip,
            Some(Coding::Identity) => &mut identity,
            None if name == "*" => &mut others,
            None => continue,
        };
        *place = (*place).max(Some(weight));
    }
    let zstd = zstd.or(others).unwrap_or(0);
    let gzip = gzip.or(others).unwrap_or(0);
    // Identity is acceptable unless it is ruled out, and then only better than nothing.
    let identity = identity.unwrap_or(0);
    if zstd > 0 && zstd >= gzip && zstd >= identity {
        Coding::Zstd
    } else if gzip > 0 && gzip >= identity {
        Coding::Gzip
    } else {
        Coding::Identity
    }
}

/// The weight in thousandths; 1,000 without one, `None` when it is malformed.
fn weight(parameters: &str) -> Option<u32> {
    let text = parameters.trim();
    if text.is_empty() {
        return Some(1000);
    }
    let (name, value) = text.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value = value.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u32 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The parts, one after another, in a coding.
///
/// # Errors
/// When the machine has no memory for the encoder.
pub fn encode(parts: &[Bytes], coding: Coding) -> io::Result<Bytes> {
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let room = Vec::with_capacity(length / 4);
    match coding {
        Coding::Identity => Ok(parts.concat().into()),
        Coding::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = flate2::write::GzEncoder::new(room, level);
            parts.iter().try_for_each(|part| encoder.write_all(part))?;
            Ok(encoder.finish()?.into())
        }
        Coding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(room, ZSTD_LEVEL)?;
            encoder.set_pledged_src_size(u64::try_from(length).ok())?;
            encoder.include_contentsize(true)?;
            parts.iter().try_for_each(|part| encoder.write_all(part))?;
            Ok(encoder.finish()?.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_highest_weight_wins_and_of_equals_zstd() {
        let rows = [
            (None, Coding::Identity),
            (Some(""), Coding::Identity),
            (Some("gzip"), Coding::Gzip),
            (Some("gzip, zstd"), Coding::Zstd),
            (Some("GZIP;q=1.0, zstd;q=0.9"), Coding::Gzip),
            (Some("gzip;q=0"), Coding::Identity),
            (Some("*"), Coding::Zstd),
            (Some("*;q=0.5, zstd;q=0"), Coding::Gzip),
            (Some("identity, gzip;q=0.5"), Coding::Identity),
            (Some("identity;q=0.2, gzip;q=0.5"), Coding::Gzip),
            (Some("identity;q=0"), Coding::Identity),
            (Some("br, deflate"), Coding::Identity),
            (Some("gzip;q=abc, zstd;q=0.001"), Coding::Zstd),
            (Some("gzip;q=1.5"), Coding::Identity),
            (Some("gzip, deflate, br, zstd"), Coding::Zstd),
        ];
        for (header, coding) in rows {
            assert_eq!(choose(header), coding, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_has_an_answer(text in "\\PC{0,80}") {
            let _coding = choose(Some(&text));
        }
    }
}
