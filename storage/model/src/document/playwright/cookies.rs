//! One cookie, both ways.
//!
//! The protocol's cookie has the fields it knows, as they were; the rest is noted. On the way back a cookie is completed
//! to what Playwright takes, unless it came from Playwright incomplete.

use std::borrow::Cow;

use super::super::error::DocumentError;
use super::super::field::COOKIE;
use super::super::members::members;
use super::super::number;
use super::super::text::Text;
use super::super::tokenizer::Reader;
use super::notes::{COOKIE_IDENTITY, Members, Note, field, text_field};
use super::storage::push_members;

/// The latest expiry that Playwright takes: the end of the year 9999, in seconds.
const MAX_EXPIRES: &str = "253402300799";

/// A cookie of the protocol, and what is noted of it.
pub(super) struct Imported<'a> {
    pub(super) cookie: Members<'a>,
    /// The fields by which the note finds its cookie.
    pub(super) identity: Members<'a>,
    pub(super) note: Note<'a>,
}

/// Takes a cookie of Playwright apart.
pub(super) fn import_cookie(original: &[u8]) -> Result<Imported<'_>, DocumentError> {
    let all = members(original)?;
    let known = |key: &Text<'_>| COOKIE.iter().any(|(name, _)| key.is(name));
    let (cookie, extra): (Members<'_>, Members<'_>) = all.iter().partition(|(key, _)| known(key));
    let identity = cookie.iter().copied();
    let identity = identity
        .filter(|(key, _)| COOKIE_IDENTITY.iter().any(|name| key.is(name)))
        .collect();
    let mut note = Note {
        extra,
        ..Note::default()
    };
    // Each step says more; the last one says everything.
    if !comes_back(&cookie, &note, &all) {
        note.as_is = true;
        if !comes_back(&cookie, &note, &all) {
            note.order = Some(all.iter().map(|(key, _)| *key).collect());
            note.as_is = false;
            note.as_is = !comes_back(&cookie, &note, &all);
        }
    }
    Ok(Imported {
        cookie,
        identity,
        note,
    })
}

/// Appends a cookie of the protocol as one of Playwright. `false`, and nothing, for one that Playwright would refuse.
pub(super) fn export_cookie(cookie: Members<'_>, note: &Note<'_>, out: &mut Vec<u8>) -> bool {
    match exported(cookie, note) {
        Some(exported) => {
            push_members(&exported, out);
            true
        }
        None => false,
    }
}

fn comes_back(cookie: &Members<'_>, note: &Note<'_>, original: &Members<'_>) -> bool {
    exported(cookie.clone(), note).is_some_and(|back| back == *original)
}

fn exported<'a>(mut cookie: Members<'a>, note: &Note<'a>) -> Option<Members<'a>> {
    if !note.as_is {
        cookie = completed(cookie)?;
    }
    note.complete(&mut cookie);
    Some(cookie)
}

/// The cookie with all that Playwright wants; `None` when that cannot be made up.
fn completed(mut cookie: Members<'_>) -> Option<Members<'_>> {
    text_field(&cookie, "name")?;
    let has_domain = text_field(&cookie, "domain").is_some();
    // Playwright wants either a URL or a domain with a path.
    let by_url = !has_domain && text_field(&cookie, "url").is_some();
    if !has_domain && !by_url {
        return None;
    }
    unpack_partition(&mut cookie);
    cookie.retain(|(key, value)| {
        let useless = key.is("partitionKey") && *value == b"null";
        let either = if by_url {
            key.is("domain") || key.is("path")
        } else {
            key.is("url")
        };
        !useless && !either
    });
    set_default(&mut cookie, "value", b"\"\"");
    if !by_url {
        set_default(&mut cookie, "path", b"\"/\"");
    }
    let expires = field(&cookie, "expires").map_or("-1", |expires| match number_of(expires) {
        None => "-1",
        Some(seconds) if seconds < 0.0 && seconds != -1.0 => "-1",
        Some(seconds) if seconds > number::value(MAX_EXPIRES.as_bytes()) => MAX_EXPIRES,
        Some(_) => "",
    });
    if !expires.is_empty() {
        set(&mut cookie, "expires", expires.as_bytes());
    }
    set_default(&mut cookie, "httpOnly", b"false");
    set_default(&mut cookie, "secure", b"false");
    let same_site = same_site(field(&cookie, "sameSite"));
    set(&mut cookie, "sameSite", same_site);
    Some(cookie)
}

/// The DevTools protocol's partition key is an object of what Playwright has in two fields.
fn unpack_partition(cookie: &mut Members<'_>) {
    let Some(partition) = field(cookie, "partitionKey").filter(|key| key.starts_with(b"{")) else {
        return;
    };
    let partition = members(partition).unwrap_or_default();
    match text_field(&partition, "topLevelSite") {
        Some(site) => set(cookie, "partitionKey", site),
        None => cookie.retain(|(key, _)| !key.is("partitionKey")),
    }
    if let Some(ancestor @ (b"true" | b"false")) = field(&partition, "hasCrossSiteAncestor") {
        set_default(cookie, "_crHasCrossSiteAncestor", ancestor);
    }
}

/// Playwright knows three words; other clients spell them differently, or have other words for them.
fn same_site(sent: Option<&[u8]>) -> &'static [u8] {
    let text = sent
        .filter(|sent| sent.starts_with(b"\""))
        .and_then(|sent| Reader::again(sent, "").text().ok());
    let text = text.map_or(Cow::Borrowed(""), Text::lossy);
    if text.eq_ignore_ascii_case("strict") {
        b"\"Strict\""
    } else if text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("no_restriction") {
        b"\"None\""
    } else {
        b"\"Lax\""
    }
}

