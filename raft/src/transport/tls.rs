//! Mutual TLS 1.3 between nodes, made from an [`Identity`].
//!
//! Guarantees: both ends prove a certificate of the cluster's authority; the dialer accepts no other node than the
//! one it dialed; the acceptor knows which node dialed. No session is resumed and nothing is sent before the
//! handshake ends, so every connection is verified in full. The protocol's version is in the ALPN: nodes that have
//! none in common do not talk.
//!
//! The same endpoint also answers processes without a certificate, under the ALPN of joining. So TLS lets a dialer
//! without certificate pass, and [`Dialer::of`] is where it is stopped unless it came to join.

use std::sync::{Arc, LazyLock};

use model::id::NodeId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::ca::{self, ClusterName, Fingerprint, Identity};

/// Node to node, frame layout 1.
pub(super) const NODE_ALPN: &[u8] = b"psp-edge-node/1";
/// A process that has no certificate, or lost its disk, to any node.
pub(super) const JOIN_ALPN: &[u8] = b"psp-edge-join/1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::{cipher_suite, kx_group};
    let mut provider = aws_lc_rs::default_provider();
    // The cheapest strong cipher first: bodies inside are encrypted once more.
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    Arc::new(provider)
});

/// An identity that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct TlsError {
    what: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TlsError {
    pub(super) const fn another_node() -> Self {
        Self {
            what: "the identity is another node's",
            source: None,
        }
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> TlsError {
    move |source| TlsError {
        what,
        source: Some(Box::new(source)),
    }
}

/// Both sides' TLS, made once for each identity.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) client: Arc<QuicClientConfig>,
    pub(super) server: Arc<QuicServerConfig>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(identity.authority().clone())
            .map_err(failed("the authority's certificate cannot be trusted"))?;
        let roots = Arc::new(roots);
        // The authority's certificate goes along, for joiners that know only its fingerprint.
        let chain = vec![identity.certificate().clone(), identity.authority().clone()];
        let client = client(&roots, chain.clone(), key(identity))?;
        let server = server(&roots, chain, key(identity))?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key().to_vec()))
}

type Chain = Vec<CertificateDer<'static>>;

fn client(
    roots: &Arc<RootCertStore>,
    chain: Chain,
    key: PrivateKeyDer<'static>,
) -> Result<QuicClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER))
            .build()
            .map_err(failed("no verifier of servers"))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("no TLS 1.3"))?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(failed("the node's key cannot be used"))?;
    config.alpn_protocols = vec![NODE_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(failed("TLS does not fit QUIC"))
}

fn server(
    roots: &Arc<RootCertStore>,
    chain: Chain,
    key: PrivateKeyDer<'static>,
) -> Result<QuicServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER))
            .allow_unauthenticated()
            .build()
            .map_err(failed("no verifier of clients"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("no TLS 1.3"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(failed("the node's key cannot be used"))?;
    config.alpn_protocols = vec![NODE_ALPN.to_vec(), JOIN_ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(failed("TLS does not fit QUIC"))
}

/// Who dialed, once the handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialer {
    /// A node of the cluster, by its certificate.
    Node(NodeId),
    /// Anyone, to join; the node whose certificate was shown, if one was.
    Joiner(Option<NodeId>),
    /// Nobody whom we serve.
    Stranger,
}

impl Dialer {
    pub(super) fn of(connection: &quinn::Connection, cluster: &ClusterName) -> Self {
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol);
        match protocol.as_deref() {
            Some(JOIN_ALPN) => Self::Joiner(peer_node(connection, cluster)),
            Some(NODE_ALPN) => peer_node(connection, cluster).map_or(Self::Stranger, Self::Node),
            Some(_) | None => Self::Stranger,
        }
    }
}

/// The node in the certificate that the other end proved.
fn peer_node(connection: &quinn::Connection, cluster: &ClusterName) -> Option<NodeId> {
    let chain = connection.peer_identity()?.downcast::<Chain>().ok()?;
    ca::node_in(chain.first()?, cluster)
}

/// TLS for a process that wants to join: it knows only the authority's fingerprint, and has no certificate, or that of a node
/// whose disk is lost.
pub(super) fn joiner(
    authority: Fingerprint,
    identity: Option<&Identity>,
) -> Result<QuicClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("no TLS 1.3"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { authority }));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(vec![identity.certificate().clone()], key(identity))
            .map_err(failed("the node's key cannot be used"))?,
    };
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(failed("TLS does not fit QUIC"))
}

/// Accepts any node of the cluster whose authority has this fingerprint.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.authority)
            .ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER))
                .build()
                .map_err(|_builder| unknown())?;
        // Any node may sell a certificate: the name is the one that it proves to have.
        let name = ca::dns_name(end_entity)
            .and_then(|name| ServerName::try_from(name).ok())
            .ok_or(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName,
            ))?;
        verifier.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &PROVIDER.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}
