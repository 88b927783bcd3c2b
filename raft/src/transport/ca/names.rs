//! The names in certificates: a cluster's, its nodes', and the fingerprint of its authority.
//!
//! Text forms round-trip, and one node has one name.

use std::fmt;
use std::str::FromStr;

use model::id::NodeId;

use super::CaError;

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
    pub(super) fn domain(&self) -> String {
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
