//! Clients: hyper's for what is well formed, a raw socket for what is not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::setup::KEY;

/// No answer takes as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ascii"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(
    address: SocketAddr,
    protocol: Protocol,
    request: Request<Full<Bytes>>,
) -> Reply {
    let stream = TcpStream::connect(address).await.expect("connects");
    let io = TokioIo::new(stream);
    let mut tasks = JoinSet::new();
    let answer = async {
        match protocol {
            Protocol::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                    .await
                    .expect("greets");
                tasks.spawn(async { drop(connection.await) });
                sender.send_request(request).await
            }
            Protocol::Http2 => {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .expect("greets");
                tasks.spawn(async { drop(connection.await) });
                sender.send_request(request).await
            }
        }
    };
    let response = timeout(LIMIT, answer)
        .await
        .expect("in time")
        .expect("an answer");
    let (parts, body) = response.into_parts();
    let body = timeout(LIMIT, body.collect())
        .await
        .expect("in time")
        .expect("whole")
        .to_bytes();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

/// A request with the right key. HTTP/2 needs the authority in the target.
pub(crate) fn request(method: Method, address: SocketAddr, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("authorization", format!("Bearer {KEY}"))
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    let request = request(Method::GET, address, path)
        .body(Full::default())
        .expect("well formed");
    send(address, Protocol::Http1, to_origin_form(request)).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> Reply {
    let request = request(Method::POST, address, path).header("content-type", "application/json");
    let request = request.body(Full::new(body.into())).expect("well formed");
    send(address, Protocol::Http1, to_origin_form(request)).await
}

/// HTTP/1.1 clients send the path alone, and the authority in `Host`.
pub(crate) fn to_origin_form(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let uri = request.uri().clone();
    if let Some(authority) = uri.authority() {
        let host = authority.as_str().parse().expect("a header value");
        request.headers_mut().insert("host", host);
    }
    let path = uri.path_and_query().expect("a path").as_str();
    *request.uri_mut() = path.parse().expect("a path");
    request
}

/// Sends bytes as they are, closes the sending side if told so, and reads until the end or for `LIMIT`.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8], half_close: bool) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // The server may refuse before it has read everything.
    let _sent = stream.write_all(bytes).await;
    if half_close {
        let _closed = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _read = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}
