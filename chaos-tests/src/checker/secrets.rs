//! A scan of bytes for planted secrets: raw, in hexadecimal, percent-encoded, and in base64 at any alignment.
//!
//! Files are read in pieces that overlap by the length of the longest form, so that nothing hides at a seam, and each piece is
//! searched once for each form. What is compressed or encrypted hides a secret: of files, this finds what was written in the
//! clear. Files that vanish meanwhile are passed over; folders are walked without following links.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;

/// Bytes read at a time.
const PIECE: usize = 4 << 20;

/// The forms of one secret.
#[derive(Debug)]
pub struct Secrets {
    forms: Vec<(&'static str, Finder<'static>)>,
    longest: usize,
}

/// What a scan has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Where a secret was found, in words.
    pub found: Vec<String>,
}

impl Secrets {
    /// All forms of a secret, which is of letters and digits and at least eight of them.
    ///
    /// # Panics
    /// When it is shorter.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        assert!(secret.len() >= 8, "a short secret is found everywhere");
        let mut forms = vec![
            ("raw", secret.as_bytes().to_vec()),
            ("hex", hex::encode(secret).into_bytes()),
            ("hex", hex::encode_upper(secret).into_bytes()),
        ];
        for digits in [hex::encode(secret), hex::encode_upper(secret)] {
            let pairs = digits.as_bytes().chunks(2);
            let encoded = pairs.flat_map(|pair| [b'%', pair[0], pair[1]]).collect();
            forms.push(("percent-encoded", encoded));
        }
        for alphabet in [b"+/", b"-_"] {
            for before in 0..3 {
                forms.push(("base64", base64(secret.as_bytes(), before, *alphabet)));
            }
        }
        forms.dedup();
        let longest = forms.iter().map(|(_, form)| form.len()).max().unwrap_or(0);
        let finder =
            |(name, form): (&'static str, Vec<u8>)| (name, Finder::new(&form).into_owned());
        Self {
            forms: forms.into_iter().map(finder).collect(),
            longest,
        }
    }

    /// Scans bytes; `what` names them in what is found.
    pub fn scan_bytes(&self, what: &str, bytes: &[u8], scan: &mut Scan) {
        scan.bytes += bytes.len() as u64;
        for (form, finder) in &self.forms {
            if let Some(at) = finder.find(bytes) {
                scan.found
                    .push(format!("{what} holds a secret ({form}) at byte {at}"));
            }
        }
    }

    /// Scans a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn scan_file(&self, path: &Path, scan: &mut Scan) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let keep = self.longest - 1;
        let mut buffer = vec![0; keep + PIECE];
        let (mut kept, mut offset) = (0, 0_u64);
        scan.files += 1;
        loop {
            let read = file.read(&mut buffer[kept..])?;
            if read == 0 {
                return Ok(());
            }
            let filled = kept + read;
            let before = scan.found.len();
            self.scan_bytes(
                &format!("{} from {offset}", path.display()),
                &buffer[..filled],
                scan,
            );
            scan.bytes -= kept as u64;
            if scan.found.len() > before {
                return Ok(());
            }
            let new = filled.min(keep);
            buffer.copy_within(filled - new..filled, 0);
            offset += (filled - new) as u64;
            kept = new;
        }
    }

    /// Scans all files below these folders. Blocks.
    ///
    /// # Errors
    /// When a folder or a file cannot be read.
    pub fn scan_folders(&self, folders: &[PathBuf], scan: &mut Scan) -> std::io::Result<()> {
        let mut open: Vec<PathBuf> = folders.to_vec();
        while let Some(folder) = open.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() {
                    match self.scan_file(&entry.path(), scan) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        done => done?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// The part of the base64 text of some bytes, of which `before` come before the secret, that the secret alone decides.
fn base64(secret: &[u8], before: usize, last: [u8; 2]) -> Vec<u8> {
    let letter = |sextet: u8| match sextet {
        0..26 => b'A' + sextet,
        26..52 => b'a' + sextet - 26,
        52..62 => b'0' + sextet - 52,
        62 => last[0],
        _ => last[1],
    };
    let bit = |at: usize| secret[at / 8] >> (7 - at % 8) & 1;
    // The first sextet that begins in the secret.
    let skip = (6 - before * 8 % 6) % 6;
    let sextets = (secret.len() * 8 - skip) / 6;
    let sextet = |at: usize| (0..6).fold(0, |sextet, i| sextet << 1 | bit(skip + at * 6 + i));
    (0..sextets).map(|at| letter(sextet(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "Zx81kQpW3vTn7LmB2cYd";

    fn found(bytes: &[u8]) -> Vec<String> {
        let mut scan = Scan::default();
        Secrets::new(SECRET).scan_bytes("it", bytes, &mut scan);
        scan.found
    }

    #[test]
    fn every_form_is_found() {
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // Made by another program: base64 of "", "a", "ab" and "abc" before the secret, and of "-tail" after it.
        let encoded = [
            "Wng4MWtRcFczdlRuN0xtQjJjWWQtdGFpbA==",
            "YVp4ODFrUXBXM3ZUbjdMbUIyY1lkLXRhaWw=",
            "YWJaeDgxa1FwVzN2VG43TG1CMmNZZC10YWls",
            "YWJjWng4MWtRcFczdlRuN0xtQjJjWWQtdGFpbA==",
        ];
        assert_eq!(found(format!("cookie={SECRET};").as_bytes()).len(), 1);
        for text in [hex::encode(SECRET), hex::encode_upper(SECRET), percent] {
            assert!(!found(text.as_bytes()).is_empty(), "{text}");
        }
        for text in encoded {
            assert!(!found(text.as_bytes()).is_empty(), "{text}");
        }
        assert!(found(b"Zx81kQpW3vTn7LmB2cY and nothing more").is_empty());
    }

    #[test]
    fn a_secret_across_a_seam_or_at_the_end_is_found_and_each_byte_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let secrets = Secrets::new(SECRET);
        let seam = secrets.longest - 1 + PIECE;
        for at in [
            0,
            seam - SECRET.len(),
            seam - 10,
            seam - 1,
            seam,
            2 * seam - 3 * SECRET.len(),
        ] {
            let mut bytes = vec![0_u8; 2 * seam];
            bytes[at..at + SECRET.len()].copy_from_slice(SECRET.as_bytes());
            std::fs::write(inner.join("log"), &bytes).unwrap();
            let mut scan = Scan::default();
            secrets
                .scan_folders(&[dir.path().to_owned()], &mut scan)
                .unwrap();
            assert_eq!((scan.files, scan.found.len()), (1, 1), "at {at}: {scan:?}");
        }
        std::fs::write(inner.join("log"), vec![0_u8; 2 * seam + 5]).unwrap();
        let mut scan = Scan::default();
        secrets
            .scan_folders(&[dir.path().to_owned()], &mut scan)
            .unwrap();
        assert_eq!(scan.found, Vec::<String>::new());
        assert_eq!(scan.bytes, 2 * seam as u64 + 5);
    }
}
