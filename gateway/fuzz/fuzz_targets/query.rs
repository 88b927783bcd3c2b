//! See `properties::query`. Run with `cargo +nightly fuzz run query` in the folder of the crate `gateway`.

#![no_main]

#[expect(dead_code, reason = "each target uses one of the functions")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::query(data));
