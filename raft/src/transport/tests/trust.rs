//! Who may talk to whom.

use super::*;
use crate::transport::{CallError, join};

fn unreachable(error: &CallError) -> bool {
    matches!(error, CallError::Unreachable(_))
}

#[tokio::test]
async fn another_node_at_the_address_is_not_talked_to() {
    let authority = authority();
    let (one, two) = (start(config(&authority, 1)), start(config(&authority, 2)));
    one.transport.set_address(NodeId(3), two.address());
    let error = one
        .transport
        .peer(NodeId(3))
        .call(call(Lane::Data, ECHO, ""))
        .await
        .unwrap_err();
    assert!(unreachable(&error), "{error}");
    assert!(two.handlers.seen.lock().is_empty() && two.handlers.greeted.lock().is_empty());
}

#[tokio::test]
async fn another_clusters_node_is_not_talked_to_either_way() {
    let (ours, theirs) = (authority(), authority());
    let (one, two) = (start(config(&ours, 1)), start(config(&theirs, 2)));
    for (peer, victim) in [(one.meet(&two), &two), (two.meet(&one), &one)] {
        let error = peer.call(call(Lane::Data, ECHO, "")).await.unwrap_err();
        assert!(unreachable(&error), "{error}");
        assert!(victim.handlers.greeted.lock().is_empty());
    }
}

#[tokio::test]
async fn a_dialer_without_a_certificate_reaches_no_handler() {
    let authority = authority();
    let node = start(config(&authority, 1));
    // What a joiner has, but under the nodes' protocol.
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates({
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate().to_vec().into()).unwrap();
        roots
    })
    .with_no_client_auth();
    tls.alpn_protocols = vec![b"psp-edge-node/1".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, node.address(), "node-1.test.psp.internal");
    let connection = connecting.unwrap().await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("the node must close the connection")
    };
    assert_eq!(close.error_code, super::super::codes::NO_CERTIFICATE);
    assert!(node.handlers.greeted.lock().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_is_not_accepted() {
    let authority = authority();
    let old = Validity {
        now: wall() - 40 * 24 * 3600,
        days: 30,
    };
    let expired = authority.identity(NodeId(1), old).unwrap();
    let one = start(Config::new((Ipv4Addr::LOCALHOST, 0).into(), expired));
    let two = start(config(&authority, 2));
    for peer in [one.meet(&two), two.meet(&one)] {
        assert!(unreachable(
            &peer.call(call(Lane::Data, ECHO, "")).await.unwrap_err()
        ));
    }
}

#[tokio::test]
async fn greetings_reach_the_other_side_both_ways() {
    let (one, two, peer) = pair();
    peer.call(call(Lane::Control, ECHO, "")).await.unwrap();
    assert_eq!(*two.handlers.greeted.lock(), ["hello 2"]);
    assert_eq!(*one.handlers.greeted.lock(), ["welcome 1"]);
}

#[tokio::test]
async fn a_refused_node_hears_why_on_every_lane() {
    let (one, two, peer) = pair();
    let refusal = Refusal {
        code: 7,
        reason: "an old disk".to_owned(),
    };
    *two.handlers.refusing.lock() = Some(refusal.clone());
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        let error = peer.call(call(lane, ECHO, "")).await.unwrap_err();
        assert_eq!(error, CallError::Refused(refusal.clone()));
        assert!(!error.outcome_unknown());
    }
    let open = StreamOpen {
        kind: Kind(1),
        group: GroupId::Meta,
        header: Bytes::new(),
    };
    assert_eq!(
        peer.open_stream(open).await.unwrap_err(),
        CallError::Refused(refusal)
    );
    assert!(two.handlers.seen.lock().is_empty());
    let told = one.handlers.refused.lock();
    assert!(told.iter().any(|(by, _)| *by == NodeId(2)));
}

#[tokio::test]
async fn a_dialer_refuses_a_peer_that_greets_wrongly() {
    let (one, two, peer) = pair();
    let refusal = Refusal {
        code: 8,
        reason: "you have lost your log".to_owned(),
    };
    *one.handlers.unwelcome.lock() = Some(refusal.clone());
    let error = peer.call(call(Lane::Data, ECHO, "")).await.unwrap_err();
    assert_eq!(error, CallError::Refused(refusal.clone()));
    assert!(two.handlers.seen.lock().is_empty());
    // The one that was dialed hears of it too, although it has asked nothing.
    until("it is told", || {
        two.handlers.refused.lock().first() == Some(&(NodeId(1), refusal.clone()))
    })
    .await;
}

#[tokio::test]
async fn a_node_refused_later_loses_its_connections() {
    let (_one, two, peer) = pair();
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    let refusal = Refusal {
        code: 9,
        reason: "removed".to_owned(),
    };
    *two.handlers.refusing.lock() = Some(refusal.clone());
    two.transport.refuse(NodeId(1), &refusal);
    until("calls are refused", || {
        peer.send_call(call(Lane::Data, ECHO, "")).err()
            == Some(CallError::Refused(refusal.clone()))
    })
    .await;
    *two.handlers.refusing.lock() = None;
    until_answered(&peer, || call(Lane::Data, ECHO, "")).await;
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let authority = authority();
    let (one, two) = (start(config(&authority, 1)), start(config(&authority, 2)));
    let peer = one.meet(&two);
    peer.call(call(Lane::Data, ECHO, "")).await.unwrap();
    assert!(
        two.transport
            .set_identity(&identity(&authority, 3))
            .is_err()
    );
    two.transport
        .set_identity(&identity(&authority, 2))
        .unwrap();
    one.transport
        .set_identity(&identity(&authority, 1))
        .unwrap();
    peer.call(call(Lane::Data, ECHO, "the old connection stays"))
        .await
        .unwrap();
    peer.call(call(Lane::Bulk, ECHO, "a new one is made"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_process_without_certificate_joins_with_the_right_fingerprint_only() {
    let authority = authority();
    let node = start(config(&authority, 1));
    let ask = |fingerprint, request: &'static [u8]| {
        join::ask(
            node.address(),
            fingerprint,
            Bytes::from_static(request),
            LONG,
        )
    };
    let reply = ask(authority.fingerprint(), b"token and key")
        .await
        .unwrap();
    assert_eq!(reply, "certificate");
    let error = ask(authority.fingerprint(), b"nothing").await.unwrap_err();
    assert!(
        matches!(error, join::JoinError::Remote(RemoteError { code: 40, .. })),
        "{error}"
    );
    let other = super::authority().fingerprint();
    let error = ask(other, b"token and key").await.unwrap_err();
    assert!(matches!(error, join::JoinError::Unreachable(_)), "{error}");
    let large = Bytes::from(vec![0; join::MAX_BYTES + 1]);
    let error = join::ask(node.address(), authority.fingerprint(), large, LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, join::JoinError::TooLarge));
}

#[tokio::test]
async fn a_node_that_asks_to_join_again_is_known_by_its_certificate_only_in_its_own_cluster() {
    let authority = authority();
    let node = start(config(&authority, 1));
    let ask = async |identity| {
        join::ask_as(node.address(), identity, Bytes::from_static(b"again"), LONG).await
    };
    let own = identity(&authority, 3);
    assert_eq!(ask(&own).await.unwrap(), "again, 3");
    let stranger = identity(&super::authority(), 3);
    let error = ask(&stranger).await.unwrap_err();
    assert!(matches!(error, join::JoinError::Unreachable(_)), "{error}");
}
