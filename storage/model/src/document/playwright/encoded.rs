//! Values in Playwright's encoding of what JSON cannot hold, as plain JSON for those who do not know it.
//!
//! The plain form follows `JSON.stringify` where that has an opinion (a date is its ISO text, `NaN` is null, what is
//! undefined is left out) and is a readable text otherwise (base64 of bytes, digits of a big integer). It cannot be turned
//! back, so the encoded form is kept beside it.

use super::super::error::DocumentError;
use super::super::text::{Text, push_json};
use super::super::token::Kind;
use super::super::tokenizer::Reader;

/// The plain form of an encoded value; `None` when it is not in the encoding.
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(encoded.len());
    decode_next(&mut Reader::again(encoded, ""), &mut plain)
        .ok()?
        .then_some(plain)
}

/// Appends the plain form of the next value. `false` when it is not in the encoding; then the reader is anywhere.
/// The recursion is bounded by the depth of documents.
fn decode_next(reader: &mut Reader<'_>, plain: &mut Vec<u8>) -> Result<bool, DocumentError> {
    match reader.kind()? {
        Kind::Object => {}
        Kind::Array => return Ok(false),
        Kind::Text | Kind::Number | Kind::Boolean | Kind::Null => {
            plain.extend_from_slice(reader.capture()?.text);
            return Ok(true);
        }
    }
    let mut done = false;
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        let Some(marker) = Marker::of_key(key).filter(|_| !done) else {
            reader.skip()?;
            continue;
        };
        done = true;
        if !decode_marked(reader, marker, plain)? {
            return Ok(false);
        }
    }
    Ok(done)
}

/// What a value in an object with this key is.
#[derive(Clone, Copy, Debug)]
enum Marker {
    /// `v`: a value that JSON has no word for.
    Word,
    /// `d`, `u`, `bi`: a date, a URL, a big integer, as text.
    Text,
    /// `e`: an error.
    Error,
    /// `r`: a regular expression.
    Pattern,
    /// `ta`, `ab`: bytes.
    Bytes,
    /// `a`: an array.
    Array,
    /// `o`: an object.
    Object,
    /// `ref`, `h`: something that was there before, or is not data.
    Reference,
}

impl Marker {
    fn of_key(key: Text<'_>) -> Option<Self> {
        Some(match key.raw() {
            b"v" => Self::Word,
            b"d" | b"u" | b"bi" => Self::Text,
            b"e" => Self::Error,
            b"r" => Self::Pattern,
            b"ta" | b"ab" => Self::Bytes,
            b"a" => Self::Array,
            b"o" => Self::Object,
            b"ref" | b"h" => Self::Reference,
            _ => return None,
        })
    }
}

fn decode_marked(
    reader: &mut Reader<'_>,
    marker: Marker,
    plain: &mut Vec<u8>,
) -> Result<bool, DocumentError> {
    match marker {
        Marker::Word => {
            let word = reader.text()?;
            plain.extend_from_slice(if word.is("-0") { b"0" } else { b"null" });
        }
        Marker::Text => {
            reader.text()?.write_canonical(plain);
        }
        Marker::Reference => {
            reader.skip()?;
            plain.extend_from_slice(b"null");
        }
        Marker::Error => {
            let [name, message] = texts(reader, ["n", "m"])?;
            plain.extend_from_slice(b"{\"name\":");
            push_json(plain, &name);
            plain.extend_from_slice(b",\"message\":");
            push_json(plain, &message);
            plain.push(b'}');
        }
        Marker::Pattern => {
            let [pattern, flags] = texts(reader, ["p", "f"])?;
            push_json(plain, &format!("/{pattern}/{flags}"));
        }
        Marker::Bytes => {
            let [base64] = texts(reader, ["b"])?;
            push_json(plain, &base64);
        }
        Marker::Array => return decode_array(reader, plain),
        Marker::Object => return decode_object(reader, plain),
    }
    Ok(true)
}

fn decode_array(reader: &mut Reader<'_>, plain: &mut Vec<u8>) -> Result<bool, DocumentError> {
    let mut separator = b'[';
    reader.enter_array()?;
    while reader.next_item()? {
        plain.push(std::mem::replace(&mut separator, b','));
        if !decode_next(reader, plain)? {
            return Ok(false);
        }
    }
    if separator == b'[' {
        plain.push(b'[');
    }
    plain.push(b']');
    Ok(true)
}

