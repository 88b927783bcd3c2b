//! The path of a request as the routes see it: without the key of `/k/KEY/...`, lower case, without a trailing slash.
//!
//! Guarantees: the key keeps its case, and no path that leaves here contains it, so that nothing behind can log it.

use std::fmt;

use secrecy::SecretString;

use crate::query::{Plus, decode};

/// A path in two parts.
pub struct Target {
    /// The path for the routes.
    pub path: String,
    /// The key in front of it, if there was one; empty when it is not UTF-8 after decoding.
    pub key: Option<SecretString>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|_| "***");
        f.debug_struct("Target")
            .field("path", &self.path)
            .field("key", &key)
            .finish()
    }
}

/// Takes a path apart.
#[must_use]
pub fn split(raw: &str) -> Target {
    let prefix = raw.strip_prefix("/k/").or_else(|| raw.strip_prefix("/K/"));
    let (key, rest) = match prefix {
        None => (None, raw),
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            let (key, rest) = after.split_at(end);
            let key = decode(key, Plus::IsPlus).unwrap_or_default();
            (Some(SecretString::from(key.into_owned())), rest)
        }
    };
    let trimmed = rest.strip_suffix('/').unwrap_or(rest);
    let mut path = trimmed.to_ascii_lowercase();
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    Target { path, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn parts(raw: &str) -> (String, Option<String>) {
        let target = split(raw);
        (
            target.path,
            target.key.map(|key| key.expose_secret().to_owned()),
        )
    }

    #[test]
    fn a_path_loses_its_key_its_case_and_its_slash() {
        let rows = [
            ("/", "/", None),
            ("", "/", None),
            ("/API/v2/Sessions/", "/api/v2/sessions", None),
            ("/k/Key-1/API/v2/", "/api/v2", Some("Key-1")),
            ("/K/a%2Fb+c/health", "/health", Some("a/b+c")),
            ("/k/Key", "/", Some("Key")),
            ("/k/Key/", "/", Some("Key")),
            ("/k//api", "/api", Some("")),
            ("/k/%ff/api", "/api", Some("")),
            ("/k", "/k", None),
            ("*", "/*", None),
        ];
        for (raw, path, key) in rows {
            assert_eq!(
                parts(raw),
                (path.to_owned(), key.map(str::to_owned)),
                "{raw}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_path_or_debug_text_contains_the_key(key in "[A-Z0-9]{12}", rest in "(/[a-z0-9]{0,8}){0,4}") {
            let target = split(&format!("/k/{key}{rest}"));
            let shown = format!("{target:?}");
            prop_assert!(!target.path.to_uppercase().contains(&key) || rest.to_uppercase().contains(&key));
            prop_assert!(!shown.contains(&key));
        }
    }
}
