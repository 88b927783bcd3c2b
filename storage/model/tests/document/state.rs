//! Random storage states: as Playwright writes them, and with every oddity that can be said in JSON.

use super::random::Random;

const USUAL_COOKIE: [(&str, &[&str]); 8] = [
    ("name", &["\"sid\"", "\"a\"", "\"\"", "\"\\u0061\""]),
    ("value", &["\"v\"", "\"\"", "\"x=y; z\"", "\"\\ud800\""]),
    (
        "domain",
        &["\"localhost\"", "\".example.com\"", "\"example.com\""],
    ),
    ("path", &["\"/\"", "\"/app\""]),
    (
        "expires",
        &[
            "-1",
            "1795448396.686296",
            "0",
            "1.0",
            "99999999999999",
            "-5",
        ],
    ),
    ("httpOnly", &["true", "false"]),
    ("secure", &["true", "false"]),
    (
        "sameSite",
        &[
            "\"Lax\"",
            "\"None\"",
            "\"Strict\"",
            "\"lax\"",
            "\"unspecified\"",
        ],
    ),
];

const UNKNOWN: [&str; 8] = [
    "opfs",
    "more",
    "cookies",
    "playwright",
    "origin",
    "asIs",
    "_crHasCrossSiteAncestor",
    "credentials",
];

const ENCODED: [&str; 14] = [
    "{\"d\":\"1970-01-01T00:00:00.005Z\"}",
    "{\"v\":\"NaN\"}",
    "{\"v\":\"undefined\"}",
    "{\"bi\":\"10\"}",
    "{\"ta\":{\"b\":\"AQID\",\"k\":\"ui8\"}}",
    "{\"o\":[{\"k\":\"id\",\"v\":1},{\"k\":\"when\",\"v\":{\"d\":\"1970-01-01T00:00:00.000Z\"}}],\"id\":1}",
    "{\"a\":[1,{\"v\":\"-0\"},\"x\"],\"id\":2}",
    "{\"id\":3,\"o\":[]}",
    "{\"o\":[{\"k\":\"self\",\"v\":{\"ref\":1}}],\"id\":1}",
    "{\"r\":{\"p\":\"a+\",\"f\":\"g\"}}",
    "\"plain\"",
    "5",
    "{\"new\":{\"kind\":1}}",
    "[1,2]",
];

impl Random {
    /// A storage state; `odd` ones have what Playwright would not write.
    pub(crate) fn state(&mut self, odd: bool) -> String {
        let mut members = vec![
            (
                "cookies".to_owned(),
                self.list(4, |random| random.cookie(odd)),
            ),
            (
                "origins".to_owned(),
                self.list(4, |random| random.origin(odd)),
            ),
        ];
        self.disturb(&mut members, odd);
        object(&members)
    }

    fn cookie(&mut self, odd: bool) -> String {
        let mut members: Vec<_> = USUAL_COOKIE
            .iter()
            .map(|(name, values)| {
                let values = if odd { values } else { values.split_at(2).0 };
                ((*name).to_owned(), self.pick(values).to_owned())
            })
            .collect();
        if self.once_in(3) {
            members.push(("partitionKey".to_owned(), "\"http://localhost\"".to_owned()));
            members.push((
                "_crHasCrossSiteAncestor".to_owned(),
                self.pick(&["true", "false"]).to_owned(),
            ));
        }
        self.disturb(&mut members, odd);
        object(&members)
    }

    fn origin(&mut self, odd: bool) -> String {
        let number = self.below(3);
        let mut members = vec![
            (
                "origin".to_owned(),
                format!("\"http://site{number}.example\""),
            ),
            (
                "localStorage".to_owned(),
                self.list(4, |random| random.entry(odd)),
            ),
        ];
        if self.once_in(2) {
            let least = usize::from(!odd);
            let databases = self.list(2 + least, |random| random.database(odd));
            if odd || databases != "[]" {
                members.push(("indexedDB".to_owned(), databases));
            }
        }
        if self.once_in(3) {
            members.push((
                "opfs".to_owned(),
                "[{\"path\":\"f.txt\",\"base64\":\"aGVsbG8=\"}]".to_owned(),
            ));
        }
        let origin = members
            .first()
            .cloned()
            .expect("an origin begins with its name");
        self.disturb(&mut members, odd);
        // An origin without a name is refused.
        members.retain(|(name, _)| name != "origin");
        let place = if odd {
            self.below(members.len() + 1)
        } else {
            0
        };
        members.insert(place, origin);
        object(&members)
    }

