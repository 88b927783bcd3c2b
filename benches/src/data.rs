//! Storage states as browsers have them: of a wanted size, and the same for the same seed.
//!
//! [`Text::Real`] has what logins leave behind: tracking ids, session tokens, signed tokens, preferences and caches as JSON inside of
//! strings, records of databases; names and structure come again and again, tokens never. [`Text::Random`] has the same frame
//! around letters that follow from nothing, which no compression makes much shorter than three quarters. Both are plain ASCII.

use std::fmt::Write as _;

use bytes::Bytes;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The smallest state that is made, in bytes.
pub const SMALLEST: usize = 1024;
/// From this size a state has databases.
const WITH_DATABASE: usize = 48 * 1024;
/// Bytes that are left for the last entry, which makes the size right.
const LAST: usize = 96;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What the strings of a state are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// As of a browser in use.
    Real,
    /// Letters that follow from nothing.
    Random,
}

impl std::str::FromStr for Text {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "real" => Ok(Self::Real),
            "random" => Ok(Self::Random),
            other => Err(format!("{other}: a text is real or random")),
        }
    }
}

/// State `number` of a set, with `bytes` bytes (at least [`SMALLEST`]), as the body of a write.
#[must_use]
pub fn state(seed: u64, number: u64, bytes: usize, text: Text) -> Bytes {
    let mixed = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = bytes.max(SMALLEST);
    let mut maker = Maker {
        dice: ChaCha8Rng::seed_from_u64(mixed),
        out: String::with_capacity(bytes + 64),
        bytes,
    };
    match text {
        Text::Real => maker.real(),
        Text::Random => maker.random(),
    }
    Bytes::from(maker.out)
}

struct Maker {
    dice: ChaCha8Rng,
    out: String,
    bytes: usize,
}

const SITES: [&str; 12] = [
    "accounts.example.com",
    "shop.example.com",
    "mail.example.org",
    "app.example.io",
    "docs.example.net",
    "pay.example.com",
    "video.example.tv",
    "news.example.org",
    "crm.example.io",
    "bank.example.com",
    "travel.example.net",
    "social.example.org",
];
const COOKIES: [&str; 16] = [
    "_ga",
    "_gid",
    "_fbp",
    "sid",
    "csrf_token",
    "__Host-session",
    "__Secure-id",
    "lang",
    "consent",
    "_hjSessionUser",
    "remember_token",
    "cart_id",
    "ajs_anonymous_id",
    "OptanonConsent",
    "XSRF-TOKEN",
    "device_id",
];
const KEYS: [&str; 14] = [
    "persist:root",
    "ajs_user_traits",
    "feature-flags",
    "auth.token",
    "theme",
    "recent-searches",
    "lastVisited",
    "i18nextLng",
    "cart",
    "notifications",
    "oidc.user",
    "draft",
    "query-cache",
    "onboarding",
];
const WORDS: [&str; 40] = [
    "account",
    "session",
    "enabled",
    "profile",
    "settings",
    "default",
    "updated",
    "payment",
    "invoice",
    "customer",
    "project",
    "dashboard",
    "notification",
    "message",
    "thread",
    "favorite",
    "history",
    "search",
    "product",
    "category",
    "price",
    "currency",
    "quantity",
    "address",
    "country",
    "language",
    "theme",
    "dark",
    "light",
    "email",
    "phone",
    "status",
    "active",
    "pending",
    "archived",
    "title",
    "description",
    "author",
    "comment",
    "version",
];

impl Maker {
    fn real(&mut self) {
        self.out.push_str("{\"cookies\":[");
        // About a third are cookies, and no browser has more than some dozens for the sites of one login.
        let (most, until) = (60, self.bytes / 3);
        for place in 0..most {
            if place > 0 && self.out.len() > until {
                break;
            }
            self.comma();
            self.cookie();
        }
        self.out.push(']');
        if self.bytes >= WITH_DATABASE {
            self.database();
        }
        self.out.push_str(",\"origins\":[");
        let mut site = self.dice.random_range(0..SITES.len());
        self.origin(site);
        let mut entries = 0;
        while self.left() > LAST + 1500 {
            if entries == 24 {
                self.out.push_str("]},");
                site += 1;
                entries = 0;
                self.origin(site % SITES.len());
            }
            self.comma();
            self.entry(entries);
            entries += 1;
        }
        self.last(Text::Real);
    }

    fn random(&mut self) {
        self.out.push_str("{\"cookies\":[],\"origins\":[");
        self.origin(0);
        self.last(Text::Random);
    }

    fn left(&self) -> usize {
        self.bytes.saturating_sub(self.out.len())
    }

    /// Before all parts of a list but the first.
    fn comma(&mut self) {
        if !self.out.ends_with('[') {
            self.out.push(',');
        }
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("a string takes what is written");
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(&mut self.dice).expect("it is not empty")
    }

    fn letters(&mut self, count: usize) {
        for _ in 0..count {
            let letter = LETTERS.choose(&mut self.dice).expect("there are letters");
            self.out.push(char::from(*letter));
        }
    }

    fn hex(&mut self, count: usize) {
        for _ in 0..count {
            let digit = self.dice.random_range(0..16_u8);
            self.add(format_args!("{digit:x}"));
        }
    }

