//! What `POST`, `PUT`, `PATCH` and `clean` make of a document.

use bytes::Bytes;
use model::document::{
    DocumentError, Input, Sections, Served, clean, create, create_v1, format_date, patch, put,
    serve, stats,
};
use model::id::{RegionId, SessionId, Slot, Version};
use model::time::UnixMillis;

pub(crate) const CREATED: UnixMillis = UnixMillis(1_700_000_000_000);
pub(crate) const UPDATED: UnixMillis = UnixMillis(1_700_000_001_000);

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn created(body: &str) -> Input {
    let input = create(&bytes(body)).unwrap();
    let stored = Sections::decode(&input.sections.encode().into()).unwrap();
    assert_eq!(stored, input.sections, "through storage");
    assert_eq!(
        (stored.summary(), stored.expires()),
        (&input.summary, input.expires)
    );
    input
}

pub(crate) fn id() -> SessionId {
    SessionId::new(RegionId::new(1).unwrap(), Slot::wrapping(2), [7; 16])
}

pub(crate) fn served(sections: &Sections) -> Served<'_> {
    Served {
        id: id(),
        version: Version {
            epoch: 1,
            revision: 1,
        },
        created: CREATED,
        updated: UPDATED,
        expires: sections.expires(),
        sections,
    }
}

/// The served document without what is made each time.
pub(crate) fn document(input: &Input) -> String {
    let text = String::from_utf8(serve(&served(&input.sections))).unwrap();
    let head = format!(
        r#"{{"$schema":"https://psp.dev/schema/v2.json","protocolVersion":"2.0.0","id":"{}","#,
        id()
    );
    let text = text.strip_prefix(&head).unwrap();
    let (text, checksum) = text.split_once(",\"checksum\":\"").unwrap();
    assert_eq!(
        checksum,
        format!("{}\"}}", hex::encode(input.sections.checksum()))
    );
    text.replace(
        r#""timestamps":{"created":"2023-11-14T22:13:20.000Z","updated":"2023-11-14T22:13:21.000Z","#,
        r#""timestamps":{"#,
    )
}

const DEFAULTS: &str = r#""name":"Untitled Session","tags":[],"cookies":[],"origins":[],"browserContext":{"userAgent":"","viewport":{"width":1920,"height":1080}},"source":{"type":"api","captureMethod":"manual"},"timestamps":{"captured":"2023-11-14T22:13:20.000Z"}"#;

#[test]
fn an_empty_body_an_array_and_nothing_but_nulls_give_the_defaults() {
    for body in [
        "",
        " \n",
        "[]",
        "[1,{}]",
        "{}",
        "\u{feff}{}",
        r#"{"name":"","tags":null,"cookies":null,"timestamps":null,"source":null}"#,
    ] {
        let input = created(body);
        assert_eq!(document(&input), DEFAULTS, "{body}");
        assert_eq!(
            hex::encode(input.sections.checksum()),
            "dcbfcdab9989eddcd68fdfe131c719283e1960b866b600a3d36d6daff254f32b"
        );
        assert_eq!(input.sections, Sections::default());
    }
}

