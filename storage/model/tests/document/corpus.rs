//! The corpora of the fuzz targets, through the same properties, on a stable compiler.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/properties.rs"]
mod properties;

fn run(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        println!("{}", file.display());
        property(&fs::read(&file).unwrap());
    }
}

#[test]
fn bodies_hold_their_properties() {
    run("create", properties::create);
}

#[test]
fn changes_hold_their_properties() {
    run("change", properties::change);
}

#[test]
fn storage_states_hold_their_properties() {
    run("playwright", properties::playwright);
}

#[test]
fn stored_bytes_hold_their_properties() {
    run("stored", properties::stored);
}

#[test]
fn dates_hold_their_properties() {
    run("date", properties::date);
}
