//! `JSON.stringify(JSON.parse(text))`, byte for byte as JavaScript prints it.
//!
//! Written as a stream: an element of the outermost array leaves memory as soon as it is complete, and an object is
//! rearranged after it was written, only if a key of it is an array index or is there twice. No recursion.

use std::collections::BTreeMap;

use super::error::DocumentError;
use super::keys::{KeyMark, array_index, has_duplicate};
use super::number;
use super::token::Kind;
use super::tokenizer::Reader;

/// The canonical form of an accepted JSON text.
///
/// # Errors
/// When the text is not JSON.
pub(super) fn canonical(json: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut whole = Vec::with_capacity(json.len());
    stream(json, |part| whole.extend_from_slice(part))?;
    Ok(whole)
}

/// Passes the canonical form of an accepted JSON text to `sink`, in parts.
///
/// # Errors
/// When the text is not JSON.
pub(super) fn stream(json: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), DocumentError> {
    let mut reader = Reader::again(json, "");
    let mut writer = Writer {
        json,
        out: Vec::new(),
        open: Vec::new(),
        members: Vec::new(),
    };
    loop {
        match reader.kind()? {
            Kind::Object => {
                reader.enter_object()?;
                writer.enter(b'{');
            }
            Kind::Array => {
                reader.enter_array()?;
                writer.enter(b'[');
            }
            Kind::Text => reader.text()?.write_canonical(&mut writer.out),
            Kind::Number => number::write_canonical(reader.number()?, &mut writer.out),
            Kind::Boolean | Kind::Null => writer.out.extend_from_slice(reader.word()?),
        }
        loop {
            // An element of the outermost array is complete; an outermost object may still be rearranged.
            if reader.depth() == 0 || (reader.depth() == 1 && reader.in_array()) {
                sink(&writer.out);
                writer.out.clear();
            }
            if reader.depth() == 0 {
                reader.end()?;
                return Ok(());
            }
            if reader.in_array() {
                if reader.next_item()? {
                    writer.next_member();
                    break;
                }
                writer.leave_array();
            } else if let Some(key) = reader.next_key()? {
                writer.next_member();
                writer.note_key(reader.key_mark());
                key.write_canonical(&mut writer.out);
                writer.out.push(b':');
                break;
            } else {
                writer.leave_object();
            }
        }
    }
}

struct Writer<'a> {
    json: &'a [u8],
    out: Vec<u8>,
    open: Vec<Open>,
    /// Keys of the open objects, and where in `out` each member begins.
    members: Vec<(KeyMark, u32)>,
}

struct Open {
    begun: bool,
    /// Where in `out` the first member begins.
    start: usize,
    members_before: usize,
}

impl Writer<'_> {
    fn enter(&mut self, bracket: u8) {
        self.out.push(bracket);
        let members_before = self.members.len();
        self.open.push(Open {
            begun: false,
            start: self.out.len(),
            members_before,
        });
    }

    /// Writes the comma before a member that is not the first.
    fn next_member(&mut self) {
        if let Some(open) = self.open.last_mut() {
            if open.begun {
                self.out.push(b',');
            }
            open.begun = true;
        }
    }

    fn note_key(&mut self, key: Option<KeyMark>) {
        let start = u32::try_from(self.out.len())
            .expect("a document of at most 50 MiB is printed in less than 4 GiB");
        self.members.extend(key.map(|key| (key, start)));
    }

    fn leave_array(&mut self) {
        self.open.pop();
        self.out.push(b']');
    }

    fn leave_object(&mut self) {
        if let Some(open) = self.open.pop() {
            let members = self.members.get(open.members_before..).unwrap_or_default();
            if let Some(rearranged) = rearrange(self.json, &self.out, members) {
                self.out.truncate(open.start);
                self.out.extend_from_slice(&rearranged);
            }
            self.members.truncate(open.members_before);
        }
        self.out.push(b'}');
    }
}

/// The members of an object in JavaScript's order, each key once; `None` when they already are.
fn rearrange(json: &[u8], out: &[u8], members: &[(KeyMark, u32)]) -> Option<Vec<u8>> {
    let indexes = members
        .iter()
        .any(|(key, _)| array_index(key.text(json)).is_some());
    let escaped = members.iter().any(|(key, _)| key.text(json).is_escaped());
    let mut marks: Vec<KeyMark> = members.iter().map(|(key, _)| *key).collect();
    if !indexes && !has_duplicate(json, &mut marks, escaped) {
        return None;
    }
    let starts = members.iter().map(|(_, start)| *start as usize);
    // Between two members stands a comma.
    let ends = starts
        .clone()
        .skip(1)
        .map(|next| next.saturating_sub(1))
        .chain([out.len()]);
    let mut places = BTreeMap::new();
    for (place, ((key, _), range)) in members.iter().zip(starts.zip(ends)).enumerate() {
        let text = key.text(json);
        places
            .entry(text.content())
            .and_modify(|(_, _, last)| *last = range)
            .or_insert_with(|| (array_index(text), place, range));
    }
    let mut ordered: Vec<_> = places.into_values().collect();
    ordered.sort_unstable_by_key(|(index, place, _)| (index.is_none(), *index, *place));
    let mut rearranged = Vec::new();
    for (_, _, (start, end)) in ordered {
        if !rearranged.is_empty() {
            rearranged.push(b',');
        }
        rearranged.extend_from_slice(out.get(start..end).unwrap_or_default());
    }
    Some(rearranged)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    fn of(json: &str) -> String {
        String::from_utf8(canonical(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn keys_stand_in_the_order_of_javascript() {
        assert_eq!(
            of(r#"{"b":1,"2":2,"a":3,"1":4}"#),
            r#"{"1":4,"2":2,"b":1,"a":3}"#
        );
        assert_eq!(of(r#"{"b":1,"a":2,"b":[3]}"#), r#"{"b":[3],"a":2}"#);
        assert_eq!(
            of(r#"[{"b":1,"a":2,"b":[3]},{"x":{"1":{"9":0,"8":0},"0":1}}]"#),
            r#"[{"b":[3],"a":2},{"x":{"0":1,"1":{"8":0,"9":0}}}]"#
        );
        assert_eq!(
            of(r#"{"4294967295":1,"4294967294":2}"#),
            r#"{"4294967294":2,"4294967295":1}"#
        );
        assert_eq!(
            of(r#"{"a":1,"__proto__":2,"\u0061":3}"#),
            r#"{"a":3,"__proto__":2}"#
        );
        assert_eq!(of(r#"{"x":1,"\u0031":2}"#), r#"{"1":2,"x":1}"#);
    }

    #[test]
    fn whitespace_numbers_and_escapes_are_those_of_javascript() {
        assert_eq!(
            of(" { \"a\" : [ 1.0 , -0 , 1e400 , true , null ] } "),
            r#"{"a":[1,0,null,true,null]}"#
        );
        assert_eq!(of(r#"["\u0041","\/","\ud800"]"#), r#"["A","/","\ud800"]"#);
        for same in [
            "{}",
            "[]",
            "[[],{}]",
            "\"x\"",
            "1",
            "null",
            r#"{"a":{"b":{}}}"#,
        ] {
            assert_eq!(of(same), same);
        }
    }
}
