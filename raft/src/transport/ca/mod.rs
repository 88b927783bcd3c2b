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

mod files;
mod identity;
mod names;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use model::id::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use files::CA_CERTIFICATE;
pub use identity::{Identity, NodeKey};
pub(super) use identity::{dns_name, node_in};
pub use names::{ClusterName, Fingerprint};

const CA_KEY: &str = "ca.key";

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
        let certificate = files::read_certificate(folder, CA_CERTIFICATE)?;
        let key = files::read_key(folder, CA_KEY)?;
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
        let parsed = identity::parse(&self.certificate)?;
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
        files::write_pem(
            folder,
            CA_KEY,
            "PRIVATE KEY",
            self.issuer.key().serialized_der(),
        )?;
        files::write_pem(folder, CA_CERTIFICATE, "CERTIFICATE", &self.certificate)
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
