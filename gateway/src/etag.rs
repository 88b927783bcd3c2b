//! Entity tags: `"E.R"`, with suffixes for format and content coding, as in `"1.7-pw-zstd"`.
//!
//! Guarantees: a tag names one sequence of bytes; `If-Match` compares the version alone; a list of tags is bounded. A
//! weak tag never satisfies `If-Match` (RFC 9110, section 13.1.1), and does satisfy `If-None-Match`. Tags that we never
//! made are no error: they match nothing.

use http::HeaderValue;
use model::id::Version;

use crate::negotiate::Coding;

/// Most tags in one header; more is an error.
pub const MAX_TAGS: usize = 64;

/// Which form of a document an answer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The version 2 document.
    #[default]
    Psp,
    /// The version 2 document with version 1's fields.
    V1,
    /// Playwright's storage state.
    Playwright,
}

impl Format {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Psp => "",
            Self::V1 => "-v1",
            Self::Playwright => "-pw",
        }
    }
}

/// What one of our tags says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The content.
    pub version: Version,
    /// Its form.
    pub format: Format,
    /// Its content coding.
    pub coding: Coding,
    /// Whether something on the way weakened it.
    pub weak: bool,
}

impl Tag {
    /// The header's value.
    ///
    /// # Panics
    /// Never: a tag is visible ASCII.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        let Self {
            version,
            format,
            coding,
            weak,
        } = self;
        let weak = if *weak { "W/" } else { "" };
        let text = format!("{weak}\"{version}{}{}\"", format.suffix(), coding.suffix());
        HeaderValue::from_str(&text).expect("a tag is visible ASCII")
    }
}

/// The tag of a version without suffix.
#[must_use]
pub fn plain(version: Version) -> HeaderValue {
    let (format, coding) = (Format::Psp, Coding::Identity);
    Tag {
        version,
        format,
        coding,
        weak: false,
    }
    .value()
}

/// What `If-Match` or `If-None-Match` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `*`.
    Any,
    /// One of these; foreign tags are left out.
    Tags(Vec<Tag>),
}

/// A header that is not a list of entity tags, or has more than [`MAX_TAGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of at most {MAX_TAGS} entity tags")]
pub struct BadCondition;

/// Reads the value of `If-Match` or `If-None-Match`.
///
/// # Errors
/// [`BadCondition`].
pub fn parse(value: &str) -> Result<Condition, BadCondition> {
    if value.trim() == "*" {
        return Ok(Condition::Any);
    }
    let mut tags = Vec::new();
    let mut count = 0_usize;
    let mut rest = value.trim();
    loop {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let quoted = quoted.strip_prefix('"').ok_or(BadCondition)?;
        let (opaque, after) = quoted.split_once('"').ok_or(BadCondition)?;
        count = count.saturating_add(1);
        if count > MAX_TAGS {
            return Err(BadCondition);
        }
        tags.extend(ours(opaque, weak));
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(Condition::Tags(tags));
        }
        rest = rest.strip_prefix(',').ok_or(BadCondition)?.trim_start();
    }
}

fn ours(opaque: &str, weak: bool) -> Option<Tag> {
    let (version, suffix) = match opaque.split_once('-') {
        Some((version, suffix)) => (version, suffix),
        None => (opaque, ""),
    };
    let version = version.parse().ok()?;
    let (format, coding) = match suffix.split_once('-') {
        Some((format, coding)) => (format, coding),
        None if matches!(suffix, "gzip" | "zstd") => ("", suffix),
        None => (suffix, ""),
    };
    let format = match format {
        "" => Format::Psp,
        "v1" => Format::V1,
        "pw" => Format::Playwright,
        _ => return None,
    };
    let coding = match coding {
        "" => Coding::Identity,
        "gzip" => Coding::Gzip,
        "zstd" => Coding::Zstd,
        _ => return None,
    };
    Some(Tag {
        version,
        format,
        coding,
        weak,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_tag() -> impl Strategy<Value = Tag> {
        let format = prop_oneof![
            Just(Format::Psp),
            Just(Format::V1),
            Just(Format::Playwright)
        ];
        let coding = prop_oneof![
            Just(Coding::Identity),
            Just(Coding::Gzip),
            Just(Coding::Zstd)
        ];
        (any::<u32>(), any::<u64>(), format, coding, any::<bool>()).prop_map(
            |(epoch, revision, format, coding, weak)| Tag {
                version: Version { epoch, revision },
                format,
                coding,
                weak,
            },
        )
    }

    proptest! {
        #[test]
        fn a_list_of_our_tags_comes_back(tags in prop::collection::vec(any_tag(), 1..MAX_TAGS)) {
            let texts: Vec<_> = tags.iter().map(|tag| tag.value().to_str().expect("ascii").to_owned()).collect();
            prop_assert_eq!(parse(&texts.join(" , ")), Ok(Condition::Tags(tags)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _parsed = parse(&text);
        }
    }

    #[test]
    fn foreign_tags_match_nothing_and_what_is_no_list_is_refused() {
        assert_eq!(
            parse(r#""abc", W/"1.x", "1.2-br", "1.2-pw-gzip-x", """#),
            Ok(Condition::Tags(Vec::new()))
        );
        assert_eq!(parse(" * "), Ok(Condition::Any));
        for wrong in [
            "",
            "1.2",
            "\"1.2",
            "\"1.2\" \"1.3\"",
            "\"1.2\",",
            "w/\"1.2\"",
        ] {
            assert_eq!(parse(wrong), Err(BadCondition), "{wrong}");
        }
        assert_eq!(
            parse(&vec!["\"1.1\""; MAX_TAGS + 1].join(",")),
            Err(BadCondition)
        );
    }
}
