//! Plain HTTP/1.1: files that nginx serves, and the stand-in of the PSP reference server. Each client has a connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::wire::{dial, limited};
use super::{Connection, Fresh, Store};

type Sender = http1::SendRequest<Full<Bytes>>;

/// A server.
#[derive(Clone, Debug)]
pub struct Plain {
    address: SocketAddr,
    limit: Duration,
    /// What stands before a key in a path.
    prefix: Rc<str>,
    /// Where values are put before anything is measured, if the server takes none.
    folder: Option<PathBuf>,
}

impl Plain {
    /// A server that takes writes.
    #[must_use]
    pub fn new(address: SocketAddr, prefix: &str, limit: Duration) -> Self {
        Self {
            address,
            limit,
            prefix: prefix.into(),
            folder: None,
        }
    }

    /// A server of the files in a folder; they are written there, past it.
    #[must_use]
    pub fn files(address: SocketAddr, folder: &Path, limit: Duration) -> Self {
        Self {
            folder: Some(folder.to_owned()),
            ..Self::new(address, "/", limit)
        }
    }
}

impl Store for Plain {
    type Connection = PlainConnection;

    async fn connect(&self, _client: usize) -> Result<PlainConnection, String> {
        Ok(PlainConnection {
            store: self.clone(),
            sender: None,
        })
    }
}

/// A client of [`Plain`]. It connects when it first asks.
#[derive(Debug)]
pub struct PlainConnection {
    store: Plain,
    sender: Option<Sender>,
}

impl PlainConnection {
    async fn ask(&mut self, method: Method, key: usize, body: Bytes) -> Result<Bytes, String> {
        let path = format!("{}{key}", self.store.prefix);
        let sender = &mut self.sender;
        let asked = limited(self.store.limit, async {
            let sender = match sender {
                Some(sender) => sender,
                none => none.insert(open(self.store.address).await?),
            };
            ask(sender, method, &path, body).await
        });
        let asked = asked.await;
        if asked.is_err() {
            self.sender = None;
        }
        asked
    }
}

impl Connection for PlainConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        match &self.store.folder {
            Some(folder) => {
                let written = tokio::fs::write(folder.join(key.to_string()), body).await;
                written.map_err(|error| error.to_string())
            }
            None => self.put(key, body).await,
        }
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        self.ask(Method::PUT, key, body).await.map(drop)
    }

    async fn get(&mut self, key: usize, _fresh: Fresh) -> Result<(), String> {
        let body = self.ask(Method::GET, key, Bytes::new()).await?;
        (!body.is_empty())
            .then_some(())
            .ok_or_else(|| "no value".to_owned())
    }
}

/// What one path of a server holds, over a connection of its own.
///
/// # Errors
/// In words.
pub async fn fetch(address: SocketAddr, path: &str, limit: Duration) -> Result<Bytes, String> {
    let asked = async {
        let mut sender = open(address).await?;
        ask(&mut sender, Method::GET, path, Bytes::new()).await
    };
    limited(limit, asked).await
}

async fn open(address: SocketAddr) -> Result<Sender, String> {
    let stream = TokioIo::new(dial(address).await?);
    let (sender, connection) = http1::handshake(stream)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn ask(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, String> {
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = path
        .parse::<Uri>()
        .map_err(|error| format!("{path}: {error}"))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("plain"));
    if method == Method::PUT {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, JSON);
    }
    *request.method_mut() = method;
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let body = body.to_bytes();
    if head.status.is_success() {
        return Ok(body);
    }
    Err(format!(
        "{}: {}",
        head.status,
        String::from_utf8_lossy(&body)
    ))
}
