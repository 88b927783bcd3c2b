//! TLS for clients: 1.3 only, HTTP/2 and HTTP/1.1 by ALPN, and certificates that change while connections are open.
//!
//! Guarantees: a pair of files that cannot be used leaves the one in use in place; connections in progress keep what
//! they began with. Without early data: a request could be replayed.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::config::TlsConfig;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{path} is not usable PEM")]
    Pem {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("certificate and key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// The certificate in use, and where it comes from.
pub(crate) struct Certificates {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    /// Hash of both files, to know when they change.
    digest: blake3::Hash,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().key))
    }
}

impl Certificates {
    /// Reads the files. Blocks on the disk for a moment; called at start and from the reload task's blocking thread.
    pub(crate) fn load(config: TlsConfig) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = read(&config, &provider, None)?
            .ok_or_else(|| TlsError::Pair(rustls::Error::General("nothing to load".to_owned())))?;
        Ok(Arc::new(Self {
            config,
            provider,
            current: RwLock::new(current),
        }))
    }

    /// How often to look.
    pub(crate) const fn reload_every(&self) -> std::time::Duration {
        self.config.reload_every
    }

    /// Takes the files over if they have changed; says whether they had.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let digest = self.current.read().digest;
        let Some(fresh) = read(&self.config, &self.provider, Some(digest))? else {
            return Ok(false);
        };
        *self.current.write() = fresh;
        Ok(true)
    }

    /// Accepts connections with whatever certificate is in use then.
    pub(crate) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.max_early_data_size = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(
    config: &TlsConfig,
    provider: &CryptoProvider,
    known: Option<blake3::Hash>,
) -> Result<Option<Current>, TlsError> {
    let file = |path: &std::path::Path| {
        std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|source| TlsError::Read {
                path: path.display().to_string(),
                source,
            })
    };
    let pem = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| TlsError::Pem { path, source }
    };
    let (chain, key) = (file(&config.certificate)?, file(&config.key)?);
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&(chain.len() as u64).to_be_bytes())
        .update(&chain)
        .update(&key);
    let digest = hasher.finalize();
    if known == Some(digest) {
        return Ok(None);
    }
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(pem(&config.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(pem(&config.key))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Pair)?;
    Ok(Some(Current {
        key: Arc::new(key),
        digest,
    }))
}