    fn entry(&mut self, odd: bool) -> String {
        let mut members = vec![
            ("name".to_owned(), format!("\"{}\"", self.text())),
            ("value".to_owned(), format!("\"{}\"", self.text())),
        ];
        if odd && self.once_in(4) {
            members.insert(self.below(3), ("key".to_owned(), "\"k\"".to_owned()));
        }
        if odd && self.once_in(4) {
            members.reverse();
        }
        object(&members)
    }

    fn database(&mut self, odd: bool) -> String {
        let mut members = vec![
            ("name".to_owned(), "\"db\"".to_owned()),
            (
                "version".to_owned(),
                self.pick(&["1", "3", "1e0"]).to_owned(),
            ),
            (
                "stores".to_owned(),
                self.list(3, |random| random.store(odd)),
            ),
        ];
        self.disturb(&mut members, odd);
        object(&members)
    }

    fn store(&mut self, odd: bool) -> String {
        let mut members = vec![
            ("name".to_owned(), "\"store\"".to_owned()),
            (
                "autoIncrement".to_owned(),
                self.pick(&["true", "false"]).to_owned(),
            ),
        ];
        let inline = self.push_key_path(&mut members);
        members.push((
            "records".to_owned(),
            self.list(4, |random| {
                let odd_key = odd && random.once_in(4);
                random.record(odd, (!inline || odd_key).then_some("key"))
            }),
        ));
        members.push((
            "indexes".to_owned(),
            self.list(3, |random| random.index(odd)),
        ));
        self.disturb(&mut members, odd);
        object(&members)
    }

    fn index(&mut self, odd: bool) -> String {
        let mut members = vec![("name".to_owned(), "\"by\"".to_owned())];
        self.push_key_path(&mut members);
        members.push(("multiEntry".to_owned(), "false".to_owned()));
        members.push(("unique".to_owned(), "true".to_owned()));
        self.disturb(&mut members, odd);
        object(&members)
    }

    fn push_key_path(&mut self, members: &mut Vec<(String, String)>) -> bool {
        match self.below(3) {
            0 => members.push(("keyPath".to_owned(), "\"id\"".to_owned())),
            1 => members.push(("keyPathArray".to_owned(), "[\"x\",\"y\"]".to_owned())),
            _ => return false,
        }
        true
    }

    fn record(&mut self, odd: bool, key: Option<&str>) -> String {
        let mut members = Vec::new();
        if let Some(key) = key {
            members.push(self.encoded_or_plain(key));
        }
        members.push(self.encoded_or_plain("value"));
        if odd && self.once_in(4) {
            members.push(self.encoded_or_plain("value"));
        }
        self.disturb(&mut members, odd);
        members.sort_by_key(|(name, _)| name.len());
        members.dedup_by(|one, other| one.0 == other.0);
        object(&members)
    }

    fn encoded_or_plain(&mut self, name: &str) -> (String, String) {
        if self.once_in(2) {
            (format!("{name}Encoded"), self.pick(&ENCODED).to_owned())
        } else {
            (
                name.to_owned(),
                self.pick(&["1", "\"x\"", "1.50", "null", "{\"b\":1.0,\"1\":2}"])
                    .to_owned(),
            )
        }
    }

    /// Loses, nulls, moves and adds members.
    fn disturb(&mut self, members: &mut Vec<(String, String)>, odd: bool) {
        if !odd {
            return;
        }
        if self.once_in(6) && !members.is_empty() {
            members.remove(self.below(members.len()));
        }
        if self.once_in(8) && !members.is_empty() {
            let place = self.below(members.len());
            members
                .iter_mut()
                .skip(place)
                .take(1)
                .for_each(|member| member.1 = "null".to_owned());
        }
        if self.once_in(6) {
            members.reverse();
        }
        if self.once_in(3) {
            let name = self.pick(&UNKNOWN).to_owned();
            if !members.iter().any(|(there, _)| *there == name)
                && name != "cookies"
                && name != "origin"
            {
                let value = self
                    .pick(&["1", "\"x\"", "null", "{\"more\":1}", "[]"])
                    .to_owned();
                members.insert(self.below(members.len() + 1), (name, value));
            }
        }
    }

    fn list(&mut self, end: usize, mut item: impl FnMut(&mut Self) -> String) -> String {
        let count = self.below(end);
        let items: Vec<_> = (0..count).map(|_| item(self)).collect();
        format!("[{}]", items.join(","))
    }
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}
