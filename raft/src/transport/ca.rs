//! The cluster's own certificate authority, and what it signs.
//!
//! A node's certificate carries exactly one name, `node-<id>.<cluster>.psp.internal`, good for both ends of a
//! connection. The authority may sign only names of its own cluster (a name constraint), so that its theft harms
//! no one else. A new node makes its key itself and sends a signing request; the answer's names and uses come from
//! the authority, never from the request. Keys are Ed25519, stay in memory that is wiped, and are written to files
//! that only their owner reads.
//!
//! Nothing here decides *who* gets a certificate (the join token does), and nothing revokes one: a removed node is
//! refused by its id, which is never used again.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use model::id::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NODE_CERTIFICATE: &str = "node.crt";
const NODE_KEY: &str = "node.key";

/// How far before its making a certificate is valid: clocks of nodes differ, and may jump back by hours.
const BACKDATED: Duration = Duration::from_secs(48 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority's own certificate is valid.
const CA_DAYS: u32 = 30 * 365;

/// What goes wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("certificate file {file}")]
    File {
        /// The file's name, without its folder.
        file: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key, certificate or signing request is not what it should be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The library could not make or sign it.
    #[error("certificate could not be made")]
    Make(#[source] rcgen::Error),
}

/// The name of a cluster within its certificates: 1 to 40 of `a-z`, `0-9` and `-`, not at the ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterName(String);

impl FromStr for ClusterName {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 40 || ends || !text.bytes().all(allowed) {
            return Err(CaError::Invalid(
                "a cluster name is 1 to 40 of a-z, 0-9 and inner hyphens",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClusterName {
    fn domain(&self) -> String {
        format!("{}.psp.internal", self.0)
    }

    /// The name in the certificate of this node.
    #[must_use]
    pub fn node_name(&self, node: NodeId) -> String {
        format!("node-{}.{}", node.0, self.domain())
    }

    /// The node that a certificate's name means, if it is one of this cluster's.
    #[must_use]
    pub fn node_of(&self, name: &str) -> Option<NodeId> {
        let number = name
            .strip_prefix("node-")?
            .strip_suffix(&self.domain())?
            .strip_suffix('.')?;
        let node = NodeId(number.parse().ok()?);
        // One node has one name: no leading zeros or signs.
        (self.node_name(node) == name).then_some(node)
    }
}

/// SHA-256 of the authority's certificate: what a join token carries, and a joining node trusts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// A fingerprint from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_not_hex| CaError::Invalid("a fingerprint is 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

/// From when and for how long a node's certificate is valid. It is valid 48 hours before `now` too.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Seconds since 1970, of the wall clock.
    pub now: u64,
    /// Days from `now`.
    pub days: u32,
}

impl Validity {
    fn apply(self, params: &mut CertificateParams) {
        let start = Duration::from_secs(self.now).saturating_sub(BACKDATED);
        params.not_before = date_time_ymd(1970, 1, 1) + start;
        params.not_after =
            date_time_ymd(1970, 1, 1) + Duration::from_secs(self.now) + DAY * self.days;
    }
}

/// The authority with its key. Whoever has it can add nodes to the cluster.
pub struct Authority {
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority; `now` is the wall clock in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`CaError::Make`] if the key or the certificate cannot be made.
    pub fn create(cluster: ClusterName, now: u64) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(CaError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&cluster.domain());
        params.serial_number = Some(serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(cluster.domain())],
            excluded_subtrees: Vec::new(),
        });
        Validity { now, days: CA_DAYS }.apply(&mut params);
        let certificate = params
            .self_signed(&key)
            .map_err(CaError::Make)?
            .der()
            .clone();
        Ok(Self {
            cluster,
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads `ca.crt` and `ca.key`.
    ///
    /// # Errors
    ///
    /// [`CaError::File`] if one cannot be read, [`CaError::Invalid`] if they are not an authority of `cluster`.
    pub fn load(folder: &Path, cluster: ClusterName) -> Result<Self, CaError> {
        let certificate = read_certificate(folder, CA_CERTIFICATE)?;
        let key = read_key(folder, CA_KEY)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::Make)?;
        let authority = Self {
            cluster,
            certificate,
            issuer,
        };
        authority.check()?;
        Ok(authority)
    }

    fn check(&self) -> Result<(), CaError> {
        let parsed = parse(&self.certificate)?;
        let name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        if name != Some(self.cluster.domain().as_str()) {
            return Err(CaError::Invalid("the authority is another cluster's"));
        }
        let public: &[u8] = &parsed.public_key().subject_public_key.data;
        if public != self.issuer.key().der_bytes() {
            return Err(CaError::Invalid(
                "the authority's key and certificate do not belong together",
            ));
        }
        Ok(())
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600), each in one step.
    ///
    /// # Errors
    ///
    /// [`CaError::File`] if the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CaError> {
        write_pem(
            folder,
            CA_KEY,
            "PRIVATE KEY",
            self.issuer.key().serialized_der(),
        )?;
        write_pem(folder, CA_CERTIFICATE, "CERTIFICATE", &self.certificate)
    }

    /// What a joining node trusts.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The cluster that it speaks for.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Signs a certificate for `node` with the key of a signing request (DER), which proves that the asker has it.
    ///
    /// # Errors
    ///
    /// [`CaError::Make`] if the request is not well formed or not signed by its key.
    pub fn issue(
        &self,
        request: &[u8],
        node: NodeId,
        validity: Validity,
    ) -> Result<Vec<u8>, CaError> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request).map_err(CaError::Make)?;
        let name = self.cluster.node_name(node);
        let mut params = CertificateParams::new([name.clone()]).map_err(CaError::Make)?;
        params.distinguished_name = named(&name);
        params.serial_number = Some(serial());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        validity.apply(&mut params);
        let signed = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(CaError::Make)?;
        Ok(signed.der().to_vec())
    }

    /// Key and certificate of a node in one step, where the authority and the node share a machine.
    ///
    /// # Errors
    ///
    /// As [`Self::issue`].
    pub fn identity(&self, node: NodeId, validity: Validity) -> Result<Identity, CaError> {
        let key = NodeKey::generate()?;
        let certificate = self.issue(&key.signing_request()?, node, validity)?;
        key.into_identity(self.cluster.clone(), certificate, self.certificate.to_vec())
    }
}

