//! One origin's localStorage, both ways: `{name, value}` for Playwright, `{key, value}` for the protocol.

use super::super::error::DocumentError;
use super::super::members::{begin_member, members, push_key};
use super::super::text::Text;
use super::super::token::Kind;
use super::super::tokenizer::Reader;

/// Appends Playwright's entries as the protocol's. An entry that has both a name and a key has them exchanged, so that
/// the way back exchanges them again.
pub(super) fn import_storage(entries: &[u8], out: &mut Vec<u8>) -> Result<(), DocumentError> {
    let mut separator = b'[';
    let mut reader = Reader::again(entries, "");
    reader.enter_array()?;
    while reader.next_item()? {
        out.push(std::mem::replace(&mut separator, b','));
        push_exchanged(&members(reader.capture()?.text)?, out);
    }
    close_list(out, separator);
    Ok(())
}

/// Appends the protocol's entries, of either shape, as Playwright's. What has no name is left out.
pub(super) fn export_storage(storage: &[u8], out: &mut Vec<u8>) -> Result<(), DocumentError> {
    let mut separator = b'[';
    let mut reader = Reader::again(storage, "");
    match reader.kind()? {
        Kind::Array => {
            reader.enter_array()?;
            while reader.next_item()? {
                let entry = members(reader.capture()?.text)?;
                let has = |name: &str| {
                    entry
                        .iter()
                        .any(|(key, value)| key.is(name) && value.starts_with(b"\""))
                };
                if !has("key") && !has("name") {
                    continue;
                }
                out.push(std::mem::replace(&mut separator, b','));
                if has("key") {
                    push_exchanged(&entry, out);
                } else {
                    push_members(&entry, out);
                }
                if !has("value") {
                    out.pop();
                    out.extend_from_slice(b",\"value\":\"\"}");
                }
            }
        }
        Kind::Object => {
            for (key, value) in members(storage)? {
                out.push(std::mem::replace(&mut separator, b','));
                out.extend_from_slice(b"{\"name\":\"");
                out.extend_from_slice(key.raw());
                out.extend_from_slice(b"\",\"value\":");
                out.extend_from_slice(value);
                out.push(b'}');
            }
        }
        Kind::Text | Kind::Number | Kind::Boolean | Kind::Null => {}
    }
    close_list(out, separator);
    Ok(())
}

/// Ends a list whose elements were each begun with `separator`, which is a bracket while there are none.
pub(super) fn close_list(out: &mut Vec<u8>, separator: u8) {
    if separator == b'[' {
        out.push(b'[');
    }
    out.push(b']');
}

/// Appends an object.
pub(super) fn push_members(members: &[(Text<'_>, &[u8])], out: &mut Vec<u8>) {
    let mut object = Vec::new();
    for (key, value) in members {
        begin_member(&mut object);
        push_key(&mut object, *key);
        object.extend_from_slice(value);
    }
    out.extend_from_slice(if object.is_empty() { b"{" } else { &object });
    out.push(b'}');
}

fn push_exchanged(entry: &[(Text<'_>, &[u8])], out: &mut Vec<u8>) {
    let exchanged: Vec<_> = entry
        .iter()
        .map(|(key, value)| {
            let key = if key.is("name") {
                Text::new(b"key", false)
            } else if key.is("key") {
                Text::new(b"name", false)
            } else {
                *key
            };
            (key, *value)
        })
        .collect();
    push_members(&exchanged, out);
}

#[cfg(test)]
mod tests {
    use super::{export_storage, import_storage};

    fn exported(storage: &str) -> String {
        let mut out = Vec::new();
        export_storage(storage.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn entries_come_back_with_all_that_they_had() {
        for entries in [
            "[]",
            r#"[{"name":"a","value":"b"},{"value":"","name":""}]"#,
            r#"[{"name":"a","key":"x","value":"b","more":[1.0]}]"#,
        ] {
            let mut imported = Vec::new();
            import_storage(entries.as_bytes(), &mut imported).unwrap();
            assert_eq!(exported(std::str::from_utf8(&imported).unwrap()), entries);
        }
    }

    #[test]
    fn every_shape_of_the_protocol_becomes_entries() {
        assert_eq!(
            exported(r#"{"a":"b","c":"d"}"#),
            r#"[{"name":"a","value":"b"},{"name":"c","value":"d"}]"#
        );
        assert_eq!(
            exported(
                r#"[{"key":"a","value":"b","size":1},{"name":"c","value":"d"},{"key":"e"},{"value":"f"}]"#
            ),
            r#"[{"name":"a","value":"b","size":1},{"name":"c","value":"d"},{"name":"e","value":""}]"#
        );
        assert_eq!(exported("null"), "[]");
    }
}
