//! The fields of a document: which there are, what they are called, and what each may hold.
//!
//! A known field of a wrong type is refused; `null` stands for a field that is not there; fields that are not listed
//! here hold what they like. Nothing is required: a cookie without a path is stored as sent.

use super::error::DocumentError;
use super::text::Text;
use super::token::Kind;
use super::tokenizer::Reader;

/// A top-level field that is stored as one piece. The number is part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Field {
    Name = 0,
    Description = 1,
    Tags = 2,
    Cookies = 3,
    Origins = 4,
    IndexedDb = 5,
    ServiceWorkers = 6,
    BrowserContext = 7,
    Source = 8,
    Encryption = 9,
    Playwright = 10,
}

impl Field {
    /// How many there are.
    pub(super) const COUNT: usize = 11;

    /// All of them, in the order in which a document is served.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Name,
        Self::Description,
        Self::Tags,
        Self::Cookies,
        Self::Origins,
        Self::IndexedDb,
        Self::ServiceWorkers,
        Self::BrowserContext,
        Self::Source,
        Self::Encryption,
        Self::Playwright,
    ];

    /// The name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Description => "description",
            Self::Tags => "tags",
            Self::Cookies => "cookies",
            Self::Origins => "origins",
            Self::IndexedDb => "indexedDB",
            Self::ServiceWorkers => "serviceWorkers",
            Self::BrowserContext => "browserContext",
            Self::Source => "source",
            Self::Encryption => "encryption",
            Self::Playwright => "playwright",
        }
    }

    /// The field with this key.
    pub(super) fn of_key(key: Text<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|field| key.is(field.name()))
    }

    /// What the field may hold.
    pub(super) const fn shape(self) -> &'static Shape {
        match self {
            Self::Name | Self::Description => &Shape::Text,
            Self::Tags => &Shape::List(&Shape::Text),
            Self::Cookies => &Shape::List(&Shape::Fields(COOKIE)),
            Self::Origins => &Shape::List(&Shape::Fields(ORIGIN)),
            Self::IndexedDb => &Shape::List(&Shape::Fields(DATABASE)),
            Self::ServiceWorkers => &Shape::List(&Shape::Fields(SERVICE_WORKER)),
            Self::BrowserContext => &Shape::Fields(BROWSER_CONTEXT),
            Self::Source => &Shape::Fields(SOURCE),
            Self::Encryption => &Shape::Fields(ENCRYPTION),
            Self::Playwright => &Shape::Fields(&[]),
        }
    }
}

/// What a value may be. `null` is taken by every field, and by no element of an array.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Number,
    Boolean,
    /// An array of such values.
    List(&'static Self),
    /// An object in which these fields have a shape.
    Fields(&'static [(&'static str, Self)]),
    /// An object whose values are strings, or an array of objects with a key and a value.
    Storage,
    /// A string or an array of strings.
    TextOrTexts,
    /// A string or an object.
    TextOrObject,
}

/// A cookie's fields.
pub(super) const COOKIE: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("value", Shape::Text),
    ("domain", Shape::Text),
    ("path", Shape::Text),
    ("expires", Shape::Number),
    ("httpOnly", Shape::Boolean),
    ("secure", Shape::Boolean),
    ("sameSite", Shape::Text),
    ("priority", Shape::Text),
    ("sameParty", Shape::Boolean),
    ("sourceScheme", Shape::Text),
    ("sourcePort", Shape::Number),
    // The DevTools protocol has an object here, Playwright a string.
    ("partitionKey", Shape::TextOrObject),
];

const ORIGIN: &[(&str, Shape)] = &[
    ("origin", Shape::Text),
    ("localStorage", Shape::Storage),
    ("sessionStorage", Shape::Storage),
];

const STORAGE_ENTRY: &[(&str, Shape)] = &[
    ("key", Shape::Text),
    ("name", Shape::Text),
    ("value", Shape::Text),
    ("size", Shape::Number),
    ("truncated", Shape::Boolean),
];

const DATABASE: &[(&str, Shape)] = &[
    ("origin", Shape::Text),
    ("name", Shape::Text),
    ("version", Shape::Number),
    ("objectStores", Shape::List(&Shape::Fields(OBJECT_STORE))),
];

const OBJECT_STORE: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("keyPath", Shape::TextOrTexts),
    ("autoIncrement", Shape::Boolean),
    ("indexes", Shape::List(&Shape::Fields(INDEX))),
    ("records", Shape::List(&Shape::Fields(&[]))),
];

