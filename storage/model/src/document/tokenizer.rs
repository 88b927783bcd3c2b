//! The one pass over a document's bytes: a pull parser that checks encoding, grammar and depth.
//!
//! The caller asks for what it expects next ([`Reader::enter_object`], [`Reader::next_key`], [`Reader::text`], ..) or
//! takes a value whole ([`Reader::capture`]). Nothing is copied and no tree is built. While reading, the reader notes
//! whether a value has whitespace between its tokens and whether `JSON.stringify` would print it differently
//! ([`Marks`]), so that most values never have to be read again.
//!
//! Guarantees: what is accepted is exactly JSON (RFC 8259) in UTF-8 with at most [`MAX_DEPTH`] levels, lone surrogate
//! escapes and duplicate keys included, after an optional byte order mark. No recursion. Memory: a few bytes for each
//! level, and eight for each key of the objects that are open. Errors carry the place and never the content.

use crate::limits::{MAX_DEPTH, MAX_DOCUMENT_BYTES};

use super::error::DocumentError;
use super::keys::{KeyMark, array_index, has_duplicate};
use super::number::{is_canonical, number_length};
use super::path::{Step, push_step};
use super::scan::{is_space, plain_prefix, space_prefix};
use super::text::{Text, read_escape};
use super::token::{Container, Frame, Kind, Marks, Place, Raw};

/// A pull parser over one JSON text.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    frames: Vec<Frame>,
    keys: Vec<KeyMark>,
    marks: Marks,
    /// The field whose value the input is, for errors; empty for a whole body.
    root: &'static str,
    /// The input has been through a reader before: its encoding is known to be good.
    stored: bool,
}

