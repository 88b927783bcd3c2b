//! A document cut into the parts that are stored, and their bytes.
//!
//! Each part is the JSON text as sent, without the whitespace between tokens: numbers, escapes, the order of keys and
//! unknown fields stay as they are. What is kept through a change is kept as bytes. Not stored, because they are put in
//! when the document is served: `$schema`, `protocolVersion`, `id`, `timestamps.created` and `.updated`, `checksum`.
//!
//! The bytes: format (1), flags, expiry, checksum, length of the summary, number of parts, for each part its number and
//! length, then the summary and the parts. All integers little-endian. Integrity is the business of whoever stores them.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use crate::time::UnixMillis;

use super::checksum::{self, Checksum};
use super::error::DocumentError;
use super::field::Field;
use super::summary::Summary;

const FORMAT: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 7;
const FIXED_BYTES: usize = 1 + 1 + 8 + 32 + 4 + 1;
const PART_BYTES: usize = 1 + 4;

/// The numbers of the parts that are no [`Field`].
const CAPTURED: u8 = 32;
const TIMES: u8 = 33;
const REST: u8 = 34;

/// A document cut into the parts that are stored. Cheap to clone: parts share their bytes.
///
/// [`Default`] is the document that an empty body makes.
#[derive(Clone, PartialEq, Eq)]
pub struct Sections {
    pub(super) fields: [Option<Part>; Field::COUNT],
    /// `timestamps.captured`, a JSON string.
    pub(super) captured: Option<Bytes>,
    /// An object of the members of `timestamps` that we do not know; empty without any.
    pub(super) times: Bytes,
    /// An object of the top-level members that we do not know; empty without any.
    pub(super) rest: Bytes,
    /// `timestamps.expires`.
    pub(super) expires: Option<UnixMillis>,
    pub(super) checksum: Checksum,
    pub(super) summary: Summary,
}

/// The value of a field.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// JSON without whitespace between tokens.
    pub(super) text: Bytes,
    /// `JSON.stringify` would print it otherwise. Of no meaning for fields that are no part of the checksum.
    pub(super) odd: bool,
}

impl Default for Sections {
    fn default() -> Self {
        Self {
            fields: [const { None }; Field::COUNT],
            captured: None,
            times: Bytes::new(),
            rest: Bytes::new(),
            expires: None,
            checksum: checksum::EMPTY,
            summary: Summary::default(),
        }
    }
}

impl fmt::Debug for Sections {
    /// Lengths only: the content is the client's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sections")
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

impl Sections {
    /// What a list shows of the document.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// When the document says that it expires (`timestamps.expires`).
    #[must_use]
    pub const fn expires(&self) -> Option<UnixMillis> {
        self.expires
    }

    /// The checksum that clients verify; shown in lower-case hexadecimal.
    #[must_use]
    pub const fn checksum(&self) -> &[u8; 32] {
        &self.checksum
    }

    /// Bytes of JSON in all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts()
            .fold(0, |sum, (_, text, _)| sum.saturating_add(text.len()))
    }

