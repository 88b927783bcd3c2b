//! A node's own key and certificate.
//!
//! An [`Identity`] exists only whole: key, certificate and authority belong together, and the certificate names one node
//! of the cluster. Keys are wiped from memory and never shown.

use std::fmt;
use std::path::Path;

use model::id::NodeId;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::files::{self, CA_CERTIFICATE};
use super::{CaError, ClusterName, Fingerprint};

const NODE_CERTIFICATE: &str = "node.crt";
const NODE_KEY: &str = "node.key";

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
        let certificate = files::read_certificate(folder, NODE_CERTIFICATE)?;
        let authority = files::read_certificate(folder, CA_CERTIFICATE)?;
        Self::new(
            cluster,
            certificate,
            authority,
            &files::read_key(folder, NODE_KEY)?,
        )
    }

    /// Writes `node.key` (mode 0600), `node.crt` and `ca.crt`, each in one step.
    ///
    /// # Errors
    ///
    /// [`CaError::File`] if the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CaError> {
        files::write_pem(folder, NODE_KEY, "PRIVATE KEY", &self.key)?;
        files::write_pem(folder, NODE_CERTIFICATE, "CERTIFICATE", &self.certificate)?;
        files::write_pem(folder, CA_CERTIFICATE, "CERTIFICATE", &self.authority)
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

    /// The certificate's bytes.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// What the cluster's join tokens carry.
    #[must_use]
    pub fn authority_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    pub(in crate::transport) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(in crate::transport) const fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The private key, PKCS #8.
    pub(in crate::transport) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The node that a certificate names, if it names exactly one thing and that is a node of this cluster. Whether the
/// certificate is genuine is TLS's question.
pub(in crate::transport) fn node_in(certificate: &[u8], cluster: &ClusterName) -> Option<NodeId> {
    cluster.node_of(&dns_name(certificate)?)
}

/// The one DNS name of a certificate.
pub(in crate::transport) fn dns_name(certificate: &[u8]) -> Option<String> {
    let parsed = parse(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [x509_parser::extensions::GeneralName::DNSName(name)] => Some((*name).to_owned()),
        _ => None,
    }
}

pub(super) fn parse(der: &[u8]) -> Result<x509_parser::certificate::X509Certificate<'_>, CaError> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|_parse| CaError::Invalid("not a certificate"))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(CaError::Invalid("not only a certificate"))
    }
}