impl<'a> Reader<'a> {
    /// A reader of a client's bytes.
    ///
    /// # Errors
    /// When they are too many or not UTF-8.
    pub(super) fn new(input: &'a [u8]) -> Result<Self, DocumentError> {
        if input.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge {
                limit: MAX_DOCUMENT_BYTES,
            });
        }
        if simdutf8::basic::from_utf8(input).is_err() {
            let offset = std::str::from_utf8(input)
                .err()
                .map_or(0, |error| error.valid_up_to());
            return Err(DocumentError::InvalidUtf8 { offset });
        }
        let at = if input.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        Ok(Self::over(input, at, ""))
    }

    /// A reader of text that was accepted before, or made here, and stands as the value of the field `root`.
    pub(super) fn again(input: &'a [u8], root: &'static str) -> Self {
        Self {
            stored: true,
            ..Self::over(input, 0, root)
        }
    }

    fn over(input: &'a [u8], at: usize, root: &'static str) -> Self {
        Self {
            input,
            at,
            frames: Vec::with_capacity(8),
            keys: Vec::with_capacity(32),
            marks: Marks::default(),
            root,
            stored: false,
        }
    }

    /// The type of the value that comes next.
    pub(super) fn kind(&mut self) -> Result<Kind, DocumentError> {
        match self.next_byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(self.malformed("a value was expected")),
            None => Err(self.malformed(ENDED)),
        }
    }

    /// Whether nothing but whitespace is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.next_byte().is_none()
    }

    /// Enters the object that comes next, or refuses a value of another type.
    pub(super) fn enter_object(&mut self) -> Result<(), DocumentError> {
        self.expect_kind(Kind::Object, "an object")?;
        self.enter(Container::Object)
    }

    /// Enters the array that comes next, or refuses a value of another type.
    pub(super) fn enter_array(&mut self) -> Result<(), DocumentError> {
        self.expect_kind(Kind::Array, "an array")?;
        self.enter(Container::Array)
    }

    /// The next key of the object entered last; `None` leaves the object.
    pub(super) fn next_key(&mut self) -> Result<Option<Text<'a>>, DocumentError> {
        if !self.next_member(b'}', "a comma or the end of the object was expected")? {
            self.leave_object();
            return Ok(None);
        }
        if self.next_byte() != Some(b'"') {
            return Err(self.malformed("a key in quotes was expected"));
        }
        let start = self.at.saturating_add(1);
        let key = self.scan_string()?;
        self.note_key(start, key);
        if self.next_byte() != Some(b':') {
            return Err(self.malformed("a colon was expected"));
        }
        self.advance(1);
        Ok(Some(key))
    }

    /// Whether the array entered last has another element; if not, leaves the array.
    pub(super) fn next_item(&mut self) -> Result<bool, DocumentError> {
        let more = self.next_member(b']', "a comma or the end of the array was expected")?;
        if more {
            self.count_member();
        } else {
            self.frames.pop();
        }
        Ok(more)
    }

    /// The string that comes next, or a refusal.
    pub(super) fn text(&mut self) -> Result<Text<'a>, DocumentError> {
        self.expect_kind(Kind::Text, "a string")?;
        self.scan_string()
    }

    /// The number that comes next, as sent, or a refusal.
    pub(super) fn number(&mut self) -> Result<&'a [u8], DocumentError> {
        self.expect_kind(Kind::Number, "a number")?;
        self.scan_number()
    }

    /// `true`, `false` or `null` as sent.
    pub(super) fn word(&mut self) -> Result<&'a [u8], DocumentError> {
        self.next_byte();
        let rest = self.rest();
        match [&b"true"[..], b"false", b"null"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            Some(word) => {
                self.advance(word.len());
                Ok(rest.get(..word.len()).unwrap_or_default())
            }
            None => Err(self.malformed("a value was expected")),
        }
    }

    /// `true` or `false`, or a refusal.
    pub(super) fn boolean(&mut self) -> Result<bool, DocumentError> {
        self.expect_kind(Kind::Boolean, "a boolean")?;
        Ok(self.word()? == b"true")
    }

    /// Reads over the next value, whatever it is.
    pub(super) fn skip(&mut self) -> Result<(), DocumentError> {
        let outer = self.frames.len();
        loop {
            match self.kind()? {
                Kind::Object => self.enter(Container::Object)?,
                Kind::Array => self.enter(Container::Array)?,
                Kind::Text => self.scan_string().map(|_| ())?,
                Kind::Number => self.scan_number().map(|_| ())?,
                Kind::Boolean | Kind::Null => self.word().map(|_| ())?,
            }
            // A value has ended, or a container has just begun: find the next value inside.
            loop {
                if self.frames.len() == outer {
                    return Ok(());
                }
                let more = if self.in_array() {
                    self.next_item()?
                } else {
                    self.next_key()?.is_some()
                };
                if more {
                    break;
                }
            }
        }
    }

    /// Runs `read` over the next value, and returns the value as it stands and what `read` made of it.
    pub(super) fn capture_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DocumentError>,
    ) -> Result<(Raw<'a>, T), DocumentError> {
        self.next_byte();
        let outer = std::mem::take(&mut self.marks);
        let start = self.at;
        let made = read(self)?;
        let marks = self.marks;
        self.marks = Marks {
            spaces: outer.spaces | marks.spaces,
            odd: outer.odd | marks.odd,
        };
        let text = self.input.get(start..self.at).unwrap_or_default();
        Ok((Raw { text, marks }, made))
    }

    /// The next value as it stands.
    pub(super) fn capture(&mut self) -> Result<Raw<'a>, DocumentError> {
        self.capture_with(Self::skip).map(|(raw, ())| raw)
    }

    /// Checks that nothing but whitespace follows.
    pub(super) fn end(&mut self) -> Result<(), DocumentError> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(self.malformed("nothing was expected after the value"))
        }
    }

    /// Where the current key of the innermost object stands.
    pub(super) fn key_mark(&self) -> Option<KeyMark> {
        self.frames.last().map(|frame| frame.key)
    }

    /// Whether the innermost container is an array; `false` outside of all.
    pub(super) fn in_array(&self) -> bool {
        self.frames
            .last()
            .is_some_and(|frame| frame.container == Container::Array)
    }

    /// How many containers are open.
    pub(super) const fn depth(&self) -> usize {
        self.frames.len()
    }

    /// What was noticed so far.
    pub(super) const fn marks(&self) -> Marks {
        self.marks
    }

    /// Where the reader is.
    pub(super) const fn place(&self) -> Place {
        Place {
            at: self.at,
            frames: self.frames.len(),
            keys: self.keys.len(),
            marks: self.marks,
        }
    }

    /// Returns to a place in the same or an inner container.
    pub(super) fn rewind(&mut self, place: Place) {
        self.at = place.at;
        self.frames.truncate(place.frames);
        self.keys.truncate(place.keys);
        self.marks = place.marks;
    }

    /// A refusal of the value that comes next, or was just read.
    pub(super) fn wrong_type(&self, expected: &'static str) -> DocumentError {
        DocumentError::WrongType {
            path: self.path(),
            expected,
        }
    }

    /// The path of the current value.
    pub(super) fn path(&self) -> String {
        let mut path = self.root.to_owned();
        for frame in self.frames.iter().filter(|frame| frame.count > 0) {
            let position = frame.count.saturating_sub(1);
            let step = if frame.container == Container::Array {
                Step::Item(position)
            } else {
                Step::Key(frame.key.text(self.input), position)
            };
            push_step(&mut path, step);
        }
        path
    }

    fn expect_kind(&mut self, kind: Kind, expected: &'static str) -> Result<(), DocumentError> {
        if self.kind()? == kind {
            Ok(())
        } else {
            Err(self.wrong_type(expected))
        }
    }

    fn enter(&mut self, container: Container) -> Result<(), DocumentError> {
        let outer = usize::from(!self.root.is_empty());
        if self.frames.len().saturating_add(outer) >= MAX_DEPTH {
            return Err(DocumentError::TooDeep {
                offset: self.at,
                path: self.path(),
                limit: MAX_DEPTH,
            });
        }
        self.advance(1);
        self.frames.push(Frame::new(container, self.keys.len()));
        Ok(())
    }

    fn count_member(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.count = frame.count.saturating_add(1);
        }
    }

    /// Passes the comma before the next member, or the `end` of the container.
    fn next_member(&mut self, end: u8, expected: &'static str) -> Result<bool, DocumentError> {
        let first = self.frames.last().is_some_and(|frame| frame.count == 0);
        match self.next_byte() {
            Some(byte) if byte == end => {
                self.advance(1);
                Ok(false)
            }
            Some(b',') if !first => {
                self.advance(1);
                Ok(true)
            }
            Some(_) if first => Ok(true),
            Some(_) => Err(self.malformed(expected)),
            None => Err(self.malformed(ENDED)),
        }
    }

    fn note_key(&mut self, start: usize, key: Text<'a>) {
        let mark = KeyMark::new(start, key.raw());
        self.keys.push(mark);
        let index = array_index(key);
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        frame.count = frame.count.saturating_add(1);
        frame.key = mark;
        frame.escaped |= key.is_escaped();
        match index.map(u64::from) {
            Some(index) => {
                self.marks.odd |= frame.named || index < frame.next_index;
                frame.next_index = index.saturating_add(1);
            }
            None => frame.named = true,
        }
    }

    fn leave_object(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if !self.marks.odd
            && let Some(marks) = self.keys.get_mut(frame.keys_before..)
            && marks.len() > 1
        {
            self.marks.odd = has_duplicate(self.input, marks, frame.escaped);
        }
        self.keys.truncate(frame.keys_before);
    }

    fn scan_string(&mut self) -> Result<Text<'a>, DocumentError> {
        let start = self.at.saturating_add(1);
        self.advance(1);
        let mut escaped = false;
        loop {
            let rest = self.rest();
            let (plain, after) = rest
                .split_at_checked(plain_prefix(rest))
                .unwrap_or((rest, &[]));
            self.advance(plain.len());
            match after.first() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let Some(escape) = read_escape(after) else {
                        return Err(self.malformed("an escape was expected after the backslash"));
                    };
                    escaped = true;
                    self.marks.odd |= !escape.canonical;
                    self.advance(escape.length);
                }
                Some(_) => return Err(self.malformed("a control character must be escaped")),
                None => return Err(self.malformed("the string does not end")),
            }
        }
        let raw = self.input.get(start..self.at).unwrap_or_default();
        self.advance(1);
        Ok(Text::new(raw, escaped))
    }

    fn scan_number(&mut self) -> Result<&'a [u8], DocumentError> {
        let rest = self.rest();
        let Some(number) = number_length(rest).and_then(|length| rest.get(..length)) else {
            return Err(self.malformed("a number was expected"));
        };
        self.marks.odd = self.marks.odd || !is_canonical(number);
        self.advance(number.len());
        Ok(number)
    }

    /// Passes whitespace and returns the byte that follows.
    fn next_byte(&mut self) -> Option<u8> {
        let next = self.input.get(self.at).copied()?;
        if !is_space(next) {
            return Some(next);
        }
        self.marks.spaces = true;
        self.advance(space_prefix(self.rest()));
        self.input.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    const fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn malformed(&self, what: &'static str) -> DocumentError {
        if self.stored {
            return DocumentError::Stored { what };
        }
        DocumentError::malformed(self.input, self.at, self.path(), what)
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const ENDED: &str = "the text ends too early";
