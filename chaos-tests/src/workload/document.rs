//! Documents whose every part names the write that made it.
//!
//! A value is a short unique name; the text around it follows from the name, so that a reader can tell each byte that
//! nobody wrote. Cookies and local storage hold a secret: a prefix that is random for each run, and then the name. The prefix
//! is what the scan for secrets looks for.

use bytes::Bytes;
use model::document;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::history::Content;

/// Letters of the secret prefix: so many that no file has them by chance.
const PREFIX: usize = 20;
/// Letters by which the names of one run differ from those of another on the same cluster.
const RUN: usize = 6;

/// Makes and reads the documents of one run.
#[derive(Clone, Debug)]
pub struct Document {
    prefix: String,
    run: String,
}

impl Document {
    /// With a prefix of this run's own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5EC2_E75E_ED5E_C2E7);
        Self {
            prefix: letters(&mut random, PREFIX),
            run: letters(&mut random, RUN),
        }
    }

    /// The name of what a client's operation writes; no other run has it.
    #[must_use]
    pub fn name(&self, client: usize, number: u64) -> String {
        format!("{}-{client}-{number}", self.run)
    }

    /// What must be nowhere but in the answers to clients.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.prefix
    }

    /// The members of a document whose body has this name and about this many bytes.
    #[must_use]
    pub fn body(&self, name: &str, bytes: usize) -> Value {
        let secret = format!("{}{name}", self.prefix);
        json!({
            "description": described(name, bytes),
            "cookies": [{
                "name": "sid", "value": secret, "domain": "example.com", "path": "/",
                "expires": -1, "httpOnly": true, "secure": true, "sameSite": "Lax",
            }],
            "origins": [{
                "origin": "https://example.com",
                "localStorage": [{"key": "token", "value": secret}],
            }],
        })
    }

    /// Who wrote what an answer shows.
    ///
    /// # Errors
    /// When it holds what nobody wrote, parts of two writes, or a checksum that is not its own.
    pub fn read(&self, bytes: &Bytes) -> Result<Content, String> {
        let shown: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let made = document::create(bytes).map_err(|error| error.to_string())?;
        if shown["checksum"] != hex::encode(made.sections.checksum()) {
            return Err(format!("checksum {} is not its own", shown["checksum"]));
        }
        let body = match shown["description"].as_str() {
            None | Some("") => None,
            Some(text) => {
                let name = name_in(text).ok_or("a description that nobody wrote")?;
                let secret = format!("{}{name}", self.prefix);
                if shown["cookies"][0]["value"] != secret.as_str()
                    || shown["origins"][0]["localStorage"][0]["value"] != secret.as_str()
                {
                    return Err(format!("the parts of {name} are not all there"));
                }
                Some(name.to_owned())
            }
        };
        let tag = shown["tags"][0].as_str().map(str::to_owned);
        Ok(Content { body, tag })
    }
}

fn described(name: &str, bytes: usize) -> String {
    format!("{name}|{bytes}|{}", filler(name, bytes))
}

fn name_in(text: &str) -> Option<&str> {
    let (name, rest) = text.split_once('|')?;
    let (bytes, filled) = rest.split_once('|')?;
    let bytes = bytes.parse().ok()?;
    (filled.len() == bytes && filled == filler(name, bytes)).then_some(name)
}

/// Text that does not compress and follows from the name.
fn filler(name: &str, bytes: usize) -> String {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    letters(&mut ChaCha8Rng::seed_from_u64(seed), bytes)
}

fn letters(random: &mut impl Rng, count: usize) -> String {
    (0..count)
        .map(|_| char::from(random.sample(rand::distr::Alphanumeric)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(body: &Value) -> Bytes {
        let plain = Bytes::from(body.to_string());
        let made = document::create(&plain).unwrap();
        let mut body = body.clone();
        body["checksum"] = hex::encode(made.sections.checksum()).into();
        body.to_string().into()
    }

    #[test]
    fn a_document_names_its_writes() {
        let document = Document::new(1);
        let mut body = document.body("3-17", 300);
        body["tags"] = json!(["3-18"]);
        let content = document.read(&served(&body)).unwrap();
        assert_eq!(content.body.as_deref(), Some("3-17"));
        assert_eq!(content.tag.as_deref(), Some("3-18"));
    }

    #[test]
    fn a_torn_document_a_changed_byte_and_a_wrong_checksum_are_told() {
        let document = Document::new(1);
        let body = document.body("3-17", 300);
        let mut torn = body.clone();
        torn["cookies"] = document.body("3-16", 300)["cookies"].clone();
        assert!(document.read(&served(&torn)).is_err());
        let mut changed = body.clone();
        changed["description"] = described("3-17", 300)
            .replacen("3-17|300|", "3-17|300|~", 1)
            .into();
        assert!(document.read(&served(&changed)).is_err());
        let text = String::from_utf8(served(&body).to_vec()).unwrap();
        let wrong = text.replace("\"expires\":-1", "\"expires\":-2");
        assert!(document.read(&Bytes::from(wrong)).is_err());
        assert!(
            Document::new(2).read(&served(&body)).is_err(),
            "another run's"
        );
    }
}
