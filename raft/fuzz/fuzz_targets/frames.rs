//! See `properties::frames`. Run with `cargo +nightly fuzz run frames` in the folder of the crate `raft`.

#![no_main]

#[path = "../properties.rs"]
mod properties;
#[expect(dead_code, reason = "the target needs the decoder only")]
#[path = "../../src/transport/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::frames(data));
