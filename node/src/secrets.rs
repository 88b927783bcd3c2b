//! Secrets from files: read once at start, refused when other users may read them, never printed.
//!
//! The master key wraps the sessions' keys; who has it and a disk can read the sessions. The cluster secret
//! authenticates tokens. The API key is what clients show.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::{Zeroize as _, Zeroizing};

/// Longest secret file that is read, in bytes: a mistaken path must not fill memory.
const MAX_FILE: u64 = 64 * 1024;
/// Shortest API key: 128 bits in the densest usual text form.
const MIN_API_KEY: usize = 22;

/// 32 random bytes. Wiped from memory when dropped; `Debug` shows nothing.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// The bytes, to hand them to what uses them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A secret that cannot be used. Never holds its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("secret file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error("secret file {} has mode {mode:04o}: only its owner may read it", path.display())]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It is not what it should be.
    #[error("secret file {}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
}

/// Reads a file of 64 hexadecimal digits: 32 bytes.
///
/// # Errors
/// See [`SecretError`].
pub fn read_key(path: &Path) -> Result<Key, SecretError> {
    let text = read_text(path)?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_secret| {
        let what = "must hold 64 hexadecimal digits";
        SecretError::Content {
            path: path.to_owned(),
            what,
        }
    })?;
    Ok(Key(bytes))
}

/// Reads an API key: one line of at least 22 printable ASCII characters that need no quoting in a header or a path.
///
/// # Errors
/// See [`SecretError`].
pub fn read_api_key(path: &Path) -> Result<SecretString, SecretError> {
    let text = read_text(path)?;
    let key = text.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.len() < MIN_API_KEY || !key.bytes().all(plain) {
        let what = "must hold one key of at least 22 letters, digits, hyphens, underscores or dots";
        return Err(SecretError::Content {
            path: path.to_owned(),
            what,
        });
    }
    Ok(SecretString::from(key.to_owned()))
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Makes a file with 32 new random bytes as hexadecimal digits, mode 0600, unless there is one.
///
/// # Errors
/// When it cannot be written.
pub fn make_key(path: &Path) -> Result<(), SecretError> {
    make(path, |bytes| hex::encode(bytes))
}

/// Makes a file with a new API key, mode 0600, unless there is one. The prefix lets secret scanners recognize it.
///
/// # Errors
/// When it cannot be written.
pub fn make_api_key(path: &Path) -> Result<(), SecretError> {
    make(path, |bytes| format!("psp_{}", hex::encode(&bytes[..20])))
}

fn make(path: &Path, text: impl FnOnce(&[u8; 32]) -> String) -> Result<(), SecretError> {
    if path.exists() {
        return Ok(());
    }
    let mut bytes: [u8; 32] = rand::random();
    let text = Zeroizing::new(text(&bytes));
    bytes.zeroize();
    write_private(path, text.as_bytes()).map_err(|source| SecretError::File {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file in one step, readable by its owner only, on the disk when this returns.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("no folder"))?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("no file name"))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = folder.join(beside);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_made_key_can_be_read_and_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master-key");
        make_key(&path).unwrap();
        let first = read_key(&path).unwrap();
        make_key(&path).unwrap();
        assert_eq!(first.expose(), read_key(&path).unwrap().expose());
        assert_eq!(format!("{first:?}"), "***");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-key");
        make_api_key(&path).unwrap();
        read_api_key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read_api_key(&path),
            Err(SecretError::TooOpen { .. })
        ));
    }

    #[test]
    fn an_error_never_shows_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-key");
        write_private(&path, b"hunter2 hunter2").unwrap();
        let error = read_api_key(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let error = read_key(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
