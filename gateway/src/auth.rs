//! From a credential to a tenant and what it may do: the place where tenants will come.
//!
//! Guarantees: keys are compared by their keyed hashes, in constant time; a key is held in secret types and reaches no
//! log, metric or error text; a request is authenticated before its body is read. Of several credentials any valid one
//! will do, in the order path, `X-API-Key`, `Authorization`. There is one key, configured, of one tenant.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use model::id::TenantId;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::error::{ApiError, Code};

/// `X-API-Key`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See.
    Read,
    /// Change.
    Write,
}

/// What a credential permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that the tenant may do with sessions.
    Member,
    /// Only to see them.
    Reader,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose sessions.
    pub tenant: TenantId,
    /// What may be done with them.
    pub scope: Scope,
}

impl Identity {
    /// Whether this may be done.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn permits(&self, access: Access) -> Result<(), ApiError> {
        match (self.scope, access) {
            (Scope::Member, _) | (Scope::Reader, Access::Read) => Ok(()),
            (Scope::Reader, Access::Write) => Err(Code::Forbidden.into()),
        }
    }
}

/// Knows the keys, as hashes.
pub struct Authenticator {
    hash_key: [u8; 32],
    key: blake3::Hash,
}

impl Authenticator {
    /// For one key. Hashes are made under a random key of this process, so that nothing can be learned from how long
    /// a comparison takes.
    #[must_use]
    pub fn new(key: &SecretString) -> Self {
        let hash_key = rand::random();
        let key = blake3::keyed_hash(&hash_key, key.expose_secret().as_bytes());
        Self { hash_key, key }
    }

    /// Who a request comes from.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] with `WWW-Authenticate`.
    pub fn authenticate(
        &self,
        path_key: Option<&SecretString>,
        headers: &HeaderMap,
    ) -> Result<Identity, ApiError> {
        let in_path = path_key.is_some_and(|key| self.known(key.expose_secret().as_bytes()));
        let in_header = || {
            headers
                .get_all(API_KEY)
                .iter()
                .any(|key| self.known(key.as_bytes()))
        };
        let authorized = || {
            let values = headers.get_all(header::AUTHORIZATION);
            values.iter().any(|value| self.authorized(value))
        };
        if in_path || in_header() || authorized() {
            return Ok(Identity {
                tenant: TenantId::DEFAULT,
                scope: Scope::Member,
            });
        }
        let challenge = HeaderValue::from_static("Bearer realm=\"psp\"");
        Err(ApiError::from(Code::Unauthorized).header(header::WWW_AUTHENTICATE, challenge))
    }

    fn authorized(&self, value: &HeaderValue) -> bool {
        let value = value.as_bytes().trim_ascii();
        let Some(space) = value.iter().position(|byte| *byte == b' ') else {
            return false;
        };
        let (scheme, credential) = value.split_at(space);
        let credential = credential.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.known(credential);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let Ok(pair) = BASE64.decode(credential).map(Zeroizing::new) else {
            return false;
        };
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else {
            return self.known(&pair);
        };
        let (user, password) = pair.split_at(colon);
        self.known(user)
            || password
                .get(1..)
                .is_some_and(|password| self.known(password))
    }

    fn known(&self, key: &[u8]) -> bool {
        // `blake3::Hash` compares in constant time.
        !key.is_empty() && blake3::keyed_hash(&self.hash_key, key) == self.key
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a header value"))])
    }

    #[test]
    fn each_form_of_the_key_is_taken_and_nothing_else() {
        let auth = Authenticator::new(&"psp_k:ey".into());
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text));
        let allowed = |headers| auth.authenticate(None, &headers).is_ok();
        for right in [
            "Bearer psp_k:ey".to_owned(),
            "bearer  psp_k:ey ".to_owned(),
            basic("x:psp_k:ey"),
            basic(":psp_k:ey"),
        ] {
            assert!(allowed(with(header::AUTHORIZATION, &right)), "{right}");
        }
        assert!(allowed(with(API_KEY, "psp_k:ey")));
        assert!(
            auth.authenticate(Some(&"psp_k:ey".into()), &HeaderMap::new())
                .is_ok()
        );
        let plain = Authenticator::new(&"key".into());
        let user = with(header::AUTHORIZATION, &basic("key:"));
        assert!(plain.authenticate(None, &user).is_ok());
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer psp_k:e",
            "Basic psp_k:ey",
            "Digest psp_k:ey",
            "psp_k:ey",
            "Basic ====",
        ] {
            assert!(!allowed(with(header::AUTHORIZATION, wrong)), "{wrong}");
        }
        assert!(!allowed(HeaderMap::new()));
        assert!(
            auth.authenticate(Some(&"".into()), &HeaderMap::new())
                .is_err()
        );
    }

    #[test]
    fn an_empty_key_opens_nothing() {
        let auth = Authenticator::new(&"".into());
        assert!(
            auth.authenticate(Some(&"".into()), &with(API_KEY, ""))
                .is_err()
        );
    }

    #[test]
    fn a_reader_changes_nothing() {
        let reader = Identity {
            tenant: TenantId::DEFAULT,
            scope: Scope::Reader,
        };
        assert!(reader.permits(Access::Read).is_ok());
        let refused = reader.permits(Access::Write).expect_err("refused");
        assert_eq!(refused.code(), Code::Forbidden);
    }
}