const INDEX: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("keyPath", Shape::TextOrTexts),
    ("unique", Shape::Boolean),
    ("multiEntry", Shape::Boolean),
];

const SERVICE_WORKER: &[(&str, Shape)] = &[
    ("origin", Shape::Text),
    ("scriptURL", Shape::Text),
    ("scope", Shape::Text),
    ("registrationId", Shape::Text),
    ("state", Shape::Text),
];

const BROWSER_CONTEXT: &[(&str, Shape)] = &[
    ("userAgent", Shape::Text),
    ("viewport", Shape::Fields(VIEWPORT)),
    ("geolocation", Shape::Fields(GEOLOCATION)),
    ("permissions", Shape::List(&Shape::Text)),
    ("timezoneId", Shape::Text),
    ("locale", Shape::Text),
    ("colorScheme", Shape::Text),
];

/// The fields of a viewport.
pub(super) const VIEWPORT: &[(&str, Shape)] = &[
    ("width", Shape::Number),
    ("height", Shape::Number),
    ("deviceScaleFactor", Shape::Number),
    ("isMobile", Shape::Boolean),
    ("hasTouch", Shape::Boolean),
    ("isLandscape", Shape::Boolean),
];

const GEOLOCATION: &[(&str, Shape)] = &[
    ("latitude", Shape::Number),
    ("longitude", Shape::Number),
    ("accuracy", Shape::Number),
];

const SOURCE: &[(&str, Shape)] = &[
    ("type", Shape::Text),
    ("captureMethod", Shape::Text),
    ("profilePath", Shape::Text),
    ("profileName", Shape::Text),
    ("serviceId", Shape::Text),
    ("mergedFrom", Shape::TextOrTexts),
];

const ENCRYPTION: &[(&str, Shape)] = &[
    ("algorithm", Shape::Text),
    ("keyDerivation", Shape::Text),
    ("iterations", Shape::Number),
    ("salt", Shape::Text),
    ("iv", Shape::Text),
    ("encryptedFields", Shape::List(&Shape::Text)),
];

impl Shape {
    /// Reads over the next value and checks it. The recursion is as deep as the tables above.
    ///
    /// # Errors
    /// When the text is not JSON or the value has another shape.
    pub(super) fn check(&self, reader: &mut Reader<'_>) -> Result<(), DocumentError> {
        match self {
            Self::Text => reader.text().map(|_| ()),
            Self::Number => reader.number().map(|_| ()),
            Self::Boolean => reader.boolean().map(|_| ()),
            Self::List(element) => {
                reader.enter_array()?;
                while reader.next_item()? {
                    element.check(reader)?;
                }
                Ok(())
            }
            Self::Fields(fields) => {
                reader.enter_object()?;
                while let Some(key) = reader.next_key()? {
                    check_field(reader, fields, key)?;
                }
                Ok(())
            }
            Self::Storage => check_storage(reader),
            Self::TextOrTexts => match reader.kind()? {
                Kind::Text => reader.text().map(|_| ()),
                Kind::Array => Self::List(&Self::Text).check(reader),
                Kind::Object | Kind::Number | Kind::Boolean | Kind::Null => {
                    Err(reader.wrong_type("a string or an array of strings"))
                }
            },
            Self::TextOrObject => match reader.kind()? {
                Kind::Text | Kind::Object => reader.skip(),
                Kind::Array | Kind::Number | Kind::Boolean | Kind::Null => {
                    Err(reader.wrong_type("a string or an object"))
                }
            },
        }
    }
}

/// Reads over the value of an object's field, and checks it if the field is listed.
///
/// # Errors
/// When the text is not JSON or the value has another shape.
pub(super) fn check_field(
    reader: &mut Reader<'_>,
    fields: &[(&str, Shape)],
    key: Text<'_>,
) -> Result<(), DocumentError> {
    match fields.iter().find(|(name, _)| key.is(name)) {
        Some((_, shape)) if reader.kind()? != Kind::Null => shape.check(reader),
        _ => reader.skip(),
    }
}

fn check_storage(reader: &mut Reader<'_>) -> Result<(), DocumentError> {
    match reader.kind()? {
        Kind::Array => Shape::List(&Shape::Fields(STORAGE_ENTRY)).check(reader),
        Kind::Object => {
            reader.enter_object()?;
            while reader.next_key()?.is_some() {
                reader.text()?;
            }
            Ok(())
        }
        Kind::Text | Kind::Number | Kind::Boolean | Kind::Null => {
            Err(reader.wrong_type("an array or an object"))
        }
    }
}
