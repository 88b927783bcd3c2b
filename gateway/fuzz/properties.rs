//! What must hold for any input, for each parser of the gateway that meets the network.
//!
//! The fuzz targets run these on what a fuzzer makes up; the tests run them on the corpus.

use gateway::etag::{self, Condition};
use gateway::path;
use gateway::query::Query;
use gateway::token::Tokens;
use gateway::{negotiate, watch};
use model::id::TenantId;
use secrecy::{ExposeSecret, SecretBox};

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// What is read as tags comes back from their text.
pub(crate) fn etag(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(Condition::Tags(tags)) = etag::parse(text) {
        assert!(tags.len() <= etag::MAX_TAGS);
        for tag in tags {
            let value = tag.value();
            let again = etag::parse(value.to_str().expect("a tag is ASCII"));
            assert_eq!(again, Ok(Condition::Tags(vec![tag])));
        }
    }
}

/// A token that we take is one that we would make.
pub(crate) fn token(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let tokens = Tokens::new(&SecretBox::new(Box::new([7; 32])));
    if let Ok(seen) = tokens.open(TenantId::DEFAULT, text) {
        assert_eq!(tokens.seal(TenantId::DEFAULT, &seen), text);
    }
    if let Ok(after) = tokens.open_cursor(TenantId::DEFAULT, text) {
        assert_eq!(tokens.seal_cursor(TenantId::DEFAULT, after), text);
    }
}

/// There is a coding for any header, and none where none is taken.
pub(crate) fn coding(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let coding = negotiate::choose(Some(text));
    if let Some(name) = coding.name() {
        let lower = text.to_ascii_lowercase();
        assert!(lower.contains(name) || lower.contains('*'), "{text}");
    }
}

/// A path is lower case and begins with a slash; what is shown of it does not show the key.
pub(crate) fn path(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let target = path::split(text);
    assert!(target.path.starts_with('/'));
    assert!(!target.path.bytes().any(|byte| byte.is_ascii_uppercase()));
    let shown = format!("{target:?}");
    if let Some(key) = &target.key {
        let key = key.expose_secret();
        let upper = key.bytes().any(|byte| byte.is_ascii_uppercase());
        // A key that could not be part of the path otherwise.
        assert!(!upper || key.len() < 8 || !target.path.contains(key));
        assert!(shown.contains("***"));
    }
}

/// Names that are there are found.
pub(crate) fn query(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(query) = Query::parse(text) {
        for name in [
            "tag",
            "name",
            "limit",
            "offset",
            "cursor",
            "format",
            "consistency",
            "from",
        ] {
            if text.split('&').any(|part| part == name) {
                assert!(query.get(name).is_some());
            }
        }
    }
}

/// Any message is read or refused.
pub(crate) fn message(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _asked = watch::parse(text);
    if let Ok(version) = watch::version(text) {
        assert_eq!(watch::version(&version.to_string()), Ok(version));
    }
}