fn number_of(value: &[u8]) -> Option<f64> {
    let first = value.first()?;
    (*first == b'-' || first.is_ascii_digit()).then(|| number::value(value))
}

fn set_default<'a>(members: &mut Members<'a>, name: &'static str, value: &'a [u8]) {
    if field(members, name).is_none_or(|value| value == b"null") {
        set(members, name, value);
    }
}

/// Gives a member a value, in its place or at the end.
fn set<'a>(members: &mut Members<'a>, name: &'static str, value: &'a [u8]) {
    match members.iter_mut().find(|(key, _)| key.is(name)) {
        Some(member) => member.1 = value,
        None => members.push((Text::new(name.as_bytes(), false), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::notes::Note;
    use super::{export_cookie, import_cookie};
    use crate::document::members::members;

    fn exported(cookie: &str) -> Option<String> {
        let mut out = Vec::new();
        export_cookie(
            members(cookie.as_bytes()).unwrap(),
            &Note::default(),
            &mut out,
        )
        .then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_cookie_of_another_client_is_completed() {
        assert_eq!(
            exported(r#"{"name":"a","value":"b","domain":"example.com"}"#).unwrap(),
            r#"{"name":"a","value":"b","domain":"example.com","path":"/","expires":-1,"httpOnly":false,"secure":false,"sameSite":"Lax"}"#
        );
        assert_eq!(
            exported(
                r#"{"domain":"x","name":"a","path":null,"expires":99999999999999,"sameSite":"no_restriction","secure":true,"httpOnly":true,"priority":"High","url":"https://x/","partitionKey":{"topLevelSite":"https://y","hasCrossSiteAncestor":true}}"#
            )
            .unwrap(),
            r#"{"domain":"x","name":"a","path":"/","expires":253402300799,"sameSite":"None","secure":true,"httpOnly":true,"priority":"High","partitionKey":"https://y","_crHasCrossSiteAncestor":true,"value":""}"#
        );
    }

    #[test]
    fn a_cookie_that_playwright_would_refuse_is_left_out() {
        assert_eq!(exported(r#"{"name":"a","value":"b"}"#), None);
        assert_eq!(exported(r#"{"value":"b","domain":"x"}"#), None);
        assert!(
            exported(r#"{"name":"a","value":"b","url":"https://x/","path":"/p"}"#)
                .unwrap()
                .contains("url")
        );
    }

    #[test]
    fn a_note_says_no_more_than_it_must() {
        let note = |cookie: &str| {
            let mut out = Vec::new();
            import_cookie(cookie.as_bytes())
                .unwrap()
                .note
                .write_members(&mut out);
            String::from_utf8(out).unwrap()
        };
        let usual = r#""name":"a","value":"b","domain":"x","path":"/","expires":-1,"httpOnly":false,"secure":false,"sameSite":"Lax""#;
        assert_eq!(note(&format!("{{{usual}}}")), "");
        assert_eq!(
            note(&format!("{{{usual},\"more\":1}}")),
            r#"{"extra":{"more":1}"#
        );
        assert_eq!(note(r#"{"name":"a"}"#), r#"{"asIs":true"#);
        assert!(note(&format!("{{\"more\":1,{usual}}}")).contains("order"));
        assert!(!note(&format!("{{\"more\":1,{usual}}}")).contains("asIs"));
        assert!(note(r#"{"more":1,"name":"a"}"#).contains("asIs"));
    }
}