    fn uuid(&mut self) {
        for (place, count) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            if place > 0 {
                self.out.push('-');
            }
            self.hex(count);
        }
    }

    fn millis(&mut self) -> u64 {
        1_790_000_000_000 + self.dice.random_range(0..10_000_000_000_u64)
    }

    /// A signed token: its head is the same everywhere, its claims resemble each other, its signature is random.
    fn token(&mut self) {
        self.out.push_str("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6Im1haW4ifQ.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmV4YW1wbGUuY29tIiwiYXVkIjoid2ViIiwic3ViIjoi");
        self.letters(24);
        self.out
            .push_str("IiwiZW1haWxfdmVyaWZpZWQiOnRydWUsInNjb3BlIjoib3BlbmlkIHByb2ZpbGUgZW1haWwiLCJpYXQiOjE3OT");
        self.letters(20);
        self.out.push('.');
        self.letters(342);
    }

    fn cookie(&mut self) {
        let name = self.pick(&COOKIES);
        self.add(format_args!("{{\"name\":\"{name}\",\"value\":\""));
        match self.dice.random_range(0..10) {
            0..3 => {
                let (id, at) = (self.dice.random::<u32>(), self.millis() / 1000);
                self.add(format_args!("GA1.1.{id}.{at}"));
            }
            3..6 => self.uuid(),
            6..8 => self.letters(43),
            8 => self.hex(64),
            _ => self.letters(180),
        }
        let site = self.pick(&SITES);
        let expires = self.millis() / 1000;
        let micros = self.dice.random_range(0..1_000_000);
        let (http_only, secure) = (self.dice.random_bool(0.4), self.dice.random_bool(0.8));
        let same = self.pick(&["Lax", "Lax", "None", "Strict"]);
        self.add(format_args!(
            "\",\"domain\":\".{site}\",\"path\":\"/\",\"expires\":{expires}.{micros:06},\"httpOnly\":{http_only},\"secure\":{secure},\"sameSite\":\"{same}\"}}"
        ));
    }

    fn origin(&mut self, site: usize) {
        self.add(format_args!(
            "{{\"origin\":\"https://{}\",\"localStorage\":[",
            SITES[site]
        ));
    }

    /// One entry of local storage, at most 1,500 bytes.
    fn entry(&mut self, number: usize) {
        let name = self.pick(&KEYS);
        self.add(format_args!("{{\"key\":\"{name}:{number}\",\"value\":\""));
        match self.dice.random_range(0..8) {
            0 => self.uuid(),
            1 => {
                let at = self.millis();
                self.add(format_args!("{at}"));
            }
            2 => self.token(),
            3 => self.letters(200),
            _ => {
                self.out.push('[');
                for place in 0..self.dice.random_range(2..7) {
                    if place > 0 {
                        self.out.push(',');
                    }
                    self.record("\\\"");
                }
                self.out.push(']');
            }
        }
        self.out.push_str("\"}");
    }

    /// An object of an application, about 190 bytes, with this for a quotation mark.
    fn record(&mut self, quote: &str) {
        let (id, at) = (self.dice.random_range(1..100_000_u32), self.millis());
        let (one, two) = (self.pick(&WORDS), self.pick(&WORDS));
        let (kind, flag) = (self.pick(&WORDS), self.dice.random_bool(0.5));
        let q = quote;
        self.add(format_args!("{{{q}id{q}:{id},{q}key{q}:{q}"));
        self.hex(16);
        self.add(format_args!(
            "{q},{q}title{q}:{q}{one} {two}{q},{q}type{q}:{q}{kind}{q},{q}updatedAt{q}:{at},{q}enabled{q}:{flag},{q}tags{q}:[{q}{two}{q},{q}{kind}{q}]}}"
        ));
    }

    /// A database with half of the bytes that are left.
    fn database(&mut self) {
        let until = self.out.len() + self.left() / 2;
        self.out.push_str(",\"indexedDB\":[{\"origin\":\"https://app.example.io\",\"name\":\"app\",\"version\":4,\"objectStores\":[{\"name\":\"items\",\"keyPath\":\"id\",\"autoIncrement\":false,\"indexes\":[],\"records\":[");
        let mut key = 0;
        while self.out.len() < until {
            self.comma();
            self.add(format_args!("{{\"key\":{key},\"value\":"));
            self.record("\"");
            self.out.push('}');
            key += 1;
        }
        self.out.push_str("]}]}]");
    }

    /// The entry that makes the size right, and all ends.
    fn last(&mut self, text: Text) {
        const END: &str = "\"}]}]}";
        self.comma();
        self.out.push_str("{\"key\":\"last\",\"value\":\"");
        let end = self.bytes.saturating_sub(END.len());
        while self.out.len() < end {
            match text {
                Text::Random => self.letters(end - self.out.len()),
                Text::Real => {
                    let word = self.pick(&WORDS);
                    self.out.push_str(word);
                    self.out.push(' ');
                }
            }
        }
        self.out.truncate(end);
        self.out.push_str(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 6] = [1024, 2048, 4096, 65_536, 300_000, 4 << 20];

    #[test]
    fn a_state_is_a_document_of_its_size() {
        for text in [Text::Real, Text::Random] {
            for bytes in SIZES {
                let made = state(1, 7, bytes, text);
                assert_eq!(made.len(), bytes, "{text:?}");
                model::document::create(&made).expect("a document");
            }
        }
    }

    #[test]
    fn it_follows_from_seed_and_number() {
        let one = |seed, number| state(seed, number, 4096, Text::Real);
        assert_eq!(one(1, 2), one(1, 2));
        assert_ne!(one(1, 2), one(1, 3));
        assert_ne!(one(1, 2), one(2, 2));
    }

    #[test]
    fn real_text_becomes_less_than_half_and_random_text_hardly_shorter() {
        for bytes in [4096, 65_536] {
            let packed = |text| {
                zstd::bulk::compress(&state(3, 1, bytes, text), 3)
                    .expect("it compresses")
                    .len()
            };
            let (real, random) = (packed(Text::Real), packed(Text::Random));
            assert!(real * 2 < bytes, "{bytes}: real {real}");
            assert!(random * 10 > bytes * 7, "{bytes}: random {random}");
        }
    }
}
