//! Reading a segment file from its beginning: batch by batch, each verified as a whole.
//!
//! It reads through a window of about a megabyte and decides nothing but whether a batch is valid at a place; what
//! an invalid one means is decided in `recover.rs`.

use std::io;

use crate::disk::File;

use super::format::{self, BLOCK, HEADER, Header};

/// Read at one time, at the least. Bytes.
const WINDOW: u32 = 1 << 20;

/// A window moving over a file.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a dyn File,
    size: u32,
    window: Vec<u8>,
    start: u32,
}

/// A batch that is valid as a whole.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) header: Header,
    pub(crate) checksum: u32,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Scan<'a> {
    /// A scan of this file.
    ///
    /// # Errors
    /// If the length cannot be read, or is more than a segment's can be.
    pub(crate) fn new(file: &'a dyn File) -> io::Result<Self> {
        let size = u32::try_from(file.size()?).map_err(io::Error::other)?;
        Ok(Self {
            file,
            size,
            window: Vec::new(),
            start: 0,
        })
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// The header at `offset`, with its checksum, if there is a valid one.
    pub(crate) fn header(&mut self, offset: u32) -> io::Result<Option<(Header, u32)>> {
        if self.size.saturating_sub(offset) < HEADER {
            return Ok(None);
        }
        Ok(Header::decode(self.bytes(offset, HEADER)?))
    }

    /// The batch at `offset`, if there is a valid one.
    pub(crate) fn batch(&mut self, offset: u32) -> io::Result<Option<Found<'_>>> {
        let Some((header, checksum)) = self.header(offset)? else {
            return Ok(None);
        };
        if header.length > self.size - offset {
            return Ok(None);
        }
        let bytes = self.bytes(offset, header.length)?;
        Ok(format::valid(&header, bytes).then_some(Found {
            header,
            checksum,
            bytes,
        }))
    }

    /// The first offset from `offset` on, and its header, where a header stands that `wanted` accepts.
    pub(crate) fn find(
        &mut self,
        offset: u32,
        wanted: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<(u32, Header)>> {
        for at in (offset..self.size).step_by(BLOCK as usize) {
            if let Some((header, _)) = self.header(at)?
                && wanted(&header)
            {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    /// The bytes from `offset`, `length` of them; the caller has checked that the file is so long.
    fn bytes(&mut self, offset: u32, length: u32) -> io::Result<&[u8]> {
        let held = self.start <= offset
            && (offset - self.start) as usize + length as usize <= self.window.len();
        if !held {
            let wanted = length.max(WINDOW).min(self.size - offset);
            self.window.resize(wanted as usize, 0);
            self.start = offset;
            crate::disk::read_exact_at(self.file, &mut self.window, offset.into())?;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.window[at..at + length as usize])
    }
}
