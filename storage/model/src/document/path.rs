//! Paths in errors: the protocol's field names, and positions for everything else.
//!
//! A key that the protocol does not know may itself be private (a key of localStorage, say), so it is never shown: the
//! fifth member of an object is `{4}`, as the fifth element of an array is `[4]`.

use std::fmt::Write;

use super::text::Text;

/// One step from a value to one inside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// An element of an array, from 0.
    Item(u32),
    /// A member of an object: its key, and its position from 0.
    Key(Text<'a>, u32),
}

/// Appends a step to a path.
pub(super) fn push_step(path: &mut String, step: Step<'_>) {
    let written = match step {
        Step::Item(position) => write!(path, "[{position}]"),
        Step::Key(key, position) => match KNOWN.iter().find(|known| key.is(known)) {
            Some(known) if path.is_empty() => write!(path, "{known}"),
            Some(known) => write!(path, ".{known}"),
            None => write!(path, "{{{position}}}"),
        },
    };
    written.expect("a String takes all that is written to it");
}

/// The field names of the protocol and of Playwright's storage state.
const KNOWN: [&str; 108] = [
    "$schema",
    "protocolVersion",
    "id",
    "name",
    "description",
    "tags",
    "cookies",
    "origins",
    "indexedDB",
    "serviceWorkers",
    "browserContext",
    "source",
    "timestamps",
    "encryption",
    "playwright",
    "checksum",
    "value",
    "domain",
    "path",
    "expires",
    "httpOnly",
    "secure",
    "sameSite",
    "priority",
    "sameParty",
    "sourceScheme",
    "sourcePort",
    "partitionKey",
    "origin",
    "localStorage",
    "sessionStorage",
    "key",
    "size",
    "truncated",
    "version",
    "objectStores",
    "keyPath",
    "autoIncrement",
    "indexes",
    "unique",
    "multiEntry",
    "records",
    "scriptURL",
    "scope",
    "registrationId",
    "state",
    "userAgent",
    "viewport",
    "width",
    "height",
    "deviceScaleFactor",
    "isMobile",
    "hasTouch",
    "isLandscape",
    "geolocation",
    "latitude",
    "longitude",
    "accuracy",
    "permissions",
    "timezoneId",
    "locale",
    "colorScheme",
    "type",
    "captureMethod",
    "profilePath",
    "profileName",
    "serviceId",
    "mergedFrom",
    "created",
    "updated",
    "captured",
    "algorithm",
    "keyDerivation",
    "iterations",
    "salt",
    "iv",
    "encryptedFields",
    "data",
    "stores",
    "keyPathArray",
    "keyEncoded",
    "valueEncoded",
    "opfs",
    "base64",
    "credentials",
    "_crHasCrossSiteAncestor",
    "topLevelSite",
    "hasCrossSiteAncestor",
    "createdAt",
    "updatedAt",
    "extra",
    "order",
    "o",
    "k",
    "v",
    "a",
    "d",
    "u",
    "bi",
    "e",
    "n",
    "m",
    "s",
    "r",
    "p",
    "f",
    "ta",
    "b",
];

#[cfg(test)]
mod tests {
    use super::{Step, push_step};
    use crate::document::text::Text;

    #[test]
    fn known_fields_are_named_and_all_others_are_counted() {
        let mut path = String::new();
        push_step(&mut path, Step::Key(Text::new(b"origins", false), 4));
        push_step(&mut path, Step::Item(0));
        push_step(&mut path, Step::Key(Text::new(b"localStorage", false), 1));
        push_step(
            &mut path,
            Step::Key(Text::new(b"user@example.org", false), 7),
        );
        assert_eq!(path, "origins[0].localStorage{7}");
    }
}
