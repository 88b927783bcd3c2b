//! The query of a request: names and values, percent-decoded.
//!
//! Guarantees: of a repeated name the first counts; names that we do not know are ignored, as the reference server
//! does; what is not UTF-8 after decoding, or has a broken escape, is an error and not guessed at.

use std::borrow::Cow;

/// Most parameters of one request.
pub const MAX_PARAMETERS: usize = 64;

/// A query that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// A percent sign without two hexadecimal digits after it.
    #[error("a percent escape is broken")]
    Escape,
    /// Not UTF-8 after decoding.
    #[error("a value is not UTF-8")]
    Utf8,
    /// More than [`MAX_PARAMETERS`].
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooMany,
}

/// Names and values, in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what stands after the question mark.
    ///
    /// # Errors
    /// See [`BadQuery`].
    pub fn parse(text: &'a str) -> Result<Self, BadQuery> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(BadQuery::TooMany);
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name, Plus::IsSpace)?, decode(value, Plus::IsSpace)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(other, _)| other == name);
        pair.map(|(_, value)| value.as_ref())
    }
}

/// What a plus sign stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// A space, in queries.
    IsSpace,
    /// Itself, in paths.
    IsPlus,
}

/// Undoes percent escapes.
///
/// # Errors
/// [`BadQuery::Escape`], [`BadQuery::Utf8`].
pub fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, BadQuery> {
    let special = |byte: u8| byte == b'%' || (byte == b'+' && plus == Plus::IsSpace);
    if !text.bytes().any(special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' if plus == Plus::IsSpace => b' ',
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.and_then(hex_digit));
                let [Some(high), Some(low)] = digits else {
                    return Err(BadQuery::Escape);
                };
                (high << 4) | low
            }
            other => other,
        });
    }
    let text = String::from_utf8(out).map_err(|_not_utf8| BadQuery::Utf8)?;
    Ok(Cow::Owned(text))
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_counts_and_escapes_are_undone() {
        let query = Query::parse("tag=a%20b+c&tag=x&&limit&n%61me=%C3%A9").expect("reads");
        assert_eq!(query.get("tag"), Some("a b c"));
        assert_eq!(query.get("limit"), Some(""));
        assert_eq!(query.get("name"), Some("\u{e9}"));
        assert_eq!(query.get("offset"), None);
    }

    #[test]
    fn broken_escapes_and_wrong_bytes_are_refused() {
        assert_eq!(Query::parse("a=%"), Err(BadQuery::Escape));
        assert_eq!(Query::parse("a=%4"), Err(BadQuery::Escape));
        assert_eq!(Query::parse("a=%zz"), Err(BadQuery::Escape));
        assert_eq!(Query::parse("a=%ff"), Err(BadQuery::Utf8));
        assert_eq!(
            Query::parse(&"a&".repeat(MAX_PARAMETERS + 1)),
            Err(BadQuery::TooMany)
        );
    }
}
