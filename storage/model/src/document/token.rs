//! What the tokenizer speaks of: types of values, values as they stand, and what it remembers of open containers.

use super::keys::KeyMark;

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

/// What was noticed in the bytes read since the marks were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// There was whitespace outside strings.
    pub(super) spaces: bool,
    /// `JSON.stringify(JSON.parse(text))` differs from the text in more than whitespace.
    pub(super) odd: bool,
}

/// A value as it stands in the input, and what was noticed in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) text: &'a [u8],
    pub(super) marks: Marks,
}

/// What can be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Array,
    Object,
}

/// An open container, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) container: Container,
    /// Some key of the object has an escape.
    pub(super) escaped: bool,
    /// A key that is no array index was seen.
    pub(super) named: bool,
    /// One more than the highest array index among the keys.
    pub(super) next_index: u64,
    /// Members begun.
    pub(super) count: u32,
    /// How many marks belong to the objects around this one.
    pub(super) keys_before: usize,
    /// Where the current key stands.
    pub(super) key: KeyMark,
}

/// Where a reader was, to return to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) frames: usize,
    pub(super) keys: usize,
    pub(super) marks: Marks,
}

impl Frame {
    /// A container that was just entered, inside of objects that have so many keys.
    pub(super) fn new(container: Container, keys_before: usize) -> Self {
        Self {
            container,
            escaped: false,
            named: false,
            next_index: 0,
            count: 0,
            keys_before,
            key: KeyMark::new(0, b""),
        }
    }
}
