//! What is made of a document besides itself: statistics, lines of a list, version 1, stored bytes.

use bytes::Bytes;
use model::document::{Line, Sections, create_v1, serve_v1, stats, write_line};
use model::id::Version;

use crate::api::{CREATED, FULL, UPDATED, bytes, created, document, id, served};

#[test]
fn stats_have_the_numbers_of_both_servers() {
    let input = created(
        r#"{"name":"\ud800","cookies":[{"domain":".x.example","httpOnly":true,"secure":true,"expires":5},{"domain":"x.example","expires":-1},{"httpOnly":false}],
        "origins":[{"localStorage":[{"key":"é","value":"\ud83d\ude00"},{"name":"ab"}]},{"localStorage":{"\n":"xyz"}},{}],"timestamps":{"expires":"2023-11-14T22:13:21Z"}}"#,
    );
    let text = String::from_utf8(stats(&served(&input.sections), UPDATED).unwrap()).unwrap();
    let expected = format!(
        concat!(
            r#"{{"id":"{}","name":"\ud800","cookies":{{"total":3,"httpOnly":1,"secure":1,"sessionCookies":2,"persistentCookies":1,"domains":2}},"#,
            r#""localStorage":{{"origins":3,"totalEntries":3,"totalSize":9}},"domains":["x.example"],"expired":true,"checksumValid":true,"#,
            r#""cookieCount":3,"originCount":3,"domainCount":1,"#
        ),
        id()
    );
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn a_line_of_a_list_has_the_fields_of_both_servers_and_no_value() {
    let input = created(
        r#"{"name":"n","description":"d\u0000","tags":["t","\ud800"],"cookies":[{"name":"a","value":"secret","domain":".x.example"},{"domain":"x.example"},{"domain":"y.example"}],"origins":[{}]}"#,
    );
    let mut out = Vec::new();
    let line = Line {
        id: id(),
        version: Version {
            epoch: 1,
            revision: 7,
        },
        created: CREATED,
        updated: UPDATED,
        expires: Some(UPDATED),
        expired: false,
        size: 42,
        summary: &input.summary,
    };
    write_line(&mut out, &line);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        format!(
            concat!(
                r#"{{"id":"{}","name":"n","description":"d\u0000","tags":["t","{}"],"cookieCount":3,"originCount":1,"domains":["x.example","y.example"],"domainCount":2,"#,
                r#""source":{{"type":"api","captureMethod":"manual"}},"timestamps":{{"created":"2023-11-14T22:13:20.000Z","updated":"2023-11-14T22:13:21.000Z","captured":"2023-11-14T22:13:20.000Z","expires":"2023-11-14T22:13:21.000Z"}},"#,
                r#""created":"2023-11-14T22:13:20.000Z","updated":"2023-11-14T22:13:21.000Z","expired":false,"version":"1.7","size":42}}"#
            ),
            id(),
            char::REPLACEMENT_CHARACTER,
        )
    );
}

#[test]
fn version_1_becomes_version_2_and_shows_through_it() {
    let input = create_v1(&bytes(
        r#"{"name":"old","cookies":[{"name":"a"}],"localStorage":[{"domain":"example.com","data":{"k":"v"}},{"domain":".b.example:8080","data":[{"key":"x","value":"y"}]},{"domain":"http://c"}],
        "userAgent":"UA","viewport":{"width":800,"height":600},"createdAt":"x","more":1}"#,
    ))
    .unwrap();
    let inner = document(&input);
    for part in [
        r#""origins":[{"origin":"https://example.com","localStorage":{"k":"v"}},{"origin":"https://b.example:8080","localStorage":[{"key":"x","value":"y"}]},{"origin":"http://c","localStorage":{}}]"#,
        r#""browserContext":{"userAgent":"UA","viewport":{"width":800,"height":600}}"#,
        r#""more":1"#,
    ] {
        assert!(inner.contains(part), "{part} in {inner}");
    }
    let text = String::from_utf8(serve_v1(&served(&input.sections))).unwrap();
    assert!(
        text.contains(
            r#","localStorage":[{"domain":"example.com","data":{"k":"v"}},{"domain":"b.example:8080","data":{"x":"y"}},{"domain":"c","data":{}}],"userAgent":"UA","viewport":{"width":800,"height":600},"createdAt":"2023-11-14T22:13:20.000Z","updatedAt":"2023-11-14T22:13:21.000Z","checksum":""#
        ),
        "{text}"
    );
    for (body, path) in [
        (r#"{"localStorage":{}}"#, "localStorage"),
        (
            r#"{"localStorage":[{"domain":5}]}"#,
            "localStorage[0].domain",
        ),
        (r#"{"userAgent":5}"#, "userAgent"),
        (r#"{"viewport":{"width":""}}"#, "viewport.width"),
    ] {
        assert_eq!(
            create_v1(&bytes(body)).unwrap_err().path(),
            Some(path),
            "{body}"
        );
    }
    assert_eq!(
        create_v1(&Bytes::new()).unwrap().sections,
        Sections::default()
    );
    let both = create_v1(&bytes(
        r#"{"origins":[{"origin":"https://a"}],"localStorage":[{"domain":"b"}]}"#,
    ))
    .unwrap();
    assert_eq!(both.summary.origin_count, 2);
}

#[test]
fn stored_bytes_that_are_not_ours_are_damage() {
    let good = created(FULL).sections.encode();
    assert!(Sections::decode(&Bytes::new()).is_err());
    for cut in 0..good.len() {
        let error = Sections::decode(&Bytes::copy_from_slice(good.split_at(cut).0)).unwrap_err();
        assert!(!error.is_of_client());
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(Sections::decode(&longer.into()).is_err());
    let mut newer = good;
    newer.iter_mut().take(1).for_each(|format| *format = 2);
    assert!(Sections::decode(&newer.into()).is_err());
}

#[test]
fn the_stored_format_is_the_one_that_was_agreed_on() {
    let input = created(
        r#"{"name":"n","cookies":[{"x":1.0}],"timestamps":{"expires":"1970-01-01T00:00:00.001Z"},"z":1}"#,
    );
    let bytes = hex::encode(input.sections.encode());
    let checksum = hex::encode(input.sections.checksum());
    let summary = "016e0000010000000000";
    assert_eq!(
        bytes,
        format!(
            "01810100000000000000{checksum}0a000000030003000000030b000000220700000{}{}{}{}",
            format_args!("0{summary}"),
            hex::encode("\"n\""),
            hex::encode("[{\"x\":1.0}]"),
            hex::encode("{\"z\":1}")
        )
    );
}
