//! The corpus of the fuzz targets, and pieces of it, on a stable compiler.

use std::path::Path;

#[path = "../../fuzz/properties.rs"]
mod properties;

fn run(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for file in std::fs::read_dir(folder).expect("a corpus") {
        let data = std::fs::read(file.expect("readable").path()).expect("readable");
        property(&data);
        // Cut inputs are what a network makes of whole ones.
        for end in 0..data.len().min(300) {
            property(&data[..end]);
            property(&data[end..]);
        }
        inputs += 1;
    }
    assert!(inputs >= 5, "{target} has a corpus");
}

#[test]
fn entity_tags() {
    run("etag", properties::etag);
}

#[test]
fn tokens_and_cursors() {
    run("token", properties::token);
}

#[test]
fn content_codings() {
    run("coding", properties::coding);
}

#[test]
fn paths() {
    run("path", properties::path);
}

#[test]
fn queries() {
    run("query", properties::query);
}

#[test]
fn messages_of_a_watch() {
    run("message", properties::message);
}
