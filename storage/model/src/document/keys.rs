//! Which keys of an object JavaScript would move or merge.
//!
//! An object keeps its keys in the order written, except that those which look like array indexes (canonical decimals
//! up to 2^32 - 2) come first, ascending, and that a key written twice keeps its first place and its last value. The
//! tokenizer only has to know whether any of that happens; it almost never does.

use super::scan::plain_prefix;
use super::text::{Text, read_escape};

/// Where a key stands and what it roughly is: eight bytes for each key of the objects that are open.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyMark {
    /// Offset of the first byte after the opening quote.
    start: u32,
    fingerprint: u32,
}

/// Above this many keys, equal ones are looked for by sorting instead of by comparing each with each.
const FEW_KEYS: usize = 16;

impl KeyMark {
    pub(super) fn new(start: usize, raw: &[u8]) -> Self {
        Self {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            fingerprint: fingerprint(raw),
        }
    }

    /// The key in the text from which the mark was made.
    pub(super) fn text(self, input: &[u8]) -> Text<'_> {
        string_at(input, self.start as usize)
    }
}

/// Whether two of an object's keys are equal. Changes the order of the marks.
/// `escaped` says that a key has an escape, so that equal keys may be written differently.
pub(super) fn has_duplicate(input: &[u8], marks: &mut [KeyMark], escaped: bool) -> bool {
    if escaped {
        let mut contents: Vec<_> = marks
            .iter()
            .map(|mark| mark.text(input).content())
            .collect();
        contents.sort_unstable();
        return contents.array_windows().any(|[one, next]| one == next);
    }
    let same = |one: &KeyMark, other: &KeyMark| {
        one.fingerprint == other.fingerprint && one.text(input).raw() == other.text(input).raw()
    };
    if marks.len() <= FEW_KEYS {
        let mut rest = &*marks;
        while let [first, others @ ..] = rest {
            if others.iter().any(|other| same(first, other)) {
                return true;
            }
            rest = others;
        }
        return false;
    }
    marks.sort_unstable_by(|one, other| {
        one.fingerprint
            .cmp(&other.fingerprint)
            .then_with(|| one.text(input).raw().cmp(other.text(input).raw()))
    });
    marks.array_windows().any(|[one, next]| same(one, next))
}

/// The array index that a key is for JavaScript.
pub(super) fn array_index(key: Text<'_>) -> Option<u32> {
    // Only a digit, or an escape that may be one, can begin an index.
    if !key
        .raw()
        .first()
        .is_some_and(|first| first.is_ascii_digit() || *first == b'\\')
    {
        return None;
    }
    let content = key.content();
    let canonical = match &*content {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() <= 9 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    let index = std::str::from_utf8(&content).ok()?.parse().ok()?;
    (index != u32::MAX).then_some(index)
}

/// The string whose content begins at `start` of a text that a reader has accepted.
fn string_at(input: &[u8], start: usize) -> Text<'_> {
    let rest = input.get(start..).unwrap_or_default();
    let mut length: usize = 0;
    let mut escaped = false;
    while let Some(after) = rest.get(length..) {
        length = length.saturating_add(plain_prefix(after));
        match rest.get(length..).and_then(read_escape) {
            Some(escape) => {
                escaped = true;
                length = length.saturating_add(escape.length);
            }
            None => break,
        }
    }
    Text::new(rest.get(..length).unwrap_or_default(), escaped)
}

/// Different for most keys that differ; depends on the length and on the first and last eight bytes.
fn fingerprint(raw: &[u8]) -> u32 {
    let first = raw.first_chunk::<8>();
    let last = raw.last_chunk::<8>();
    let word = match (first, last) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => raw
            .iter()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    let mixed = (word ^ (raw.len() as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u32::try_from(mixed >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{KeyMark, array_index, has_duplicate};
    use crate::document::text::Text;

    fn duplicate(keys: &[String]) -> bool {
        let mut input = Vec::new();
        let mut marks = Vec::new();
        for key in keys {
            input.push(b'"');
            marks.push(KeyMark::new(input.len(), key.as_bytes()));
            input.extend_from_slice(key.as_bytes());
            input.push(b'"');
        }
        has_duplicate(
            &input,
            &mut marks,
            keys.iter().any(|key| key.contains('\\')),
        )
    }

    #[test]
    fn equal_keys_are_found_among_few_and_among_many() {
        for count in [1, 2, 15, 16, 17, 1000] {
            let mut keys: Vec<String> = (0..count)
                .map(|n| format!("a long common start {n}"))
                .collect();
            assert!(!duplicate(&keys), "{count}");
            keys.extend_from_within(count / 2..=count / 2);
            assert!(duplicate(&keys), "{count}");
        }
        assert!(duplicate(&["name".into(), r"n\u0061me".into()]));
        assert!(!duplicate(&["name".into(), r"n\u0062me".into()]));
    }

    #[test]
    fn an_index_is_a_canonical_decimal_below_the_largest_array() {
        for (key, index) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("4294967294", Some(4_294_967_294)),
            ("4294967295", None),
            ("9999999999", None),
            ("00", None),
            ("01", None),
            ("-1", None),
            ("1.0", None),
            ("", None),
            ("a", None),
            ("1a", None),
        ] {
            assert_eq!(
                array_index(Text::new(key.as_bytes(), false)),
                index,
                "{key}"
            );
        }
        assert_eq!(array_index(Text::new(br"\u0031", true)), Some(1));
    }
}