/// An object is a list of `{k, v}`.
fn decode_object(reader: &mut Reader<'_>, plain: &mut Vec<u8>) -> Result<bool, DocumentError> {
    let mut separator = b'{';
    reader.enter_array()?;
    while reader.next_item()? {
        let member_start = plain.len();
        let mut name = None;
        let mut value = None;
        reader.enter_object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("k") && name.is_none() {
                name = Some(reader.text()?);
            } else if key.is("v") && value.is_none() {
                let start = plain.len();
                let (raw, decoded) = reader.capture_with(|reader| decode_next(reader, plain))?;
                if !decoded {
                    return Ok(false);
                }
                value = Some((start, raw.text == UNDEFINED));
            } else {
                reader.skip()?;
            }
        }
        let (Some(name), Some((start, undefined))) = (name, value) else {
            return Ok(false);
        };
        // The value is there already, and what stands before it is put in front.
        let decoded = plain.split_off(start);
        plain.truncate(member_start);
        if !undefined {
            plain.push(std::mem::replace(&mut separator, b','));
            name.write_canonical(plain);
            plain.push(b':');
            plain.extend_from_slice(&decoded);
        }
    }
    if separator == b'{' {
        plain.push(b'{');
    }
    plain.push(b'}');
    Ok(true)
}

const UNDEFINED: &[u8] = br#"{"v":"undefined"}"#;

/// Texts out of the next object, empty where they are not there.
fn texts<const N: usize>(
    reader: &mut Reader<'_>,
    names: [&str; N],
) -> Result<[String; N], DocumentError> {
    let mut texts = [const { String::new() }; N];
    reader.enter_object()?;
    while let Some(key) = reader.next_key()? {
        let slot = names
            .iter()
            .position(|name| key.is(name))
            .and_then(|place| texts.get_mut(place));
        match slot {
            Some(slot) => *slot = reader.text()?.lossy().into_owned(),
            None => reader.skip()?,
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn each_kind_of_value_has_a_plain_form() {
        for (encoded, plain) in [
            ("1", "1"),
            (r#""text""#, r#""text""#),
            (r#"{"v":"null"}"#, "null"),
            (r#"{"v":"undefined"}"#, "null"),
            (r#"{"v":"NaN"}"#, "null"),
            (r#"{"v":"-0"}"#, "0"),
            (
                r#"{"d":"1970-01-01T00:00:00.005Z"}"#,
                r#""1970-01-01T00:00:00.005Z""#,
            ),
            (
                r#"{"u":"https://example.com/"}"#,
                r#""https://example.com/""#,
            ),
            (r#"{"bi":"10"}"#, r#""10""#),
            (
                r#"{"e":{"n":"TypeError","m":"no","s":"at .."}}"#,
                r#"{"name":"TypeError","message":"no"}"#,
            ),
            (r#"{"r":{"p":"a+","f":"gi"}}"#, r#""/a+/gi""#),
            (r#"{"ta":{"b":"AQID","k":"ui8"}}"#, r#""AQID""#),
            (r#"{"ab":{"b":"AQID"}}"#, r#""AQID""#),
            (
                r#"{"a":[1,{"d":"x"},{"v":"undefined"}],"id":2}"#,
                r#"[1,"x",null]"#,
            ),
            (r#"{"a":[],"id":2}"#, "[]"),
            (r#"{"o":[],"id":2}"#, "{}"),
            (
                r#"{"o":[{"k":"id","v":1},{"k":"gone","v":{"v":"undefined"}},{"v":{"ref":1},"k":"self"}],"id":1}"#,
                r#"{"id":1,"self":null}"#,
            ),
        ] {
            let decoded = decode(encoded.as_bytes()).map(|plain| String::from_utf8(plain).unwrap());
            assert_eq!(decoded.as_deref(), Some(plain), "{encoded}");
        }
    }

    #[test]
    fn what_is_not_in_the_encoding_has_none() {
        for other in [
            r#"{"x":1}"#,
            "[1]",
            r#"{"o":{}}"#,
            r#"{"o":[5]}"#,
            r#"{"a":[[]]}"#,
            r#"{"d":5}"#,
        ] {
            assert_eq!(decode(other.as_bytes()), None, "{other}");
        }
    }
}
