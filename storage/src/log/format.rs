//! The bytes of the log.
//!
//! A segment is a row of batches, each beginning on a block of 4 KiB and padded to the next, so that no synced block
//! is ever written again. All numbers are little-endian.
//!
//! | batch header | bytes | |
//! |---|---|---|
//! | magic | 0..4 | `PSPL` |
//! | format | 4..6 | 1 |
//! | kind | 6..8 | 1: the first batch of a segment, begins with a checkpoint of all groups; 0: any other |
//! | generation | 8..16 | of the segment: each use of a file has a higher one |
//! | sequence | 16..24 | counts batches without a gap, over all segments |
//! | floor | 24..32 | the oldest generation that is still needed |
//! | length | 32..36 | header and records, without padding |
//! | records | 36..40 | how many |
//! | body | 40..44 | crc32c of the checksums of the records |
//! | previous | 44..48 | the header checksum of the batch before: the chain |
//! | zero | 48..60 | |
//! | checksum | 60..64 | crc32c of bytes 0..60 |
//!
//! | record | bytes | |
//! |---|---|---|
//! | checksum | 0..4 | crc32c of the rest of the record |
//! | kind | 4..8 | see [`Kind`] |
//! | group | 8..12 | |
//! | length | 12..16 | of the payload |
//! | term, node, index | 16..40 | meaning by kind |
//! | payload | 40.. | |
//!
//! Every byte that means something is under a checksum; a record can be verified alone, a batch only as a whole.

use super::types::LogId;

/// Batches begin on multiples of this. Bytes.
pub(crate) const BLOCK: u32 = 4096;
/// Length of a batch header. Bytes.
pub(crate) const HEADER: u32 = 64;
/// Length of a record without its payload. Bytes.
pub(crate) const RECORD: u32 = 40;
/// What the first batch of all has as the checksum before it.
pub(crate) const CHAIN_START: u32 = 0x5053_5045;

const MAGIC: u32 = u32::from_le_bytes(*b"PSPL");
const FORMAT: u16 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry; term, node, index and payload are its own.
    Entry = 1,
    /// A vote: term and node; index is 1 if committed.
    Vote = 2,
    /// All entries from `index` on are gone.
    Truncate = 3,
    /// All entries up to this id are gone.
    Purge = 4,
    /// Entries up to this id are committed; all three are `u64::MAX` for none.
    Committed = 5,
    /// The group is gone.
    Remove = 6,
    /// The state of the group before this segment; the payload is `GroupMarks`.
    Checkpoint = 7,
}

/// A batch header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) starts_segment: bool,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) floor: u64,
    pub(crate) length: u32,
    pub(crate) records: u32,
    pub(crate) body: u32,
    pub(crate) previous: u32,
}

/// A record's head, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) group: u32,
    pub(crate) id: LogId,
}

/// A record found in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
    pub(crate) checksum: u32,
}

impl Record<'_> {
    /// Bytes from one record to the next.
    pub(crate) fn length(&self) -> u32 {
        RECORD + u32::try_from(self.payload.len()).expect("the length came from 32 bits")
    }
}

impl Header {
    /// Writes the header; returns its checksum, the link of the chain.
    pub(crate) fn encode(&self, out: &mut [u8; HEADER as usize]) -> u32 {
        out.fill(0);
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        out[6..8].copy_from_slice(&u16::from(self.starts_segment).to_le_bytes());
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.floor.to_le_bytes());
        out[32..36].copy_from_slice(&self.length.to_le_bytes());
        out[36..40].copy_from_slice(&self.records.to_le_bytes());
        out[40..44].copy_from_slice(&self.body.to_le_bytes());
        out[44..48].copy_from_slice(&self.previous.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads a header and its checksum; `None` if these bytes are not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let bytes = bytes.get(..HEADER as usize)?;
        let checksum = u32_at(bytes, 60);
        let known =
            u32_at(bytes, 0) == MAGIC && u16_at(bytes, 4) == FORMAT && u16_at(bytes, 6) <= 1;
        if !known || crc32c::crc32c(&bytes[..60]) != checksum {
            return None;
        }
        let header = Self {
            starts_segment: u16_at(bytes, 6) == 1,
            generation: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            floor: u64_at(bytes, 24),
            length: u32_at(bytes, 32),
            records: u32_at(bytes, 36),
            body: u32_at(bytes, 40),
            previous: u32_at(bytes, 44),
        };
        (header.length >= HEADER).then_some((header, checksum))
    }
}

/// Appends a record to `out`; returns its checksum.
///
/// # Panics
/// If the payload is 4 GiB or longer; an entry's length is checked when it is taken.
pub(crate) fn put_record(out: &mut Vec<u8>, head: &Head, payload: &[u8]) -> u32 {
    let length =
        u32::try_from(payload.len()).expect("an entry's length is checked when it is taken");
    let mut bytes = [0; RECORD as usize];
    bytes[4..8].copy_from_slice(&(head.kind as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&head.group.to_le_bytes());
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.id.term.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.id.node.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.id.index.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[4..]), payload);
    bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(payload);
    checksum
}

/// The checksum of a batch's body with one more record.
pub(crate) fn add_to_body(body: u32, record: u32) -> u32 {
    crc32c::crc32c_append(body, &record.to_le_bytes())
}

/// Reads and verifies the record at the start of `bytes`; `None` if there is no whole, valid one.
pub(crate) fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let record = unverified(bytes)?;
    let length = RECORD as usize + record.payload.len();
    (crc32c::crc32c(&bytes[4..length]) == record.checksum).then_some(record)
}

/// Whether these bytes are the whole batch of this header, each record valid.
pub(crate) fn valid(header: &Header, batch: &[u8]) -> bool {
    if batch.len() != header.length as usize {
        return false;
    }
    let (mut at, mut count, mut body) = (HEADER as usize, 0_u32, 0);
    while at < batch.len() {
        let Some(record) = record(&batch[at..]) else {
            return false;
        };
        at += RECORD as usize + record.payload.len();
        body = add_to_body(body, record.checksum);
        count += 1;
    }
    count == header.records && body == header.body
}

/// The records of a batch that is [`valid`], each with its offset in the batch.
pub(crate) fn records(batch: &[u8]) -> impl Iterator<Item = (u32, Record<'_>)> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let start = at;
        let record = unverified(batch.get(start as usize..)?)?;
        at += record.length();
        Some((start, record))
    })
}

/// The next multiple of a block.
pub(crate) fn to_block(length: u32) -> u32 {
    length.next_multiple_of(BLOCK)
}

fn unverified(bytes: &[u8]) -> Option<Record<'_>> {
    let head = bytes.get(..RECORD as usize)?;
    let payload = bytes
        .get(RECORD as usize..)?
        .get(..u32_at(head, 12) as usize)?;
    let id = LogId {
        term: u64_at(head, 16),
        node: u64_at(head, 24),
        index: u64_at(head, 32),
    };
    let kind = Kind::from_number(u32_at(head, 4))?;
    Some(Record {
        head: Head {
            kind,
            group: u32_at(head, 8),
            id,
        },
        payload,
        checksum: u32_at(head, 0),
    })
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        [
            Self::Entry,
            Self::Vote,
            Self::Truncate,
            Self::Purge,
            Self::Committed,
            Self::Remove,
            Self::Checkpoint,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == number)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