    /// Whether nothing but defaults is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes to store. One copy of each part.
    ///
    /// # Panics
    /// Never: no part is as long as 4 GiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let summary = self.summary.encode();
        let parts = self.parts().count();
        let head = FIXED_BYTES.saturating_add(parts.saturating_mul(PART_BYTES));
        let mut out = Vec::with_capacity(
            head.saturating_add(summary.len())
                .saturating_add(self.len()),
        );
        let mut flags = if self.expires.is_some() {
            HAS_EXPIRY
        } else {
            0
        };
        for (field, flag) in ODD_FLAGS {
            if self.field(field).is_some_and(|part| part.odd) {
                flags |= flag;
            }
        }
        out.put_u8(FORMAT);
        out.put_u8(flags);
        out.put_u64_le(self.expires.map_or(0, |time| time.0));
        out.put_slice(&self.checksum);
        out.put_u32_le(length(&summary));
        out.put_u8(u8::try_from(parts).expect("there are fewer than 256 parts"));
        for (number, text, _) in self.parts() {
            out.put_u8(number);
            out.put_u32_le(length(text));
        }
        out.put_slice(&summary);
        for (_, text, _) in self.parts() {
            out.put_slice(text);
        }
        out
    }

    /// Sections from their bytes, of which the parts are slices.
    ///
    /// # Errors
    /// [`DocumentError::Stored`] when the bytes are not those of [`Self::encode`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DocumentError> {
        Self::try_decode(bytes.clone()).ok_or(DocumentError::Stored {
            what: "the bytes are not those of a document",
        })
    }

    fn try_decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let flags = bytes.try_get_u8().ok()?;
        let time = UnixMillis(bytes.try_get_u64_le().ok()?);
        let mut sections = Self {
            expires: (flags & HAS_EXPIRY != 0).then_some(time),
            checksum: *take(&mut bytes, 32)?.first_chunk()?,
            ..Self::default()
        };
        let summary = bytes.try_get_u32_le().ok()?;
        let parts = bytes.try_get_u8().ok()?;
        let mut heads = take(&mut bytes, usize::from(parts).checked_mul(PART_BYTES)?)?;
        sections.summary = Summary::decode(&take(&mut bytes, summary as usize)?)?;
        while heads.has_remaining() {
            let number = heads.try_get_u8().ok()?;
            let text = take(&mut bytes, heads.try_get_u32_le().ok()? as usize)?;
            match number {
                CAPTURED => sections.captured = Some(text),
                TIMES => sections.times = text,
                REST => sections.rest = text,
                _ => {
                    let odd = ODD_FLAGS
                        .iter()
                        .any(|(field, flag)| *field as u8 == number && flags & flag != 0);
                    *sections.fields.get_mut(usize::from(number))? = Some(Part { text, odd });
                }
            }
        }
        bytes.is_empty().then_some(sections)
    }

    pub(super) fn field(&self, field: Field) -> Option<&Part> {
        self.fields.get(field as usize).and_then(Option::as_ref)
    }

    /// The text of a field.
    pub(super) fn text(&self, field: Field) -> Option<&[u8]> {
        self.field(field).map(|part| &*part.text)
    }

    pub(super) fn set(&mut self, field: Field, mut part: Option<Part>) {
        // How JavaScript would print a field matters, and is stored, only for the parts of the checksum.
        if let Some(part) = &mut part {
            part.odd &= ODD_FLAGS.iter().any(|(hashed, _)| *hashed == field);
        }
        if let Some(slot) = self.fields.get_mut(field as usize) {
            *slot = part;
        }
    }

    /// Computes the checksum anew.
    pub(super) fn recompute(&mut self) -> Result<(), DocumentError> {
        let part = |field| {
            self.field(field).map(|part| checksum::Part {
                text: &part.text,
                odd: part.odd,
            })
        };
        self.checksum = checksum::checksum(
            part(Field::Cookies).unwrap_or(checksum::Part::EMPTY),
            part(Field::Origins).unwrap_or(checksum::Part::EMPTY),
            part(Field::IndexedDb),
        )?;
        Ok(())
    }

    fn parts(&self) -> impl Iterator<Item = (u8, &Bytes, bool)> {
        let fields = (0_u8..)
            .zip(&self.fields)
            .filter_map(|(number, part)| part.as_ref().map(|part| (number, &part.text, part.odd)));
        let others = [
            (CAPTURED, self.captured.as_ref()),
            (TIMES, Some(&self.times).filter(|times| !times.is_empty())),
            (REST, Some(&self.rest).filter(|rest| !rest.is_empty())),
        ];
        fields.chain(
            others
                .into_iter()
                .filter_map(|(number, text)| Some((number, text?, false))),
        )
    }
}

/// The parts of the checksum, and the flag of each.
const ODD_FLAGS: [(Field, u8); 3] = [
    (Field::Cookies, 1),
    (Field::Origins, 2),
    (Field::IndexedDb, 4),
];

fn take(bytes: &mut Bytes, count: usize) -> Option<Bytes> {
    (count <= bytes.len()).then(|| bytes.split_to(count))
}

fn length(text: &[u8]) -> u32 {
    u32::try_from(text.len()).expect("a document has at most 50 MiB")
}
