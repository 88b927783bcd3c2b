//! Documents of the largest size, and hostile ones: taken or refused in bounded time and memory.

use std::fmt::Write as _;

use bytes::Bytes;
use model::document::{DocumentError, Input, create, put};
use model::limits::{MAX_DEPTH, MAX_DOCUMENT_BYTES};

fn body(text: String) -> Bytes {
    Bytes::from(text.into_bytes())
}

fn created(text: String) -> Input {
    create(&body(text)).unwrap()
}

/// Cookies and storage as browsers have them, up to `bytes`.
fn realistic(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes);
    text.push_str("{\"name\":\"large\",\"cookies\":[");
    let mut number = 0;
    while text.len() < bytes / 2 {
        let comma = if number == 0 { "" } else { "," };
        write!(
            text,
            "{comma}{{\"name\":\"cookie{number}\",\"value\":\"dGhpcyBpcyBub3QgYSByZWFsIHRva2VuIGJ1dCBsb29rcyBsaWtlIG9uZQ==\",\
             \"domain\":\".site{}.example\",\"path\":\"/\",\"expires\":1795448396.{:06},\"httpOnly\":true,\
             \"secure\":true,\"sameSite\":\"Lax\"}}",
            number % 1000,
            number % 1_000_000,
        )
        .unwrap();
        number += 1;
    }
    text.push_str("],\"origins\":[{\"origin\":\"https://example.com\",\"localStorage\":[");
    number = 0;
    while text.len() < bytes - 2000 {
        let comma = if number == 0 { "" } else { "," };
        write!(
            text,
            "{comma}{{\"key\":\"entry {number}\",\"value\":\"{{\\\"a\\\":{number}}} {}\"}}",
            "v".repeat(900)
        )
        .unwrap();
        number += 1;
    }
    text.push_str("]}]}");
    text
}

#[test]
fn a_document_of_the_largest_size_is_taken_and_a_larger_one_is_not() {
    let text = realistic(MAX_DOCUMENT_BYTES);
    assert!(text.len() <= MAX_DOCUMENT_BYTES && text.len() > MAX_DOCUMENT_BYTES - 4000);
    let input = created(text.clone());
    assert_eq!(input.summary.domain_count, 1000);
    let renamed = put(
        &input.sections,
        &Bytes::from_static(b"{\"name\":\"small change\"}"),
    )
    .unwrap();
    assert_eq!(renamed.sections.checksum(), input.sections.checksum());
    let padding = " ".repeat(MAX_DOCUMENT_BYTES + 1 - text.len());
    assert_eq!(
        create(&body(text + &padding)),
        Err(DocumentError::TooLarge {
            limit: MAX_DOCUMENT_BYTES
        })
    );
}

#[test]
fn ten_megabytes_of_keys_are_taken() {
    let mut text = "{\"keys\":{".to_owned();
    for number in 0..1_000_000 {
        write!(text, "\"k{number}\":0,").unwrap();
    }
    text.push_str("\"last\":0},\"cookies\":[{");
    for number in (0..500_000).rev() {
        write!(text, "\"{number}\":0,").unwrap();
    }
    text.push_str("\"0\":1}]");
    for number in 0..100_000 {
        write!(text, ",\"top{number}\":0").unwrap();
    }
    text.push('}');
    created(text);
}

#[test]
fn nesting_is_taken_to_the_limit_and_refused_beyond_it() {
    let nested = |depth: usize| {
        format!(
            "{{\"deep\":{}{}}}",
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    created(nested(MAX_DEPTH));
    for depth in [MAX_DEPTH + 1, 1000, 1_000_000] {
        match create(&body(nested(depth))) {
            Err(DocumentError::TooDeep { offset, limit, .. }) => {
                assert_eq!((offset, limit), (MAX_DEPTH + 7, MAX_DEPTH));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn objects_that_must_all_be_rearranged_are_taken() {
    let depth = 100;
    let nested = "{\"b\":0,\"1\":".repeat(depth);
    let payload = "x".repeat(1_000_000);
    let text = format!(
        "{{\"cookies\":[{nested}\"{payload}\"{}]}}",
        "}".repeat(depth)
    );
    created(text);
}
