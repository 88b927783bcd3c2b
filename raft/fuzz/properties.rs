//! What holds for any bytes. Shared by the fuzz targets and by the stable test that runs their corpora.

use bytes::Bytes;

use super::wire::{Batch, Decoder, Frame, WireError};

/// Bodies above this are refused here; small, so that the refusal is found.
const LIMIT: usize = 4096;

/// Whatever a peer sends gives frames or an error: the same ones however the bytes are cut, none above the limit, and the
/// frames written again are the bytes that were read. The first byte says how the rest is cut.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let (whole, end) = decode(data, data.len());
    let (pieces, piecewise_end) = decode(data, usize::from(*cut));
    assert_eq!(whole, pieces, "how the bytes are cut changes the frames");
    assert_eq!(
        end.err(),
        piecewise_end.err(),
        "how the bytes are cut changes the error"
    );
    let mut batch = Batch::default();
    for frame in whole {
        assert!(frame.body.len() <= LIMIT);
        batch.push(&frame.header, frame.body);
    }
    let written = batch.take().concat();
    assert_eq!(
        written,
        data[..written.len()],
        "frames are not written as they were read"
    );
    if end == Ok(true) {
        assert_eq!(written.len(), data.len(), "a clean end leaves nothing over");
    }
}

/// All frames, and whether the bytes end between two of them.
fn decode(data: &[u8], piece: usize) -> (Vec<Frame>, Result<bool, WireError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut frames = Vec::new();
    for piece in data.chunks(piece.max(1)) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(decoder.is_clean()))
}