#[test]
fn a_document_is_served_with_all_that_was_sent_in_a_fixed_order() {
    let input = created(
        r#" { "more" : { "b": 1.0, "a" : "\u0041" }, "encryption":{"algorithm":"aes-256-gcm"}, "id":"mine", "checksum":5,
        "$schema":"x", "timestamps":{"created":"x","captured":"2024-01-01T00:00:00Z","expires":"2030-01-31T12:00:00+02:00","seen":[1]},
        "source":{"type":"chrome","profilePath":"/p"}, "browserContext":{"userAgent":"UA","viewport":null},
        "serviceWorkers":[{"origin":"o"}], "indexedDB":[], "playwright":{}, "origins":[{"origin":"https://a","localStorage":{"k":"v"}}],
        "cookies":[{"name":"a","value":"b","domain":".x.example","expires":1.50,"unknown":null}], "tags":["t"], "description":"d", "name":"n" } "#,
    );
    assert_eq!(
        document(&input),
        concat!(
            r#""name":"n","description":"d","tags":["t"],"#,
            r#""cookies":[{"name":"a","value":"b","domain":".x.example","expires":1.50,"unknown":null}],"#,
            r#""origins":[{"origin":"https://a","localStorage":{"k":"v"}}],"indexedDB":[],"serviceWorkers":[{"origin":"o"}],"#,
            r#""browserContext":{"userAgent":"UA","viewport":null},"source":{"type":"chrome","profilePath":"/p","captureMethod":"manual"},"#,
            r#""timestamps":{"captured":"2024-01-01T00:00:00Z","expires":"2030-01-31T10:00:00.000Z","seen":[1]},"#,
            r#""encryption":{"algorithm":"aes-256-gcm"},"playwright":{},"more":{"b":1.0,"a":"\u0041"}"#
        )
    );
    assert_eq!(
        input.expires.map(format_date).as_deref(),
        Some("2030-01-31T10:00:00.000Z")
    );
    // What was served can be sent back.
    let again = put(
        &Sections::default(),
        &serve(&served(&input.sections)).into(),
    )
    .unwrap();
    assert_eq!(again.sections.checksum(), input.sections.checksum());
}

