//! Laying the members of one object over those of another: JSON merge patch (RFC 7396), and the shallow rule of `PUT`.
//!
//! Works on text: what is kept is copied as it stands. A key that an object has twice counts once, at its first place
//! with its last value, as for JavaScript. Recursion is bounded by the depth of documents.

use std::collections::BTreeMap;

use super::error::DocumentError;
use super::text::Text;
use super::token::Kind;
use super::tokenizer::Reader;

/// How members are laid over others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A value that is not null replaces; null changes nothing.
    Replace,
    /// RFC 7396: objects are merged, null removes.
    Merge,
}

/// The members of an object text, each key once; none for another value.
///
/// # Errors
/// When the text is not JSON.
pub(super) fn members(object: &[u8]) -> Result<Vec<(Text<'_>, &[u8])>, DocumentError> {
    let mut reader = Reader::again(object, "");
    let mut members: Vec<(Text<'_>, &[u8])> = Vec::new();
    if object.is_empty() || reader.kind()? != Kind::Object {
        return Ok(members);
    }
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        members.push((key, reader.capture()?.text));
    }
    // The reader has seen whether there can be a key that is there twice.
    if reader.marks().odd {
        let mut places = BTreeMap::new();
        let mut kept: Vec<(Text<'_>, &[u8])> = Vec::new();
        for (key, value) in members {
            let place = *places.entry(key.content()).or_insert(kept.len());
            match kept.get_mut(place) {
                Some(first) => first.1 = value,
                None => kept.push((key, value)),
            }
        }
        members = kept;
    }
    Ok(members)
}

/// The object that `over` makes of `under`, without whitespace if both have none. Both are objects, or empty.
///
/// # Errors
/// When a text is not JSON.
pub(super) fn lay_over(under: &[u8], over: &[u8], rule: Rule) -> Result<Vec<u8>, DocumentError> {
    let mut out = Vec::with_capacity(under.len().saturating_add(over.len()));
    push_laid_over(&mut out, under, over, rule)?;
    Ok(out)
}

fn push_laid_over(
    out: &mut Vec<u8>,
    under: &[u8],
    over: &[u8],
    rule: Rule,
) -> Result<(), DocumentError> {
    let mut changes = BTreeMap::new();
    let over = members(over)?;
    for (key, value) in &over {
        changes.insert(key.content(), *value);
    }
    let mut separator = b'{';
    let mut push = |out: &mut Vec<u8>, key| {
        out.push(std::mem::replace(&mut separator, b','));
        push_key(out, key);
    };
    for (key, old) in members(under)? {
        match changes.remove(&key.content()) {
            Some(b"null") if rule == Rule::Merge => {}
            Some(b"null") | None => {
                push(out, key);
                out.extend_from_slice(old);
            }
            Some(new) => {
                push(out, key);
                push_value(out, old, new, rule)?;
            }
        }
    }
    for (key, value) in over {
        if value != b"null" && changes.contains_key(&key.content()) {
            push(out, key);
            push_value(out, b"", value, rule)?;
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn push_value(out: &mut Vec<u8>, old: &[u8], new: &[u8], rule: Rule) -> Result<(), DocumentError> {
    if rule == Rule::Merge && new.starts_with(b"{") {
        return push_laid_over(out, old, new, rule);
    }
    out.extend_from_slice(new);
    Ok(())
}

/// Appends a key as it was sent, and a colon.
pub(super) fn push_key(out: &mut Vec<u8>, key: Text<'_>) {
    out.push(b'"');
    out.extend_from_slice(key.raw());
    out.extend_from_slice(b"\":");
}

/// Appends what stands before the next member of an object that is being made: a brace or a comma.
pub(super) fn begin_member(object: &mut Vec<u8>) {
    object.push(if object.is_empty() { b'{' } else { b',' });
}

/// Closes an object that was begun; one without members stays empty text.
pub(super) fn end_object(object: &mut Vec<u8>) {
    if !object.is_empty() {
        object.push(b'}');
    }
}

/// The members of an object's text without the braces, if it has any.
pub(super) fn inner(object: &[u8]) -> Option<&[u8]> {
    object
        .strip_prefix(b"{")?
        .strip_suffix(b"}")
        .filter(|members| !members.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Rule, lay_over};

    fn laid(under: &str, over: &str, rule: Rule) -> String {
        String::from_utf8(lay_over(under.as_bytes(), over.as_bytes(), rule).unwrap()).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_7396_come_out_as_it_says() {
        for (under, over, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"["c"]"#, r#"{"a":"b","b":null}"#, r#"{"a":"b"}"#),
            ("", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(laid(under, over, Rule::Merge), result, "{under} and {over}");
        }
    }

    #[test]
    fn null_changes_nothing_in_a_replacement() {
        assert_eq!(
            laid(
                r#"{"a":{"x":1},"b":2}"#,
                r#"{"b":null,"a":{"y":null},"c":3}"#,
                Rule::Replace
            ),
            r#"{"a":{"y":null},"b":2,"c":3}"#
        );
    }

    #[test]
    fn equal_keys_meet_however_they_are_written() {
        assert_eq!(
            laid(r#"{"\u0061":1,"b":2,"a":3}"#, r#"{"a":4}"#, Rule::Merge),
            r#"{"\u0061":4,"b":2}"#
        );
        assert_eq!(
            laid(r#"{"\u0061":1,"a":3}"#, r#"{"b":4}"#, Rule::Merge),
            r#"{"\u0061":3,"b":4}"#
        );
    }
}
