//! See `properties::stored`. Run with `cargo +nightly fuzz run stored` in the folder of the crate `model`.

#![no_main]

#[expect(dead_code, reason = "each target uses one of the functions")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::stored(data));
