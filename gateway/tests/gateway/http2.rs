//! HTTP/2, plain by prior knowledge and with TLS by ALPN; and HTTP/1.1 with TLS.

use std::sync::Arc;

use bytes::Bytes;
use gateway::{LimitsConfig, TlsConfig};
use http::{Method, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::client::{Protocol, request, send, to_origin_form};
use crate::setup::Setup;

#[tokio::test]
async fn many_requests_share_a_connection() {
    let setup = Setup::new().await;
    let stream = TcpStream::connect(setup.http()).await.expect("connects");
    let mut tasks = JoinSet::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("greets");
    tasks.spawn(async { drop(connection.await) });
    let mut asked = JoinSet::new();
    for at in 0..100 {
        let mut sender = sender.clone();
        let body = Full::new(Bytes::from(format!("{{\"name\":\"{at}\"}}")));
        let ask = request(Method::POST, setup.http(), "/api/v2/sessions")
            .header("content-type", "application/json");
        let ask = ask.body(body).expect("well formed");
        asked.spawn(async move { sender.send_request(ask).await.expect("answered").status() });
    }
    while let Some(status) = asked.join_next().await {
        assert_eq!(status.expect("no panic"), StatusCode::CREATED);
    }
    assert_eq!(setup.fake.writes().len(), 100);
}

#[tokio::test]
async fn too_many_header_fields_are_431() {
    let setup = Setup::new().await;
    let mut ask = request(Method::GET, setup.http(), "/api/v2/sessions");
    for at in 0..100 {
        ask = ask.header(format!("x-{at}"), "1");
    }
    let reply = send(
        setup.http(),
        Protocol::Http2,
        ask.body(Full::default()).expect("well formed"),
    )
    .await;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(reply.code(), "headers_too_large");
}

fn certificate(folder: &std::path::Path) -> (TlsConfig, rcgen::Certificate) {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let config = TlsConfig {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        reload_every: std::time::Duration::from_millis(5),
    };
    std::fs::write(&config.key, pair.signing_key.serialize_pem()).expect("written");
    std::fs::write(&config.certificate, pair.cert.pem()).expect("written");
    (config, pair.cert)
}

fn connector(certificate: &rcgen::Certificate, alpn: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn health(
    setup: &Setup,
    certificate: &rcgen::Certificate,
    alpn: &[u8],
) -> std::io::Result<Version> {
    let stream = TcpStream::connect(setup.http()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector(certificate, alpn).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let io = TokioIo::new(stream);
    let ask = request(Method::GET, setup.http(), "/health")
        .body(Full::<Bytes>::default())
        .expect("well formed");
    let mut tasks = JoinSet::new();
    let response = if alpn == b"h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("greets");
        tasks.spawn(async { drop(connection.await) });
        sender.send_request(ask).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("greets");
        tasks.spawn(async { drop(connection.await) });
        sender.send_request(to_origin_form(ask)).await
    };
    let response = response.expect("answered");
    let version = response.version();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        !response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes()
            .is_empty()
    );
    Ok(version)
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_a_new_certificate_is_taken_over() {
    let folder = tempfile::tempdir().expect("made");
    let (config, old) = certificate(folder.path());
    let setup = Setup::with(LimitsConfig::default(), Some(config.clone())).await;
    assert_eq!(
        health(&setup, &old, b"h2").await.expect("trusted"),
        Version::HTTP_2
    );
    assert_eq!(
        health(&setup, &old, b"http/1.1").await.expect("trusted"),
        Version::HTTP_11
    );
    // Half a certificate changes nothing.
    std::fs::write(&config.certificate, "nonsense").expect("written");
    assert!(health(&setup, &old, b"h2").await.is_ok());
    let (_, new) = certificate(folder.path());
    let taken_over = async {
        while health(&setup, &new, b"h2").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::client::LIMIT, taken_over)
        .await
        .expect("taken over in time");
    assert!(health(&setup, &old, b"h2").await.is_err());
}

#[tokio::test]
async fn a_plain_client_of_a_tls_listener_costs_nothing() {
    let folder = tempfile::tempdir().expect("made");
    let (config, certificate) = certificate(folder.path());
    let setup = Setup::with(LimitsConfig::default(), Some(config)).await;
    let answer = crate::client::raw(
        setup.http(),
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
        true,
    )
    .await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(health(&setup, &certificate, b"h2").await.is_ok());
}
