//! Why a document was refused.
//!
//! Every error names the place and what is wrong there, and never shows a value of the document: paths are made of the
//! field names of the protocol, of positions, and of nothing else.

/// Why a document, or a change of one, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are not JSON.
    #[error("malformed JSON at line {line}, column {column} (byte {offset}){}: {what}", inside(.path))]
    Malformed {
        /// Bytes before the place.
        offset: usize,
        /// Line of the place, from 1.
        line: usize,
        /// Column of the place in characters, from 1.
        column: usize,
        /// The innermost field around the place; empty at the top.
        path: String,
        /// What was expected or found, without quoting the document.
        what: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8: the first wrong byte is at offset {offset}")]
    InvalidUtf8 {
        /// Bytes before the first one that is wrong.
        offset: usize,
    },
    /// Arrays and objects are nested too deep.
    #[error("JSON nested deeper than {limit} levels at byte {offset}{}", inside(.path))]
    TooDeep {
        /// Bytes before the place.
        offset: usize,
        /// The outer fields around the place.
        path: String,
        /// The deepest nesting that is taken.
        limit: usize,
    },
    /// A known field has a value of another type.
    #[error("wrong type: {} must be {expected}", named(.path))]
    WrongType {
        /// The field, as in `cookies[3].expires`; empty for the whole body.
        path: String,
        /// What the field takes, as in "a number".
        expected: &'static str,
    },
    /// A field that holds a point in time does not hold one.
    #[error("{} is not a date; use ISO 8601, as in 2030-01-31T12:00:00.000Z", named(.path))]
    BadDate {
        /// The field.
        path: String,
    },
    /// The body, or the document that a change would make, is too large.
    #[error("the document would be larger than {limit} bytes")]
    TooLarge {
        /// The largest size that is taken, in bytes.
        limit: usize,
    },
    /// Stored bytes are not what this module wrote: damage, or a newer format. Never the client's fault.
    #[error("stored document cannot be read: {what}")]
    Stored {
        /// What is wrong with them.
        what: &'static str,
    },
}

impl DocumentError {
    /// Bytes that are not JSON from `offset` on.
    pub(super) fn malformed(input: &[u8], offset: usize, path: String, what: &'static str) -> Self {
        let before = input.get(..offset).unwrap_or_default();
        let mut lines = before.split(|byte| *byte == b'\n');
        let characters = |line: &[u8]| line.iter().filter(|byte| (**byte & 0xC0) != 0x80).count();
        Self::Malformed {
            offset,
            line: lines.clone().count(),
            column: lines.next_back().map_or(0, characters).saturating_add(1),
            path,
            what,
        }
    }

    /// Whether the client sent something wrong; otherwise the store is damaged.
    #[must_use]
    pub const fn is_of_client(&self) -> bool {
        !matches!(self, Self::Stored { .. })
    }

    /// The field that is wrong, as in `cookies[3].expires`, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Malformed { path, .. }
            | Self::TooDeep { path, .. }
            | Self::WrongType { path, .. }
            | Self::BadDate { path } => (!path.is_empty()).then_some(path),
            Self::InvalidUtf8 { .. } | Self::TooLarge { .. } | Self::Stored { .. } => None,
        }
    }
}

fn named(path: &str) -> String {
    if path.is_empty() {
        "the body".to_owned()
    } else {
        format!("`{path}`")
    }
}

fn inside(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(", in `{path}`")
    }
}

#[cfg(test)]
mod tests {
    use super::DocumentError;

    #[test]
    fn an_error_reads_as_a_sentence() {
        let wrong = DocumentError::WrongType {
            path: "cookies[3].expires".into(),
            expected: "a number",
        };
        assert_eq!(
            wrong.to_string(),
            "wrong type: `cookies[3].expires` must be a number"
        );
        let whole = DocumentError::WrongType {
            path: String::new(),
            expected: "an object",
        };
        assert_eq!(whole.to_string(), "wrong type: the body must be an object");
        let malformed = DocumentError::Malformed {
            offset: 7,
            line: 1,
            column: 8,
            path: "cookies".into(),
            what: "a value was expected",
        };
        assert_eq!(
            malformed.to_string(),
            "malformed JSON at line 1, column 8 (byte 7), in `cookies`: a value was expected"
        );
    }
}
