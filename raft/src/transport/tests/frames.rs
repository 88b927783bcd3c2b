//! The bytes of frames: as they were yesterday, and whatever a peer may send.

#[path = "../../../fuzz/properties.rs"]
mod properties;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::{Strategy, any, prop};

use crate::transport::wire;
use wire::{Batch, Decoder, Frame, FrameType, HEADER_BYTES, Header, WireError};

const SAMPLE: Header = Header {
    frame: FrameType::Call,
    kind: 0x0102,
    id: 0x0304,
    group: 0x8001_0005,
    status: 0,
};

#[test]
fn the_bytes_of_each_frame_are_those_of_version_1() {
    let golden = [
        (
            FrameType::Call,
            "00000003010101020000000000000304800100050000000061626300",
        ),
        (
            FrameType::Reply,
            "00000003010201020000000000000304800100050000000061626300",
        ),
        (
            FrameType::Hello,
            "00000003010301020000000000000304800100050000000061626300",
        ),
        (
            FrameType::Welcome,
            "00000003010401020000000000000304800100050000000061626300",
        ),
        (
            FrameType::Open,
            "00000003010501020000000000000304800100050000000061626300",
        ),
    ];
    for (frame, bytes) in golden {
        let mut batch = Batch::default();
        batch.push(&Header { frame, ..SAMPLE }, Bytes::from_static(b"abc"));
        let written = batch.take().concat();
        assert_eq!(
            hex::encode(&written),
            bytes.strip_suffix("00").unwrap(),
            "{frame:?}"
        );
        let mut decoder = Decoder::new(3);
        decoder.push(Bytes::from(written));
        let read = decoder.next_frame().unwrap().unwrap();
        assert_eq!(read.header, Header { frame, ..SAMPLE });
        assert_eq!(read.body, "abc");
        assert!(decoder.is_clean());
    }
    let status = Header {
        status: 0xABCD,
        ..SAMPLE
    }
    .encode(0);
    assert_eq!(status[20..], [0xAB, 0xCD, 0, 0]);
}

#[test]
fn what_is_no_frame_is_named() {
    let error_of = |at: usize, byte: u8| {
        let mut bytes = SAMPLE.encode(0);
        bytes[at] = byte;
        let mut decoder = Decoder::new(100);
        decoder.push(Bytes::copy_from_slice(&bytes));
        decoder.next_frame().unwrap_err()
    };
    assert_eq!(error_of(4, 2), WireError::Version(2));
    assert_eq!(error_of(5, 0), WireError::Type(0));
    assert_eq!(error_of(5, 6), WireError::Type(6));
    assert_eq!(error_of(23, 1), WireError::Reserved);
    assert_eq!(
        error_of(3, 101),
        WireError::TooLarge {
            length: 101,
            limit: 100
        }
    );
}

#[test]
fn a_frame_that_comes_in_one_piece_is_not_copied_and_a_small_one_pins_no_large_buffer() {
    let mut batch = Batch::default();
    batch.push(&SAMPLE, Bytes::from(vec![1; 50_000]));
    batch.push(&SAMPLE, Bytes::from(vec![2; 100]));
    let buffer = Bytes::from(batch.take().concat());
    let range = buffer.as_ptr_range();
    let mut decoder = Decoder::new(1 << 20);
    decoder.push(buffer);
    let large = decoder.next_frame().unwrap().unwrap().body;
    let small = decoder.next_frame().unwrap().unwrap().body;
    assert!(range.contains(&large.as_ptr()));
    assert!(!range.contains(&small.as_ptr()));
}

#[test]
fn large_bodies_are_handed_on_and_small_ones_gathered() {
    let mut batch = Batch::default();
    let large = Bytes::from(vec![3; 100_000]);
    for body in [
        Bytes::from_static(b"a"),
        large.clone(),
        Bytes::from_static(b"b"),
    ] {
        batch.push(&SAMPLE, body);
    }
    assert_eq!(
        (batch.frames(), batch.bytes()),
        (3, 100_002 + 3 * HEADER_BYTES)
    );
    let chunks = batch.take();
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    assert_eq!((batch.frames(), batch.bytes()), (0, 0));
}

#[test]
fn the_corpus_of_the_fuzzer_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frames");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        properties::frames(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "the corpus is here");
}

fn frame() -> impl Strategy<Value = Frame> {
    let types = [
        FrameType::Call,
        FrameType::Reply,
        FrameType::Hello,
        FrameType::Welcome,
        FrameType::Open,
    ];
    let header = (
        prop::sample::select(types.to_vec()),
        any::<(u16, u64, u32, u16)>(),
    );
    let body = prop::collection::vec(any::<u8>(), 0..3000);
    (header, body).prop_map(|((frame, (kind, id, group, status)), body)| Frame {
        header: Header {
            frame,
            kind,
            id,
            group,
            status,
        },
        body: Bytes::from(body),
    })
}

proptest::proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(
        frames in prop::collection::vec(frame(), 0..6),
        cut: u8,
        // A changed byte and a shortened end too.
        change in (any::<u16>(), any::<u8>(), any::<bool>()),
    ) {
        let mut batch = Batch::default();
        for frame in frames {
            batch.push(&frame.header, frame.body);
        }
        let mut bytes = vec![cut];
        bytes.extend(batch.take().concat());
        properties::frames(&bytes);
        let at = usize::from(change.0) % bytes.len();
        bytes[at] = change.1;
        if change.2 {
            bytes.truncate(at);
        }
        properties::frames(&bytes);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::frames(&bytes);
    }
}
