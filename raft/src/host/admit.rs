//! How a node joins, and how it is asked to leave.
//!
//! A join token is a secret and the fingerprint of the cluster's authority: the new node trusts who has that
//! authority, the cluster trusts who knows the secret. The secret's hash is in the meta group until it is used once or its time is
//! over. The node that is asked must hold the authority's key; it lets the meta group give out an id and signs the
//! new node's own key, which never travels. A retry with the same request gets the same id.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bincode::{Decode, Encode};
use bytes::Bytes;
use model::codec::{self, Blob};
use model::id::{GroupId, NodeId, RegionId, RequestId};
use model::meta::{MetaCommand, MetaOutcome, MetaState, NodeAddress, NodePhase};
use storage::disk::Disk;
use tokio::time::Instant;
use zeroize::Zeroize;

use super::inner::Inner;
use crate::kinds;
use crate::life::{self, Map};
use crate::transport::ca::{ClusterName, Fingerprint, Identity, NodeKey, Validity};
use crate::transport::join::{self as asking, JoinError};
use crate::transport::{Call, Lane, RemoteError};

/// How long a change of the meta group is tried.
const META: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long a node's certificate is valid, in days.
const CERTIFICATE_DAYS: u32 = 825;
/// The answer to a joiner that is refused; the detail is the reason.
const REFUSED: u16 = RemoteError::FIRST_FREE + 16;

/// What lets one node join. Its text is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; 32],
    authority: Fingerprint,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(***)")
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl JoinToken {
    /// The text that an operator carries over.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = self.secret.to_vec();
        bytes.extend_from_slice(&self.authority.to_bytes());
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        bytes.zeroize();
        text
    }

    fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.secret).as_bytes()
    }
}

/// A text that is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token")]
pub struct BadToken;

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim())
            .map_err(|_malformed| BadToken)?;
        let bytes: [u8; 64] = bytes.try_into().map_err(|_length| BadToken)?;
        let (secret, authority) = bytes.split_at(32);
        Ok(Self {
            secret: secret.try_into().map_err(|_length| BadToken)?,
            authority: Fingerprint::from_bytes(authority.try_into().map_err(|_length| BadToken)?),
        })
    }
}