#[test]
fn wrong_types_are_refused_with_the_path_of_the_field() {
    for (body, path) in [
        (r#""text""#, None),
        ("5", None),
        (r#"{"name":5}"#, Some("name")),
        (r#"{"tags":"a"}"#, Some("tags")),
        (r#"{"tags":["a",null]}"#, Some("tags[1]")),
        (r#"{"cookies":{}}"#, Some("cookies")),
        (
            r#"{"cookies":[{},{},{},{"expires":"soon"}]}"#,
            Some("cookies[3].expires"),
        ),
        (
            r#"{"cookies":[{"name":"a","value":1}]}"#,
            Some("cookies[0].value"),
        ),
        (r#"{"cookies":[{"domain":[]}]}"#, Some("cookies[0].domain")),
        (r#"{"cookies":[null]}"#, Some("cookies[0]")),
        (
            r#"{"origins":[{"localStorage":[{"key":"a","value":{}}]}]}"#,
            Some("origins[0].localStorage[0].value"),
        ),
        (
            r#"{"origins":[{"localStorage":{"private":1}}]}"#,
            Some("origins[0].localStorage{0}"),
        ),
        (
            r#"{"indexedDB":[{"objectStores":[{"records":[1]}]}]}"#,
            Some("indexedDB[0].objectStores[0].records[0]"),
        ),
        (
            r#"{"browserContext":{"viewport":{"width":"wide"}}}"#,
            Some("browserContext.viewport.width"),
        ),
        (r#"{"source":"chrome"}"#, Some("source")),
        (
            r#"{"timestamps":{"expires":5}}"#,
            Some("timestamps.expires"),
        ),
        (
            r#"{"timestamps":{"expires":"soon"}}"#,
            Some("timestamps.expires"),
        ),
        (r#"{"timestamps":[]}"#, Some("timestamps")),
        (r#"{"playwright":"x"}"#, Some("playwright")),
    ] {
        for result in [
            create(&bytes(body)),
            put(&Sections::default(), &bytes(body)),
            create_v1(&bytes(body)),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.path(), path, "{body}: {error}");
            assert!(error.is_of_client());
            assert!(!error.to_string().contains("soon") && !error.to_string().contains("private"));
        }
    }
}

#[test]
fn malformed_json_is_refused_with_the_place() {
    for (body, offset, line, column) in [
        ("{", 1, 1, 2),
        ("{\"a\":1,}", 7, 1, 8),
        ("{\"a\"\n:\n  x}", 9, 3, 3),
        ("{\"é\":01}", 6, 1, 6),
        ("{} x", 3, 1, 4),
        ("[1,]", 3, 1, 4),
        ("[1 2]", 3, 1, 4),
        ("{\"a\":\"\u{1}\"}", 6, 1, 7),
        ("{\"a\":\"\\x\"}", 6, 1, 7),
        ("{\"a\":\"\\u12\"}", 6, 1, 7),
        ("{\"a\":\"b", 7, 1, 8),
        ("{a:1}", 1, 1, 2),
        ("nul", 0, 1, 1),
        ("[truE]", 1, 1, 2),
    ] {
        for result in [
            create(&bytes(body)),
            patch(&Sections::default(), &bytes(body)),
        ] {
            match result.unwrap_err() {
                DocumentError::Malformed {
                    offset: o,
                    line: l,
                    column: c,
                    ..
                } => {
                    assert_eq!((o, l, c), (offset, line, column), "{body}");
                }
                // A patch is first of all an object.
                DocumentError::WrongType { .. } if !body.starts_with('{') => {}
                other => panic!("{body}: {other:?}"),
            }
        }
    }
    let broken = Bytes::from_static(b"{\"a\":\"\xFF\"}");
    assert_eq!(
        create(&broken),
        Err(DocumentError::InvalidUtf8 { offset: 6 })
    );
}

pub(crate) const FULL: &str = r#"{"name":"n","description":"d","tags":["t"],"cookies":[{"name":"a","value":"b","domain":"x"}],"origins":[{"origin":"https://x"}],"indexedDB":[{"name":"db"}],"source":{"type":"chrome","captureMethod":"cdp"},"timestamps":{"captured":"2024-01-01T00:00:00.000Z","expires":"2030-01-01T00:00:00.000Z","seen":1},"more":{"x":1},"other":2}"#;

#[test]
fn put_replaces_what_is_there_and_not_null() {
    let full = created(FULL);
    for nothing in [
        "",
        "[]",
        "{}",
        r#"{"name":null,"cookies":null,"more":null,"timestamps":{"expires":null}}"#,
    ] {
        let same = put(&full.sections, &bytes(nothing)).unwrap();
        assert_eq!(same, full, "{nothing}");
    }
    let changed = put(
        &full.sections,
        &bytes(
            r#"{"name":"","tags":[],"cookies":[],"source":{"type":"mcp"},"more":{"y":null},"new":[1],"encryption":{"salt":"s"},"timestamps":{"expires":"2031","captured":"2025","seen":2}}"#,
        ),
    )
    .unwrap();
    assert_eq!(
        document(&changed),
        concat!(
            r#""name":"","description":"d","tags":[],"cookies":[],"origins":[{"origin":"https://x"}],"indexedDB":[{"name":"db"}],"#,
            r#""browserContext":{"userAgent":"","viewport":{"width":1920,"height":1080}},"source":{"type":"chrome","captureMethod":"cdp"},"#,
            r#""timestamps":{"captured":"2024-01-01T00:00:00.000Z","expires":"2031-01-01T00:00:00.000Z","seen":2},"encryption":{"salt":"s"},"#,
            r#""more":{"y":null},"other":2,"new":[1]"#
        )
    );
    let summary = &changed.summary;
    assert_eq!(
        (
            summary.cookie_count,
            summary.origin_count,
            summary.domain_count
        ),
        (0, 1, 0)
    );
    // The same checksum as if it had been made so.
    let made = created(r#"{"origins":[{"origin":"https://x"}],"indexedDB":[{"name":"db"}]}"#);
    assert_eq!(changed.sections.checksum(), made.sections.checksum());
}

#[test]
fn patch_merges_the_whole_document() {
    let full = created(FULL);
    let same = r#"{"id":"x","checksum":null,"$schema":5,"protocolVersion":{},"timestamps":{"created":"x","updated":null}}"#;
    assert_eq!(patch(&full.sections, &bytes(same)).unwrap(), full);
    let changed = patch(
        &full.sections,
        &bytes(
            r#"{ "name" : null, "description":null, "indexedDB":null, "cookies":[ {"name":"c","value":null} ], "source":{"captureMethod":null,"type":"edge"},
            "browserContext":{"viewport":{"width":800},"locale":"de","geolocation":null}, "more":{"x":null,"y":{"z":null}}, "other":null, "new":{"n":null},
            "timestamps":{"expires":null,"seen":null} }"#,
        ),
    )
    .unwrap();
    assert_eq!(
        document(&changed),
        concat!(
            r#""name":"Untitled Session","tags":["t"],"cookies":[{"name":"c","value":null}],"origins":[{"origin":"https://x"}],"#,
            r#""browserContext":{"userAgent":"","viewport":{"width":800,"height":1080},"locale":"de"},"source":{"type":"edge","captureMethod":"manual"},"#,
            r#""timestamps":{"captured":"2024-01-01T00:00:00.000Z"},"more":{"y":{}},"new":{}"#
        )
    );
    assert_eq!(changed.expires, None);
    let cleared = patch(
        &full.sections,
        &bytes(r#"{"timestamps":null,"source":null,"tags":null}"#),
    )
    .unwrap();
    assert!(document(&cleared).contains(r#""timestamps":{"captured":"2023-11-14T22:13:20.000Z"}"#));
    assert!(document(&cleared).contains(r#""source":{"type":"api","captureMethod":"manual"}"#));
}

#[test]
fn a_patch_is_an_object_and_its_result_is_checked() {
    let full = created(FULL);
    for (body, path) in [
        ("[]", None),
        ("null", None),
        (r#"{"cookies":{"0":{}}}"#, Some("cookies")),
        (
            r#"{"browserContext":{"viewport":{"width":{}}}}"#,
            Some("browserContext.viewport.width"),
        ),
        (
            r#"{"timestamps":{"expires":true}}"#,
            Some("timestamps.expires"),
        ),
        (r#"{"timestamps":5}"#, Some("timestamps")),
    ] {
        let error = patch(&full.sections, &bytes(body)).unwrap_err();
        assert_eq!(error.path(), path, "{body}: {error}");
    }
    assert!(patch(&full.sections, &Bytes::new()).is_err());
}

#[test]
fn what_the_client_has_encrypted_may_have_any_type() {
    let sealed =
        r#"{"cookies":"c2VhbGVk","origins":[],"encryption":{"encryptedFields":["cookies"]}}"#;
    let input = created(sealed);
    assert!(document(&input).contains(r#""cookies":"c2VhbGVk""#));
    let (cleaned, report) = clean(&input.sections, UPDATED).unwrap();
    assert_eq!(
        (cleaned.sections, report.removed),
        (input.sections.clone(), 0)
    );
    stats(&served(&input.sections), UPDATED).unwrap();
    assert!(put(&input.sections, &bytes(r#"{"cookies":"b3RoZXI="}"#)).is_ok());
    assert!(put(&input.sections, &bytes(r#"{"origins":"b3RoZXI="}"#)).is_err());
    assert!(
        create(&bytes(
            r#"{"cookies":"c2VhbGVk","encryption":{"encryptedFields":["cookie"]}}"#
        ))
        .is_err()
    );
}

#[test]
fn clean_drops_what_has_expired_and_keeps_the_rest_as_it_stands() {
    let input = created(
        r#"{"cookies":[{"name":"session"},{"name":"minus","expires":-1},{"name":"zero","expires":0},{"name":"null","expires":null},
        {"name":"past","expires":1700000000.999},{"name":"now","expires":1700000001},{"name":"odd","expires":-2},{"name":"next","expires":1700000001.0010,"x":1.0}]}"#,
    );
    let (cleaned, report) = clean(&input.sections, UPDATED).unwrap();
    assert_eq!((report.removed, report.remaining), (3, 5));
    assert!(document(&cleaned).contains(
        r#""cookies":[{"name":"session"},{"name":"minus","expires":-1},{"name":"zero","expires":0},{"name":"null","expires":null},{"name":"next","expires":1700000001.0010,"x":1.0}]"#
    ));
    assert_eq!(cleaned.summary.cookie_count, 5);
    let (again, report) = clean(&cleaned.sections, UPDATED).unwrap();
    assert_eq!((report.removed, report.remaining), (0, 5));
    assert_eq!(again, cleaned);
}
