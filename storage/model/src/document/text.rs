//! The inside of a JSON string: what it means, how long it is for JavaScript, and how `JSON.stringify` would write it.
//!
//! A string may hold lone surrogates, as JavaScript's can. Its content is therefore compared and ordered as WTF-8 (UTF-8
//! in which a lone surrogate takes the three bytes it would have), and becomes a Rust `str` only with loss.

use std::borrow::Cow;
use std::fmt;

use super::scan::plain_prefix;

/// The bytes between the quotes of a JSON string that the tokenizer has accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl fmt::Debug for Text<'_> {
    /// The length only: the content is the client's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.raw.len())
    }
}

impl<'a> Text<'a> {
    /// The inside of a string, and whether a backslash is in it.
    pub(super) const fn new(raw: &'a [u8], escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The bytes between the quotes, as sent.
    pub(super) const fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Whether the string was sent with an escape in it.
    pub(super) const fn is_escaped(self) -> bool {
        self.escaped
    }

    /// Whether the string is this one.
    pub(super) fn is(self, expected: &str) -> bool {
        if self.escaped {
            *self.content() == *expected.as_bytes()
        } else {
            self.raw == expected.as_bytes()
        }
    }

    /// The content in WTF-8.
    pub(super) fn content(self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut content = Vec::with_capacity(self.raw.len());
        for part in self.parts() {
            match part {
                Part::Plain(bytes) => content.extend_from_slice(bytes),
                Part::Char(char) => push_char(&mut content, char),
                Part::Surrogate(unit) => push_surrogate(&mut content, unit),
            }
        }
        Cow::Owned(content)
    }

    /// The content, a lone surrogate replaced by U+FFFD.
    pub(super) fn lossy(self) -> Cow<'a, str> {
        if !self.escaped {
            return String::from_utf8_lossy(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        for part in self.parts() {
            match part {
                Part::Plain(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
                Part::Char(char) => text.push(char),
                Part::Surrogate(_) => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Cow::Owned(text)
    }

    /// JavaScript's `length`: UTF-16 units of the content.
    pub(super) fn units(self) -> u64 {
        self.parts()
            .map(|part| match part {
                Part::Plain(bytes) => utf16_units(bytes),
                Part::Char(char) => char.len_utf16() as u64,
                Part::Surrogate(_) => 1,
            })
            .fold(0, u64::saturating_add)
    }

    /// Writes the string, with its quotes, as `JSON.stringify` would.
    pub(super) fn write_canonical(self, out: &mut Vec<u8>) {
        out.push(b'"');
        if self.escaped {
            for part in self.parts() {
                match part {
                    Part::Plain(bytes) => out.extend_from_slice(bytes),
                    Part::Char(char) => push_escaped(out, char),
                    Part::Surrogate(unit) => push_unit(out, unit),
                }
            }
        } else {
            out.extend_from_slice(self.raw);
        }
        out.push(b'"');
    }

    fn parts(self) -> Parts<'a> {
        Parts { rest: self.raw }
    }
}

/// Writes a Rust string as a JSON string, as `JSON.stringify` would.
pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, after) = rest.split_at(plain_prefix(rest.as_bytes()));
        out.extend_from_slice(plain.as_bytes());
        let mut chars = after.chars();
        if let Some(char) = chars.next() {
            push_escaped(out, char);
        }
        rest = chars.as_str();
    }
    out.push(b'"');
}

/// What one escape means, and how many bytes it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    pub(super) meaning: Meaning,
    /// Bytes from its backslash to its end; twelve for a pair of surrogates.
    pub(super) length: usize,
    /// Whether `JSON.stringify` would write it so.
    pub(super) canonical: bool,
}

/// A character, or a surrogate without its other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Char(char),
    Surrogate(u16),
}

/// Reads the escape at the start of `input`. `None` when none of JSON's begins there.
pub(super) fn read_escape(input: &[u8]) -> Option<Escape> {
    let short = |char, canonical| {
        Some(Escape {
            meaning: Meaning::Char(char),
            length: 2,
            canonical,
        })
    };
    match input.strip_prefix(b"\\")?.first()? {
        b'"' => short('"', true),
        b'\\' => short('\\', true),
        b'/' => short('/', false),
        b'b' => short('\u{8}', true),
        b'f' => short('\u{c}', true),
        b'n' => short('\n', true),
        b'r' => short('\r', true),
        b't' => short('\t', true),
        b'u' => read_unicode(input),
        _ => None,
    }
}

