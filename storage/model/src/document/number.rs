//! Numbers: their grammar, and how JavaScript prints the value.
//!
//! A number is stored as sent. It becomes a double only for the checksum and for comparisons.

use super::scan::digit_prefix;

/// Integers with at most this many digits are exact doubles below 1e21, and JavaScript prints them as they are.
const EXACT_DIGITS: usize = 15;

/// Length of the number at the start of `input`, or `None` when none is there or it is not JSON's.
pub(super) fn number_length(input: &[u8]) -> Option<usize> {
    let mut rest = input;
    if let Some(after) = rest.strip_prefix(b"-") {
        rest = after;
    }
    let digits = digit_prefix(rest);
    if digits == 0 || (digits > 1 && rest.first() == Some(&b'0')) {
        return None;
    }
    rest = rest.get(digits..)?;
    if let Some(after) = rest.strip_prefix(b".") {
        let digits = digit_prefix(after);
        if digits == 0 {
            return None;
        }
        rest = after.get(digits..)?;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after
            .strip_prefix(b"+")
            .or_else(|| after.strip_prefix(b"-"))
            .unwrap_or(after);
        let digits = digit_prefix(after);
        if digits == 0 {
            return None;
        }
        rest = after.get(digits..)?;
    }
    input.len().checked_sub(rest.len())
}

/// Whether JavaScript prints the number's value exactly as it is written.
pub(super) fn is_canonical(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if digits.len() <= EXACT_DIGITS && digits.iter().all(u8::is_ascii_digit) {
        return number != b"-0";
    }
    with_javascript_text(number, |text| text == number)
}

/// Writes the number's value as `JSON.stringify` would; `null` where the value is beyond a double.
pub(super) fn write_canonical(number: &[u8], out: &mut Vec<u8>) {
    with_javascript_text(number, |text| out.extend_from_slice(text));
}

/// The number's value as JavaScript's `JSON.parse` reads it: infinite beyond a double.
pub(super) fn value(number: &[u8]) -> f64 {
    std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("the tokenizer passes on JSON numbers only, and each of them is one of Rust's")
}

fn with_javascript_text<T>(number: &[u8], use_text: impl FnOnce(&[u8]) -> T) -> T {
    let value = value(number);
    if value.is_finite() {
        use_text(ryu_js::Buffer::new().format_finite(value).as_bytes())
    } else {
        use_text(b"null")
    }
}

#[cfg(test)]
mod tests {
    use super::{is_canonical, number_length, write_canonical};

    fn canonical(number: &str) -> String {
        let mut out = Vec::new();
        write_canonical(number.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for good in [
            "0",
            "-0",
            "10",
            "1.5",
            "1e5",
            "1E+05",
            "-1.0e-10",
            "123456789012345678901234567890",
        ] {
            assert_eq!(number_length(good.as_bytes()), Some(good.len()), "{good}");
        }
        for bad in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1.e5", "1e", "1e+", "Infinity", "NaN", "--1",
        ] {
            assert_eq!(number_length(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(number_length(b"1,2"), Some(1));
    }

    #[test]
    fn values_are_printed_as_javascript_prints_them() {
        for (sent, printed) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e21", "1e+21"),
            ("1E20", "100000000000000000000"),
            ("1e400", "null"),
            ("-1e400", "null"),
            ("1e-7", "1e-7"),
            ("0.0000010", "0.000001"),
            ("9007199254740993", "9007199254740992"),
            ("5e-324", "5e-324"),
            ("1e-400", "0"),
            ("-1e-400", "0"),
            ("1795448396.686296", "1795448396.686296"),
        ] {
            assert_eq!(canonical(sent), printed, "{sent}");
            assert_eq!(is_canonical(sent.as_bytes()), sent == printed, "{sent}");
        }
        assert!(is_canonical(b"-1"));
        assert!(is_canonical(b"999999999999999"));
        assert!(!is_canonical(b"9007199254740993"));
    }
}
