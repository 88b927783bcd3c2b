//! Finding the end of a stretch of bytes quickly: eight bytes at a time, in safe code.
//!
//! These are the inner loops of everything that reads a document. They know bytes, not JSON's grammar.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;
const SPACES: u64 = ONES * b' ' as u64;

/// How many of the first bytes stand in a JSON string as themselves: up to a quote, a backslash or a control character.
pub(super) fn plain_prefix(input: &[u8]) -> usize {
    let (words, tail) = input.as_chunks::<8>();
    let mut done: usize = 0;
    for word in words {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return done.saturating_add((special.trailing_zeros() / 8) as usize);
        }
        done = done.saturating_add(8);
    }
    let plain = tail
        .iter()
        .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20))
        .count();
    done.saturating_add(plain)
}

/// How many of the first bytes are JSON whitespace.
pub(super) fn space_prefix(input: &[u8]) -> usize {
    input.iter().take_while(|byte| is_space(**byte)).count()
}

/// How many of the first bytes are ASCII digits.
pub(super) fn digit_prefix(input: &[u8]) -> usize {
    input
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

/// Whether a byte is JSON whitespace.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// A word whose lowest set bit is in the first byte that is a quote, a backslash or below a space; zero without one.
/// Bits above the lowest may be wrong: a borrow runs upwards, and only out of a byte that matched.
const fn special_bytes(word: u64) -> u64 {
    let quote = word ^ QUOTES;
    let backslash = word ^ BACKSLASHES;
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let backslashes = backslash.wrapping_sub(ONES) & !backslash;
    let controls = word.wrapping_sub(SPACES) & !word;
    (quotes | backslashes | controls) & HIGH
}

#[cfg(test)]
mod tests {
    use super::{plain_prefix, space_prefix};

    #[test]
    fn every_byte_at_every_place_is_judged_as_by_hand() {
        for place in 0..24 {
            for byte in 0..=u8::MAX {
                let mut text = [b'a'; 24];
                text.iter_mut()
                    .skip(place)
                    .take(1)
                    .for_each(|at| *at = byte);
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                let expected = if special { place } else { 24 };
                assert_eq!(plain_prefix(&text), expected, "byte {byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn the_first_of_two_special_bytes_is_found() {
        for first in 0..16 {
            for second in first..16 {
                for (one, other) in [(b'"', 0x1f), (0x00, b'"'), (b'\\', 0x80), (0x01, 0xff)] {
                    let mut text = [b' '; 16];
                    text.iter_mut()
                        .skip(second)
                        .take(1)
                        .for_each(|at| *at = other);
                    text.iter_mut().skip(first).take(1).for_each(|at| *at = one);
                    assert_eq!(plain_prefix(&text), first);
                }
            }
        }
    }

    #[test]
    fn whitespace_is_json_whitespace_and_nothing_else() {
        assert_eq!(space_prefix(b" \t\r\n\x0b"), 4);
        assert_eq!(space_prefix("\u{a0}".as_bytes()), 0);
    }
}
