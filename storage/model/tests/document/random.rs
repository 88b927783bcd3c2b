//! Random JSON as no sane client writes it: odd numbers, odd keys, odd escapes, lone surrogates, stray whitespace.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A small generator of random numbers (SplitMix64) and of what is made of them.
pub(crate) struct Random {
    state: u64,
}

const NUMBERS: [&str; 40] = [
    "0",
    "-0",
    "1.0",
    "-1",
    "1e21",
    "1E21",
    "1e20",
    "123456789012345678901",
    "0.1",
    "1e-7",
    "0.000001",
    "1e400",
    "-1e400",
    "1e-400",
    "5e-324",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "9007199254740993",
    "9007199254740992",
    "-9007199254740993",
    "1795448396.686296",
    "0.30000000000000004",
    "100",
    "1e2",
    "1E+2",
    "100e-2",
    "4294967295",
    "999999999999999",
    "1000000000000000",
    "9999999999999999",
    "1.5e300",
    "3.0000000000000000000001",
    "-0.0",
    "0e10",
    "0.0e-5",
    "123e-20",
    "4.35",
    "1e1000000",
    "0.00000000000000000000000000000001",
];

const KEYS: [&str; 40] = [
    "a",
    "b",
    "c",
    "0",
    "1",
    "2",
    "10",
    "01",
    "00",
    "-1",
    "1.0",
    "4294967294",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "__proto__",
    "constructor",
    "toString",
    "",
    " ",
    "é",
    "😀",
    "\\u0061",
    "\\u0031",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\uDC00",
    "\\n",
    "\\u000a",
    "\\/",
    "/",
    "\\\"",
    "key one",
    "length",
    "999999999",
    "9999999999",
    "\\u0030",
    "\u{2028}",
    "A rather long key, longer than two words",
];

const TEXTS: [&str; 24] = [
    "",
    "a",
    "plain text of some length",
    "\\u0041",
    "\\u00E9",
    "é",
    "\\ud83d\\ude00",
    "😀",
    "\\uD83D",
    "\\udc00\\ud83d",
    "\\ud800\\u0041",
    "\\b\\f\\n\\r\\t",
    "\\u0008\\u000C\\u000a",
    "\\u0000",
    "\\u001F",
    "\\u007f",
    "\u{7f}",
    "\\u2028",
    "\u{2029}",
    "\\/",
    "/",
    "\\\\",
    "\\\"",
    "\\ufeff",
];

impl Random {
    /// A generator; the same seed makes the same sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Another seed for each run.
    pub(crate) fn fresh_seed() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        let place = self.below(from.len());
        from.iter().copied().nth(place).unwrap()
    }

    /// A body with odd values in every place that the protocol leaves open.
    pub(crate) fn document(&mut self) -> String {
        let mut members = vec![
            format!("\"cookies\":{}", self.list_of_objects(3)),
            format!("\"origins\":{}", self.list_of_objects(3)),
            format!("\"unknown\":{}", self.value(4)),
        ];
        if self.once_in(2) {
            members.push(format!("\"indexedDB\":{}", self.list_of_objects(4)));
        }
        if self.once_in(4) {
            members.rotate_left(1);
        }
        if self.once_in(8) {
            // The last one counts.
            members.insert(
                0,
                format!("\"cookies\":{}", self.pick(&["null", "[]", "5"])),
            );
        }
        if self.once_in(8) {
            members.push("\"origins\":null".to_owned());
        }
        let comma = format!("{},{}", self.space(), self.space());
        format!(
            "{}{{{}}}{}",
            self.space(),
            members.join(&comma),
            self.space()
        )
    }

    fn list_of_objects(&mut self, depth: usize) -> String {
        let count = self.below(4);
        let objects: Vec<_> = (0..count).map(|_| self.object(depth)).collect();
        format!("[{}]", objects.join(","))
    }

    /// Any JSON value, with containers up to `depth`.
    pub(crate) fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 => self.number(),
            1 => self.pick(&NUMBERS).to_owned(),
            2 => format!("\"{}\"", self.pick(&TEXTS)),
            3 => format!("\"{}\"", self.text()),
            4 => self.pick(&["true", "false"]).to_owned(),
            5 => "null".to_owned(),
            6 => {
                let count = self.below(5);
                let items: Vec<_> = (0..count).map(|_| self.value(depth - 1)).collect();
                format!("[{}{}{}]", self.space(), items.join(","), self.space())
            }
            _ => self.object(depth - 1),
        }
    }

    fn object(&mut self, depth: usize) -> String {
        let count = if self.once_in(40) { 40 } else { self.below(6) };
        let members: Vec<_> = (0..count)
            .map(|_| {
                let key = if self.once_in(4) {
                    self.text()
                } else {
                    self.pick(&KEYS).to_owned()
                };
                // No known field may get a value of a wrong type.
                format!(
                    "\"{key}\"{}:{}{}",
                    self.space(),
                    self.space(),
                    self.value(depth)
                )
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }

    /// The inside of a string, of up to twelve characters and escapes.
    pub(crate) fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(12) {
            match self.below(8) {
                0 => text.push_str(&format!("\\u{:04x}", self.below(0x1_0000))),
                1 => text.push_str(&format!("\\u{:04X}", 0xD800 + self.below(0x800))),
                2 => text.push_str(&format!("\\u{:04x}", self.below(0x80))),
                3 => text.extend(
                    char::from_u32(u32::try_from(self.below(0x11_0000)).unwrap())
                        .filter(|char| *char >= ' ' && !matches!(char, '"' | '\\')),
                ),
                _ => text.push(char::from(b'0' + u8::try_from(self.below(44)).unwrap())),
            }
        }
        text
    }

    fn number(&mut self) -> String {
        match self.below(4) {
            0 => self.below(100_000).to_string(),
            1 => {
                // Any double, spelled as Rust spells it.
                let double = f64::from_bits(self.next());
                if double.is_finite() {
                    format!("{double:e}")
                } else {
                    "0".to_owned()
                }
            }
            2 => format!("-{}.{:03}", self.next(), self.below(1000)),
            _ => format!(
                "{}e{}",
                self.below(1000),
                i64::try_from(self.below(700)).unwrap() - 350
            ),
        }
    }

    fn space(&mut self) -> &'static str {
        if self.once_in(6) {
            self.pick(&[" ", "\t", "\r", "  \t "])
        } else {
            ""
        }
    }
}
