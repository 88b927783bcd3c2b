//! What must hold for every input of the document's parsers. Shared by the fuzz targets and by the test that runs
//! their corpora on a stable compiler, so each takes bytes and panics where a property is broken.

use bytes::Bytes;
use model::document::playwright::{create_playwright, put_playwright, to_playwright};
use model::document::{
    Input, Sections, Served, clean, create as create_document, create_v1, format_date, parse_date,
    patch, put, serve, serve_v1, stats,
};
use model::id::{RegionId, SessionId, Slot, Version};
use model::time::UnixMillis;

/// Bodies of `POST`: refused, or stored, served and taken again without loss.
pub(crate) fn create(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    if let Ok(input) = create_v1(&body) {
        check(&input);
    }
    let Ok(input) = create_document(&body) else {
        return;
    };
    check(&input);
    let served = serve_sections(&input.sections);
    let again = create_document(&served).expect("what is served is a body");
    assert_eq!(again.sections.checksum(), input.sections.checksum());
    assert_eq!(again.expires, input.expires);
    assert_eq!(again.summary.cookie_count, input.summary.cookie_count);
    assert_eq!(again.summary.domains, input.summary.domains);
    // A second time nothing is left to change.
    let expected = serve_sections(&again.sections);
    let third = create_document(&expected).expect("what is served is a body");
    assert_eq!(serve_sections(&third.sections), expected);
}

/// A body and a change of it, with a byte 0xFF between.
pub(crate) fn change(data: &[u8]) {
    let mut halves = data
        .splitn(2, |byte| *byte == 0xFF)
        .map(Bytes::copy_from_slice);
    let (body, change) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    let Ok(current) = create_document(&body) else {
        return;
    };
    if let Ok(input) = put(&current.sections, &change) {
        check(&input);
        let twice = put(&input.sections, &change).expect("the same change fits again");
        assert_eq!(twice.sections.checksum(), input.sections.checksum());
    }
    if let Ok(input) = patch(&current.sections, &change) {
        check(&input);
        let twice = patch(&input.sections, &change).expect("the same patch fits again");
        assert_eq!(twice.sections, input.sections);
    }
    if let Ok(input) = put_playwright(&current.sections, &change) {
        check(&input);
    }
    // A document that is put in place of itself is itself.
    let same =
        put(&current.sections, &serve_sections(&current.sections)).expect("a document is a body");
    assert_eq!(same.sections.checksum(), current.sections.checksum());
    let (cleaned, report) =
        clean(&current.sections, UnixMillis(1_700_000_000_000)).expect("the cookies were taken");
    check(&cleaned);
    assert_eq!(report.remaining, cleaned.summary.cookie_count);
}

/// Storage states: refused, or equal there and back. Documents: always a state that is taken.
pub(crate) fn playwright(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    if let Ok(input) = create_playwright(&body) {
        check(&input);
        let state = export(&input.sections);
        let again = create_playwright(&state).expect("what came out goes in");
        assert_eq!(export(&again.sections), state);
        assert_eq!(again.sections.checksum(), input.sections.checksum());
        assert_eq!(again.sections, input.sections);
    }
    if let Ok(input) = create_document(&body) {
        let state = export(&input.sections);
        let again = create_playwright(&state).expect("a document becomes a state");
        assert_eq!(export(&again.sections), state);
    }
}

/// Stored bytes: refused as damage, or harmless.
pub(crate) fn stored(data: &[u8]) {
    let Ok(sections) = Sections::decode(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = Sections::decode(&sections.encode().into()).expect("what is encoded is decoded");
    assert_eq!(again, sections);
    let served = served(&sections);
    let _served = (serve(&served), serve_v1(&served));
    let _results = (
        stats(&served, UnixMillis(0)).is_ok(),
        to_playwright(&sections).is_ok(),
        clean(&sections, UnixMillis(0)).is_ok(),
        patch(
            &sections,
            &Bytes::from_static(b"{\"source\":{\"a\":1},\"x\":{}}"),
        )
        .is_ok(),
    );
}

/// Dates: no date, or one that comes back.
pub(crate) fn date(data: &[u8]) {
    if let Some(date) = parse_date(&String::from_utf8_lossy(data)) {
        assert_eq!(parse_date(&format_date(date)), Some(date));
    }
}

fn check(input: &Input) {
    let sections =
        Sections::decode(&input.sections.encode().into()).expect("what is encoded is decoded");
    assert_eq!(sections, input.sections);
    let stats = stats(&served(&sections), UnixMillis(0)).expect("a document has statistics");
    let stats = String::from_utf8(stats).expect("statistics are text");
    assert!(stats.contains("\"checksumValid\":true"));
    let served = serve_v1(&served(&sections));
    create_document(&served.into()).expect("a version 1 answer is a body");
}

fn export(sections: &Sections) -> Bytes {
    to_playwright(sections)
        .expect("a document becomes a state")
        .into()
}

fn serve_sections(sections: &Sections) -> Bytes {
    serve(&served(sections)).into()
}

fn served(sections: &Sections) -> Served<'_> {
    Served {
        id: SessionId::new(
            RegionId::new(1).expect("one is a region"),
            Slot::wrapping(2),
            [7; 16],
        ),
        version: Version {
            epoch: 1,
            revision: 1,
        },
        created: UnixMillis(0),
        updated: UnixMillis(0),
        expires: sections.expires(),
        sections,
    }
}
