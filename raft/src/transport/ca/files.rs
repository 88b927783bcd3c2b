//! Keys and certificates as PEM files.
//!
//! A file is whole or absent: it is written beside, synced and renamed, and only its owner reads it (0600).

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::CaError;

/// The authority's certificate, in the authority's folder and in every node's.
pub(super) const CA_CERTIFICATE: &str = "ca.crt";

fn read(folder: &Path, file: &'static str) -> Result<Zeroizing<Vec<u8>>, CaError> {
    fs::read(folder.join(file))
        .map(Zeroizing::new)
        .map_err(|source| CaError::File { file, source })
}

pub(super) fn read_certificate(
    folder: &Path,
    file: &'static str,
) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(&read(folder, file)?)
        .map_err(|_pem| CaError::Invalid("a certificate file holds no certificate"))
}

pub(super) fn read_key(folder: &Path, file: &'static str) -> Result<KeyPair, CaError> {
    let pem = read(folder, file)?;
    let text =
        std::str::from_utf8(&pem).map_err(|_utf8| CaError::Invalid("a key file is no text"))?;
    KeyPair::from_pem(text).map_err(CaError::Make)
}

/// Writes beside the file, syncs, and renames.
pub(super) fn write_pem(
    folder: &Path,
    file: &'static str,
    label: &str,
    der: &[u8],
) -> Result<(), CaError> {
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    let beside = folder.join(format!(".{file}.new"));
    let written = || -> io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut open = fs::OpenOptions::new();
        let mut out = open
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&beside, folder.join(file))?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(|source| CaError::File { file, source })
}