/// A node's private key, before it has a certificate.
pub struct NodeKey(KeyPair);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(***)")
    }
}

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`CaError::Make`] if there is no randomness.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .map(Self)
            .map_err(CaError::Make)
    }

    /// What an authority needs to sign a certificate for this key, DER.
    ///
    /// # Errors
    ///
    /// [`CaError::Make`] if it cannot be signed.
    pub fn signing_request(&self) -> Result<Vec<u8>, CaError> {
        let request = CertificateParams::default()
            .serialize_request(&self.0)
            .map_err(CaError::Make)?;
        Ok(request.der().to_vec())
    }

    /// Joins the key with its certificate and the authority's (both DER).
    ///
    /// # Errors
    ///
    /// [`CaError::Invalid`] if the certificate is not for this key, or names no node of `cluster`.
    pub fn into_identity(
        self,
        cluster: ClusterName,
        certificate: Vec<u8>,
        authority: Vec<u8>,
    ) -> Result<Identity, CaError> {
        Identity::new(cluster, certificate.into(), authority.into(), &self.0)
    }
}

/// All that a node needs to speak as itself: its key, its certificate and the authority's.
#[derive(Clone)]
pub struct Identity {
    cluster: ClusterName,
    node: NodeId,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Identity {
    fn new(
        cluster: ClusterName,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: &KeyPair,
    ) -> Result<Self, CaError> {
        let parsed = parse(&certificate)?;
        let public: &[u8] = &parsed.public_key().subject_public_key.data;
        if public != key.der_bytes() {
            return Err(CaError::Invalid(
                "the node's key and certificate do not belong together",
            ));
        }
        let node = node_in(&certificate, &cluster).ok_or(CaError::Invalid(
            "the certificate names no node of this cluster",
        ))?;
        parse(&authority)?;
        let key = Zeroizing::new(key.serialized_der().to_vec());
        Ok(Self {
            cluster,
            node,
            certificate,
            authority,
            key,
        })
    }

    /// Reads `node.crt`, `node.key` and `ca.crt`.
    ///
    /// # Errors
    ///
    /// [`CaError::File`] if one cannot be read, [`CaError::Invalid`] if they do not belong together.
    pub fn load(folder: &Path, cluster: ClusterName) -> Result<Self, CaError> {
        let certificate = read_certificate(folder, NODE_CERTIFICATE)?;
        let authority = read_certificate(folder, CA_CERTIFICATE)?;
        Self::new(
            cluster,
            certificate,
            authority,
            &read_key(folder, NODE_KEY)?,
        )
    }

    /// Writes `node.key` (mode 0600), `node.crt` and `ca.crt`, each in one step.
    ///
    /// # Errors
    ///
    /// [`CaError::File`] if the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CaError> {
        write_pem(folder, NODE_KEY, "PRIVATE KEY", &self.key)?;
        write_pem(folder, NODE_CERTIFICATE, "CERTIFICATE", &self.certificate)?;
        write_pem(folder, CA_CERTIFICATE, "CERTIFICATE", &self.authority)
    }

    /// The node that the certificate names.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// What the cluster's join tokens carry.
    #[must_use]
    pub fn authority_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    pub(super) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) const fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The private key, PKCS #8.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The node that a certificate names, if it names exactly one thing and that is a node of this cluster. Whether the
/// certificate is genuine is TLS's question.
pub(super) fn node_in(certificate: &[u8], cluster: &ClusterName) -> Option<NodeId> {
    cluster.node_of(&dns_name(certificate)?)
}

/// The one DNS name of a certificate.
pub(super) fn dns_name(certificate: &[u8]) -> Option<String> {
    let parsed = parse(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [x509_parser::extensions::GeneralName::DNSName(name)] => Some((*name).to_owned()),
        _ => None,
    }
}

fn parse(der: &[u8]) -> Result<x509_parser::certificate::X509Certificate<'_>, CaError> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|_parse| CaError::Invalid("not a certificate"))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(CaError::Invalid("not only a certificate"))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    // Positive, and with no leading zero byte.
    bytes[0] = (bytes[0] & 0x7F) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn read(folder: &Path, file: &'static str) -> Result<Zeroizing<Vec<u8>>, CaError> {
    fs::read(folder.join(file))
        .map(Zeroizing::new)
        .map_err(|source| CaError::File { file, source })
}

fn read_certificate(folder: &Path, file: &'static str) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(&read(folder, file)?)
        .map_err(|_pem| CaError::Invalid("a certificate file holds no certificate"))
}

fn read_key(folder: &Path, file: &'static str) -> Result<KeyPair, CaError> {
    let pem = read(folder, file)?;
    let text =
        std::str::from_utf8(&pem).map_err(|_utf8| CaError::Invalid("a key file is no text"))?;
    KeyPair::from_pem(text).map_err(CaError::Make)
}

/// Writes beside the file, syncs, and renames.
fn write_pem(folder: &Path, file: &'static str, label: &str, der: &[u8]) -> Result<(), CaError> {
    use base64::Engine as _;
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