/// Why a node did not join, or a change of the cluster was not made.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailed {
    /// The cluster refuses it.
    #[error("refused: {0}")]
    Refused(String),
    /// The meta group could not be reached in time. It may have taken the change.
    #[error("the meta group does not answer")]
    NoAnswer,
    /// This node does not hold the authority's key.
    #[error("this node does not hold the authority's key")]
    NoAuthority,
    /// The exchange failed.
    #[error("the join exchange failed")]
    Exchange(#[source] JoinError),
    /// Keys or certificates cannot be made or used.
    #[error("keys or certificates cannot be used")]
    Keys(#[source] crate::transport::ca::CaError),
    /// What came back does not decode.
    #[error("the answer does not decode")]
    BadAnswer,
    /// The folder cannot be written.
    #[error("the node's folder cannot be written")]
    Folder(#[source] std::io::Error),
}

/// What a joiner sends.
#[derive(Encode, Decode)]
struct Request {
    request: RequestId,
    secret: [u8; 32],
    region: RegionId,
    address: NodeAddress,
    replaces: Option<NodeId>,
    signing: Blob,
}

/// What it gets.
#[derive(Encode, Decode)]
struct Granted {
    node: NodeId,
    certificate: Blob,
    authority: Blob,
    meta: MetaState,
}

/// A node that has joined: what it starts with.
#[derive(Debug)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// Its key and certificate, for the transport.
    pub identity: Identity,
}

/// What a joiner wants.
#[derive(Debug)]
pub struct Wish {
    /// The cluster's name, as in its certificates.
    pub cluster: ClusterName,
    /// The region that it will serve.
    pub region: RegionId,
    /// Where it will be reached.
    pub address: NodeAddress,
    /// The node whose place it takes, if its disk is lost or refused.
    pub replaces: Option<NodeId>,
}

/// Joins the cluster through the node at `through`, and leaves the map in the new node's own empty folder.
///
/// # Errors
/// See [`JoinFailed`].
pub async fn join(
    through: SocketAddr,
    token: &JoinToken,
    wish: Wish,
    own: Arc<dyn Disk>,
) -> Result<Joined, JoinFailed> {
    let request = RequestId(rand::random());
    let (key, request) = request_of(&wish, request, token.secret)?;
    let answer = asking::ask(through, token.authority, request, META).await;
    accept(answer, key, wish.cluster, own).await
}

/// Joins again in the place of a node whose disk is lost or refused, by the certificate that is left of it. However often it
/// is tried, it is one new node.
///
/// # Errors
/// See [`JoinFailed`].
pub async fn rejoin(
    through: SocketAddr,
    old: &Identity,
    mut wish: Wish,
    own: Arc<dyn Disk>,
) -> Result<Joined, JoinFailed> {
    wish.replaces = Some(old.node());
    let (key, request) = request_of(&wish, rebuild_of(old), [0; 32])?;
    let answer = asking::ask_as(through, old, request, META).await;
    accept(answer, key, wish.cluster, own).await
}

/// The one request by which a certificate's node is rebuilt.
fn rebuild_of(old: &Identity) -> RequestId {
    let hash = blake3::derive_key("psp-edge 2026 rebuild of a node", old.certificate_der());
    let (id, _) = hash.split_at(16);
    RequestId(id.try_into().expect("a hash has more than 16 bytes"))
}

fn request_of(
    wish: &Wish,
    request: RequestId,
    secret: [u8; 32],
) -> Result<(NodeKey, Bytes), JoinFailed> {
    let key = NodeKey::generate().map_err(JoinFailed::Keys)?;
    let request = codec::encode(&Request {
        request,
        secret,
        region: wish.region,
        address: wish.address.clone(),
        replaces: wish.replaces,
        signing: Blob(key.signing_request().map_err(JoinFailed::Keys)?.into()),
    });
    Ok((key, request))
}

/// Takes what a joiner was granted, and leaves the map in its folder.
async fn accept(
    answer: Result<Bytes, JoinError>,
    key: NodeKey,
    cluster: ClusterName,
    own: Arc<dyn Disk>,
) -> Result<Joined, JoinFailed> {
    let answer = answer.map_err(|error| match error {
        JoinError::Remote(RemoteError { code, detail }) if code == REFUSED => {
            JoinFailed::Refused(String::from_utf8_lossy(&detail).into_owned())
        }
        other => JoinFailed::Exchange(other),
    })?;
    let granted: Granted = codec::decode(&answer).map_err(|_malformed| JoinFailed::BadAnswer)?;
    let node = granted.node;
    let identity = key
        .into_identity(
            cluster,
            granted.certificate.0.to_vec(),
            granted.authority.0.to_vec(),
        )
        .map_err(JoinFailed::Keys)?;
    let meta = granted.meta;
    let saved =
        crate::blocking::blocking(move || life::leave_map(&*own, &Map { node, meta })).await;
    saved
        .map_err(|_panicked| JoinFailed::BadAnswer)?
        .map_err(JoinFailed::Folder)?;
    Ok(Joined { node, identity })
}

/// The other nodes that a node's own folder knows, and where they are reached; none where its map cannot be read. Blocks.
#[must_use]
pub fn known_peers(own: &dyn Disk) -> Vec<(NodeId, String)> {
    let Some(map) = life::read_map(own) else {
        return Vec::new();
    };
    let others = map.meta.nodes.iter().filter(|(node, _)| **node != map.node);
    others
        .map(|(node, record)| (*node, record.address.peer.clone()))
        .collect()
}

/// Makes a token.
pub(crate) async fn token(inner: &Arc<Inner>, life: Duration) -> Result<JoinToken, JoinFailed> {
    let authority = inner
        .authority
        .as_ref()
        .ok_or(JoinFailed::NoAuthority)?
        .fingerprint();
    let secret = rand::random();
    let token = JoinToken { secret, authority };
    let until = inner.clocks.wall().plus(life);
    let hash = token.hash();
    propose(inner, MetaCommand::AddToken { hash, until }).await?;
    Ok(token)
}

/// Asks a node to go.
pub(crate) async fn leave(inner: &Arc<Inner>, node: NodeId) -> Result<(), JoinFailed> {
    propose(inner, MetaCommand::Leave { node }).await.map(drop)
}

/// Answers a joiner.
pub(crate) async fn admit(
    inner: &Arc<Inner>,
    from: Option<NodeId>,
    request: &Bytes,
) -> Result<Bytes, RemoteError> {
    let refuse = |reason: String| RemoteError {
        code: REFUSED,
        detail: Bytes::from(reason),
    };
    let request: Request =
        codec::decode(request).map_err(|_malformed| RemoteError::code(kinds::BAD_MESSAGE))?;
    grant(inner, from, request).await.map_err(|error| {
        tracing::warn!(%error, "a node was not admitted");
        match error {
            JoinFailed::Refused(reason) => refuse(reason),
            other => refuse(other.to_string()),
        }
    })
}

async fn grant(
    inner: &Arc<Inner>,
    from: Option<NodeId>,
    request: Request,
) -> Result<Bytes, JoinFailed> {
    let authority = inner.authority.as_ref().ok_or(JoinFailed::NoAuthority)?;
    let token = match from.filter(|node| request.replaces == Some(*node)) {
        // Its certificate is as good as a token, but only for its own place, and not when it was sent away.
        Some(node) => {
            let map = inner.map();
            let again = map.admissions.iter().any(|(id, _)| *id == request.request);
            let active = map
                .nodes
                .get(&node)
                .is_some_and(|record| record.phase == NodePhase::Active);
            if !again && !active {
                let reason = format!("node {node} was removed from the cluster");
                return Err(JoinFailed::Refused(reason));
            }
            token(inner, META).await?.hash()
        }
        None => *blake3::hash(&request.secret).as_bytes(),
    };
    let command = MetaCommand::Admit {
        request: request.request,
        token,
        region: request.region,
        address: request.address,
        replaces: request.replaces,
    };
    let MetaOutcome::Admitted(node) = propose(inner, command).await? else {
        return Err(JoinFailed::BadAnswer);
    };
    let validity = Validity {
        now: inner.clocks.wall().0 / 1000,
        days: CERTIFICATE_DAYS,
    };
    let certificate = authority
        .issue(&request.signing.0, node, validity)
        .map_err(JoinFailed::Keys)?;
    // The joiner's map must have itself in it, or it would not start.
    let meta = state_with(inner, node).await.ok_or(JoinFailed::NoAnswer)?;
    tracing::info!(%node, "a node was admitted");
    Ok(codec::encode(&Granted {
        node,
        certificate: Blob(certificate.into()),
        authority: Blob(Bytes::copy_from_slice(authority.certificate())),
        meta,
    }))
}

/// The meta group's part of a join.
#[cfg(any(test, feature = "testing"))]
pub(crate) async fn admit_for_test(
    inner: &Arc<Inner>,
    request: RequestId,
    region: RegionId,
    address: NodeAddress,
    replaces: Option<NodeId>,
) -> Result<(NodeId, MetaState), JoinFailed> {
    let token = token(inner, Duration::from_secs(60)).await?;
    let command = MetaCommand::Admit {
        request,
        token: token.hash(),
        region,
        address,
        replaces,
    };
    let MetaOutcome::Admitted(node) = propose(inner, command).await? else {
        return Err(JoinFailed::BadAnswer);
    };
    let meta = state_with(inner, node).await.ok_or(JoinFailed::NoAnswer)?;
    Ok((node, meta))
}

async fn state_with(inner: &Arc<Inner>, node: NodeId) -> Option<MetaState> {
    let mut states = inner.meta()?.state();
    let known = states.wait_for(|state| state.nodes.contains_key(&node));
    let state = tokio::time::timeout(META, known).await.ok()?.ok()?;
    Some((**state).clone())
}

/// Has the meta group's leader carry out a change, wherever it is.
pub(crate) async fn propose(
    inner: &Arc<Inner>,
    command: MetaCommand,
) -> Result<MetaOutcome, JoinFailed> {
    let deadline = Instant::now() + META;
    let body = codec::encode(&command);
    while Instant::now() < deadline {
        if let Some(outcome) = attempt(inner, &command, &body, deadline).await {
            return match outcome {
                MetaOutcome::Refused(reason) => Err(JoinFailed::Refused(reason)),
                other => Ok(other),
            };
        }
        if !inner.pause(AGAIN).await {
            break;
        }
    }
    Err(JoinFailed::NoAnswer)
}

async fn attempt(
    inner: &Arc<Inner>,
    command: &MetaCommand,
    body: &Bytes,
    deadline: Instant,
) -> Option<MetaOutcome> {
    let meta = inner.meta()?;
    let leader = meta.replica.role().leader;
    match leader {
        Some(leader) if leader == inner.me => meta.propose(command.clone(), deadline).await.ok(),
        Some(leader) => ask(inner, leader, body).await,
        // A node that just joined does not know who leads: any may.
        None => {
            for node in inner.others() {
                if let Some(outcome) = ask(inner, node, body).await {
                    return Some(outcome);
                }
            }
            None
        }
    }
}

async fn ask(inner: &Arc<Inner>, node: NodeId, body: &Bytes) -> Option<MetaOutcome> {
    let call = Call {
        lane: Lane::Control,
        kind: kinds::META,
        group: GroupId::Meta,
        body: body.clone(),
        timeout: Duration::from_secs(5),
    };
    let answer = inner.transport().peer(node).call(call).await.ok()?;
    codec::decode(&answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_is_not_shown() {
        let token = JoinToken {
            secret: [7; 32],
            authority: Fingerprint::from_bytes([9; 32]),
        };
        assert_eq!(token.reveal().parse::<JoinToken>(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "JoinToken(***)");
        assert_eq!("".parse::<JoinToken>(), Err(BadToken));
        assert_eq!(token.reveal()[1..].parse::<JoinToken>(), Err(BadToken));
    }
}