fn read_unicode(input: &[u8]) -> Option<Escape> {
    let digits = input.get(2..6)?;
    let unit = hex_unit(digits)?;
    if let Some([b'\\', b'u', low @ ..]) = input.get(6..12)
        && let Some(low) = hex_unit(low)
        && let Some(Ok(char)) = char::decode_utf16([unit, low]).next()
        && char.len_utf16() == 2
    {
        return Some(Escape {
            meaning: Meaning::Char(char),
            length: 12,
            canonical: false,
        });
    }
    let lower = !digits.iter().any(u8::is_ascii_uppercase);
    Some(match char::from_u32(u32::from(unit)) {
        Some(char) => {
            let named = matches!(char, '\u{8}' | '\t' | '\n' | '\u{c}' | '\r');
            Escape {
                meaning: Meaning::Char(char),
                length: 6,
                canonical: lower && char < ' ' && !named,
            }
        }
        None => Escape {
            meaning: Meaning::Surrogate(unit),
            length: 6,
            canonical: lower,
        },
    })
}

fn hex_unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit.wrapping_shl(4) | u16::try_from(digit).ok()?)
    })
}

enum Part<'a> {
    Plain(&'a [u8]),
    Char(char),
    Surrogate(u16),
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (plain, after) = self.rest.split_at_checked(plain_prefix(self.rest))?;
        if !plain.is_empty() {
            self.rest = after;
            return Some(Part::Plain(plain));
        }
        let escape = read_escape(after)?;
        self.rest = after.get(escape.length..)?;
        Some(match escape.meaning {
            Meaning::Char(char) => Part::Char(char),
            Meaning::Surrogate(unit) => Part::Surrogate(unit),
        })
    }
}

/// A character as `JSON.stringify` writes it inside quotes.
fn push_escaped(out: &mut Vec<u8>, char: char) {
    match char {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..' ' => push_unit(out, u16::try_from(u32::from(char)).unwrap_or_default()),
        _ => push_char(out, char),
    }
}

fn push_unit(out: &mut Vec<u8>, unit: u16) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let nibble = u32::from(unit.wrapping_shr(shift) & 0xF);
        out.push(
            char::from_digit(nibble, 16).map_or(b'0', |digit| u8::try_from(digit).unwrap_or(b'0')),
        );
    }
}

fn push_char(out: &mut Vec<u8>, char: char) {
    let mut buffer = [0; 4];
    out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
}

fn push_surrogate(out: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    out.extend_from_slice(&[
        0xE0 | high.wrapping_shr(4),
        0x80 | (high & 0x0F).wrapping_shl(2) | low.wrapping_shr(6),
        0x80 | (low & 0x3F),
    ]);
}

fn utf16_units(utf8: &[u8]) -> u64 {
    // One for each first byte of a character, two where the character takes four bytes.
    utf8.iter()
        .map(|byte| u64::from((byte & 0xC0) != 0x80).saturating_add(u64::from(*byte >= 0xF0)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{Text, push_json};

    fn canonical(raw: &str) -> String {
        let mut out = Vec::new();
        Text::new(raw.as_bytes(), raw.contains('\\')).write_canonical(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_written_as_javascript_writes_them() {
        assert_eq!(
            canonical(r"a\/b\u0041\u000a\u000B\u001F"),
            "\"a/bA\\n\\u000b\\u001f\""
        );
        assert_eq!(
            canonical(r"\ud83d\ude00 \uD800 \uDC00\uD83D"),
            "\"😀 \\ud800 \\udc00\\ud83d\""
        );
        assert_eq!(canonical("\u{7f}\u{2028}é"), "\"\u{7f}\u{2028}é\"");
        let mut out = Vec::new();
        push_json(&mut out, "a\"b\\c\n\u{1}😀");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"a\\\"b\\\\c\\n\\u0001😀\""
        );
    }

    #[test]
    fn lengths_are_those_of_javascript() {
        for (raw, units) in [
            ("", 0),
            ("aé€😀", 5),
            (r"\ud83d\ude00", 2),
            (r"\ud800x\n", 3),
        ] {
            assert_eq!(
                Text::new(raw.as_bytes(), raw.contains('\\')).units(),
                units,
                "{raw}"
            );
        }
    }

    #[test]
    fn a_pair_of_escapes_is_the_character_and_a_lone_one_is_itself() {
        let pair = Text::new(br"\ud83d\ude00", true);
        assert_eq!(*pair.content(), *"😀".as_bytes());
        let lone = Text::new(br"\uD83D", true);
        assert_eq!(*lone.content(), [0xED, 0xA0, 0xBD]);
        assert_eq!(lone.lossy(), "\u{fffd}");
        assert!(Text::new(br"n\u0061me", true).is("name"));
    }
}
