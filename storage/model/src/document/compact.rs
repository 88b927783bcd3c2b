//! Taking a value out of a body: as a slice where possible, without its whitespace where there is some.

use bytes::Bytes;

use super::scan::{is_space, plain_prefix};
use super::sections::Part;
use super::token::Raw;

/// The value as a part: shares the body's bytes if there is nothing to leave out.
pub(super) fn part(body: &Bytes, raw: Raw<'_>) -> Part {
    let text = if raw.marks.spaces {
        let mut text = Vec::with_capacity(raw.text.len());
        push_compact(&mut text, raw.text);
        text.into()
    } else {
        body.slice_ref(raw.text)
    };
    Part {
        text,
        odd: raw.marks.odd,
    }
}

/// Appends a value without whitespace between its tokens.
pub(super) fn push_raw(out: &mut Vec<u8>, raw: Raw<'_>) {
    if raw.marks.spaces {
        push_compact(out, raw.text);
    } else {
        out.extend_from_slice(raw.text);
    }
}

/// Appends an accepted JSON text without whitespace between its tokens.
fn push_compact(out: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json;
    while !rest.is_empty() {
        // Outside of strings: up to the next quote.
        let outside = rest
            .iter()
            .position(|byte| *byte == b'"')
            .unwrap_or(rest.len());
        let (tokens, string) = rest.split_at_checked(outside).unwrap_or((rest, &[]));
        out.extend(tokens.iter().copied().filter(|byte| !is_space(*byte)));
        let length = string_length(string);
        let (string, after) = string.split_at_checked(length).unwrap_or((string, &[]));
        out.extend_from_slice(string);
        rest = after;
    }
}

/// Length of the string at the start of `input`, with both quotes; zero when there is none.
fn string_length(input: &[u8]) -> usize {
    let mut length = usize::from(!input.is_empty());
    while let Some(rest) = input.get(length..) {
        length = length.saturating_add(plain_prefix(rest));
        match input.get(length) {
            // A backslash and what it escapes; the digits of `\u` stand for themselves.
            Some(b'\\') => length = length.saturating_add(2),
            Some(_) => return length.saturating_add(1),
            None => break,
        }
    }
    input.len()
}

#[cfg(test)]
mod tests {
    use super::push_compact;

    #[test]
    fn whitespace_goes_and_strings_stay() {
        let mut out = Vec::new();
        push_compact(
            &mut out,
            b" { \"a \\\" b\" : [ 1 ,\n\t\"\\\\\" , \"\\u0020 \" ] }\r\n",
        );
        assert_eq!(out, br#"{"a \" b":[1,"\\","\u0020 "]}"#);
    }
}
