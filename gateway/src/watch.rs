//! The messages of a watch, in and out, as text.
//!
//! Guarantees: any text from a client is read or refused, within the bound of a message; an outgoing message contains
//! the document as the model served it, on one line.

use bytes::Bytes;
use model::id::{SessionId, Version};
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest message from a client, in bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Longest text that a `ping` may have repeated, in bytes.
const MAX_ECHO: usize = 128;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Tell me of this session, after this version; without one, after now.
    Subscribe {
        /// Which.
        session: SessionId,
        /// After which version.
        from: Option<Version>,
    },
    /// Tell me no more.
    Unsubscribe {
        /// Which.
        session: SessionId,
    },
    /// Are you there? The text is repeated.
    Ping(Option<String>),
}

/// A message that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Not one of the shapes.
    #[error(
        "a message is a JSON object with a type of subscribe, unsubscribe or ping, and what that needs"
    )]
    Shape,
    /// Not a session's id: a session that is not there.
    #[error("Session not found")]
    Session,
    /// Not a version.
    #[error("from must be a version, as in 1.7")]
    Version,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Shape {
    #[serde(rename_all = "camelCase")]
    Subscribe {
        session_id: String,
        #[serde(alias = "version", alias = "fromVersion")]
        from: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    Unsubscribe {
        session_id: String,
    },
    Ping {
        id: Option<String>,
    },
}

/// Reads a client's message.
///
/// # Errors
/// See [`BadMessage`].
pub fn parse(text: &str) -> Result<Ask, BadMessage> {
    if text.len() > MAX_MESSAGE {
        return Err(BadMessage::Shape);
    }
    let session = |id: &str| {
        id.parse()
            .ok()
            .filter(SessionId::is_ours)
            .ok_or(BadMessage::Session)
    };
    match serde_json::from_str(text).map_err(|_shape| BadMessage::Shape)? {
        Shape::Subscribe { session_id, from } => Ok(Ask::Subscribe {
            session: session(&session_id)?,
            from: from.as_deref().map(version).transpose()?,
        }),
        Shape::Unsubscribe { session_id } => Ok(Ask::Unsubscribe {
            session: session(&session_id)?,
        }),
        Shape::Ping { id } => Ok(Ask::Ping(id.filter(|id| id.len() <= MAX_ECHO))),
    }
}

/// A version as clients name it: `1.7`, also as the entity tag `"1.7"`.
///
/// # Errors
/// [`BadMessage::Version`].
pub fn version(text: &str) -> Result<Version, BadMessage> {
    text.trim()
        .trim_matches('"')
        .parse()
        .map_err(|_bad| BadMessage::Version)
}

/// Something happened to a session.
#[derive(Clone, Debug)]
pub enum News {
    /// It has this content now.
    Updated {
        /// The content's version.
        version: Version,
        /// The document.
        document: Bytes,
        /// Whether versions may be missing before it.
        resync: bool,
    },
    /// It is gone.
    Deleted(Version),
    /// Its time is over.
    Expired(Version),
}

impl News {
    /// The `type` of the message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Updated { .. } => "session.updated",
            Self::Deleted(_) => "session.deleted",
            Self::Expired(_) => "session.expired",
        }
    }

    /// The version that it made.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self {
            Self::Updated { version, .. } | Self::Deleted(version) | Self::Expired(version) => {
                *version
            }
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self, session: SessionId) -> Vec<u8> {
        let mut head = json!({
            "type": self.kind(),
            "sessionId": session.to_string(),
            "version": self.version().to_string(),
        });
        let Self::Updated {
            document, resync, ..
        } = self
        else {
            return head.to_string().into();
        };
        if *resync {
            head["resync"] = Value::Bool(true);
        }
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(b",\"session\":");
        // Between tokens a line break may stand; in strings none can.
        out.extend(document.iter().map(|byte| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            }
        }));
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{RegionId, Slot};

    fn session() -> SessionId {
        SessionId::new(
            RegionId::new(0).expect("in range"),
            Slot::wrapping(1),
            [7; 16],
        )
    }

    #[test]
    fn each_message_is_read_and_nothing_else() {
        let id = session();
        let from = Some(Version {
            epoch: 1,
            revision: 7,
        });
        let read = |text: &str| parse(&text.replace("ID", &id.to_string()));
        assert_eq!(
            read(r#"{"type":"subscribe","sessionId":"ID"}"#),
            Ok(Ask::Subscribe {
                session: id,
                from: None
            })
        );
        for name in ["from", "version", "fromVersion"] {
            let text = format!(r#"{{"type":"subscribe","sessionId":"ID","{name}":"1.7","x":1}}"#);
            assert_eq!(read(&text), Ok(Ask::Subscribe { session: id, from }));
        }
        assert_eq!(
            read(r#"{"type":"unsubscribe","sessionId":"ID"}"#),
            Ok(Ask::Unsubscribe { session: id })
        );
        assert_eq!(
            read(r#"{"type":"ping","id":"a"}"#),
            Ok(Ask::Ping(Some("a".to_owned())))
        );
        assert_eq!(read(r#"{"type":"ping"}"#), Ok(Ask::Ping(None)));
        assert_eq!(
            read(r#"{"type":"subscribe","sessionId":"x"}"#),
            Err(BadMessage::Session)
        );
        assert_eq!(
            read(r#"{"type":"subscribe","sessionId":"ID","from":"7"}"#),
            Err(BadMessage::Version)
        );
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"type":"stop"}"#,
            r#"{"type":"subscribe"}"#,
            "\u{0}",
        ] {
            assert_eq!(read(wrong), Err(BadMessage::Shape), "{wrong}");
        }
        assert_eq!(parse(&" ".repeat(MAX_MESSAGE + 1)), Err(BadMessage::Shape));
    }

    #[test]
    fn news_are_one_line_of_json_with_the_document_in_it() {
        let version = Version::FIRST;
        let document = Bytes::from_static(b"{\"a\":\n1.0}");
        let news = News::Updated {
            version,
            document,
            resync: true,
        };
        let text = String::from_utf8(news.message(session())).expect("utf-8");
        assert!(!text.contains('\n'));
        assert!(text.ends_with(",\"session\":{\"a\": 1.0}}"), "{text}");
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["type"], "session.updated");
        assert_eq!(value["version"], "1.1");
        assert_eq!(value["resync"], true);
        let gone: Value =
            serde_json::from_slice(&News::Deleted(version).message(session())).expect("json");
        assert_eq!(gone["type"], "session.deleted");
    }
}
