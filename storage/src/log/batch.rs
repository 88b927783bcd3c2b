//! The batch being built: one buffer, used again for each.
//!
//! In: records, in order. Out: the bytes of one write, padded to a block, with header and checksums. It does not write.

use super::format::{HEADER, Head, Header, add_to_body, put_record, to_block};

/// A buffer that grew above this for one large entry is given back. Bytes.
const KEPT_CAPACITY: usize = 8 << 20;

/// The bytes of one batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    records: u32,
    body: u32,
}

/// What the header says besides what the batch itself knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) starts_segment: bool,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) floor: u64,
    pub(crate) previous: u32,
}

impl Batch {
    /// Forgets all records.
    pub(crate) fn begin(&mut self) {
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(HEADER as usize, 0);
        (self.records, self.body) = (0, 0);
    }

    /// Adds a record; returns where in the batch it begins.
    pub(crate) fn add(&mut self, head: &Head, payload: &[u8]) -> u32 {
        let offset = self.length();
        let checksum = put_record(&mut self.bytes, head, payload);
        self.body = add_to_body(self.body, checksum);
        self.records += 1;
        offset
    }

    /// Bytes so far, without padding.
    pub(crate) fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a batch is shorter than a segment")
    }

    /// Writes the header and pads; returns the checksum that the next batch names.
    pub(crate) fn finish(&mut self, place: Place) -> u32 {
        let length = self.length();
        self.bytes.resize(to_block(length) as usize, 0);
        let header = Header {
            starts_segment: place.starts_segment,
            generation: place.generation,
            sequence: place.sequence,
            floor: place.floor,
            length,
            records: self.records,
            body: self.body,
            previous: place.previous,
        };
        let out = self
            .bytes
            .first_chunk_mut()
            .expect("a batch begins with room for its header");
        header.encode(out)
    }

    /// The bytes to write, after [`Batch::finish`].
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
