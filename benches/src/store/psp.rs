//! PSP Edge, or a server with the same API, over HTTP/1.1 or HTTP/2.
//!
//! Over HTTP/1.1 each client has a connection of its own; over HTTP/2 clients share [`Psp::shared`] connections. A client whose node
//! does not answer goes on with the next one; one that answers with an error keeps its connection.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Connection, Fresh, Store};

const SESSIONS: &str = "/api/v2/sessions";

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time on a connection.
    Http1,
    /// Many at a time.
    Http2,
}

/// A connection over which many clients ask.
type Shared = http2::SendRequest<Full<Bytes>>;

/// Nodes, and who asks them.
#[derive(Clone, Debug)]
pub struct Psp {
    nodes: Rc<[SocketAddr]>,
    credential: HeaderValue,
    protocol: Protocol,
    limit: Duration,
    /// The paths of the sessions, by key.
    paths: Rc<RefCell<Vec<Option<Uri>>>>,
    shared: Rc<RefCell<Vec<Option<Shared>>>>,
}

impl Psp {
    /// For these nodes. Over HTTP/2 each node has `shared` connections. A request that takes longer than `limit` has failed.
    ///
    /// # Errors
    /// When there is no node, or the key cannot be sent.
    pub fn new(
        nodes: Vec<SocketAddr>,
        key: &str,
        protocol: Protocol,
        (shared, limit): (usize, Duration),
    ) -> Result<Self, String> {
        if nodes.is_empty() {
            return Err("there are no nodes".to_owned());
        }
        let mut credential = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|error| format!("the key cannot be sent: {error}"))?;
        credential.set_sensitive(true);
        let slots = vec![None; nodes.len() * shared.max(1)];
        Ok(Self {
            nodes: nodes.into(),
            credential,
            protocol,
            limit,
            paths: Rc::default(),
            shared: Rc::new(RefCell::new(slots)),
        })
    }

    /// The same sessions in a region that was started again: at these nodes, by this key.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn moved(
        &self,
        nodes: Vec<SocketAddr>,
        key: &str,
        limit: Duration,
    ) -> Result<Self, String> {
        let each = self.shared.borrow().len() / self.nodes.len();
        let moved = Self::new(nodes, key, self.protocol, (each, limit))?;
        Ok(Self {
            paths: Rc::clone(&self.paths),
            ..moved
        })
    }

    /// HTTP/2 wants all of it, HTTP/1.1 the path.
    fn uri(&self, path: &str) -> Result<Uri, String> {
        let text = match self.protocol {
            Protocol::Http1 => path.to_owned(),
            Protocol::Http2 => format!("http://psp{path}"),
        };
        text.parse().map_err(|error| format!("{text}: {error}"))
    }

    async fn dial(&self, client: usize, node: usize) -> Result<Sender, String> {
        let address = self.nodes[node % self.nodes.len()];
        let fails = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        let open = async || {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| fails(&error))?;
            stream.set_nodelay(true).map_err(|error| fails(&error))?;
            Ok::<_, String>(TokioIo::new(stream))
        };
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(open().await?)
                    .await
                    .map_err(|error| fails(&error))?;
                tokio::task::spawn_local(connection);
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let each = self.shared.borrow().len() / self.nodes.len();
                let slot = (node % self.nodes.len()) * each + (client / self.nodes.len()) % each;
                let known = self.shared.borrow()[slot].clone();
                if let Some(known) = known.filter(|known| !known.is_closed()) {
                    return Ok(Sender::Http2(known));
                }
                let (sender, connection) = http2::handshake(TokioExecutor::new(), open().await?)
                    .await
                    .map_err(|error| fails(&error))?;
                tokio::task::spawn_local(connection);
                self.shared.borrow_mut()[slot] = Some(sender.clone());
                Ok(Sender::Http2(sender))
            }
        }
    }
}

impl Store for Psp {
    type Connection = PspConnection;

    async fn connect(&self, client: usize) -> Result<PspConnection, String> {
        let sender = self.dial(client, client).await?;
        Ok(PspConnection {
            store: self.clone(),
            client,
            node: client,
            sender: Some(sender),
        })
    }
}

/// A client of [`Psp`].
#[derive(Debug)]
pub struct PspConnection {
    store: Psp,
    client: usize,
    node: usize,
    sender: Option<Sender>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(Shared),
}

impl PspConnection {
    async fn ask(
        &mut self,
        method: Method,
        path: &Uri,
        body: Bytes,
    ) -> Result<(http::HeaderMap, Bytes), String> {
        let limit = self.store.limit;
        let asked = timeout(limit, self.ask_once(method, path, body)).await;
        let asked = asked.unwrap_or_else(|_elapsed| Err(format!("no answer in {limit:?}")));
        let (head, body) = match asked {
            Ok(answer) => answer,
            Err(why) => {
                self.node += 1;
                self.sender = None;
                return Err(why);
            }
        };
        if head.status.is_success() {
            return Ok((head.headers, body));
        }
        let body = String::from_utf8_lossy(&body);
        Err(format!("{}: {body}", head.status))
    }

    async fn ask_once(
        &mut self,
        method: Method,
        path: &Uri,
        body: Bytes,
    ) -> Result<(http::response::Parts, Bytes), String> {
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert(self.store.dial(self.client, self.node).await?),
        };
        let writes = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.store.credential.clone());
        if writes {
            const JSON: HeaderValue = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, JSON);
            headers.insert("prefer", HeaderValue::from_static("return=minimal"));
        }
        let response = match sender {
            Sender::Http1(sender) => {
                headers.insert(header::HOST, HeaderValue::from_static("psp"));
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
        };
        let response = response.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok((head, body.to_bytes()))
    }

    fn path(&self, key: usize) -> Result<Uri, String> {
        let paths = self.store.paths.borrow();
        let path = paths.get(key).cloned().flatten();
        path.ok_or_else(|| format!("key {key} was not filled"))
    }
}

impl Connection for PspConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let sessions = self.store.uri(SESSIONS)?;
        let (headers, _) = self.ask(Method::POST, &sessions, body).await?;
        let place = headers.get(header::LOCATION);
        let place = place.and_then(|place| place.to_str().ok());
        let path = self.store.uri(place.ok_or("a new session has no place")?)?;
        let mut paths = self.store.paths.borrow_mut();
        if paths.len() <= key {
            paths.resize(key + 1, None);
        }
        paths[key] = Some(path);
        Ok(())
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let path = self.path(key)?;
        self.ask(Method::PUT, &path, body).await.map(drop)
    }

    async fn get(&mut self, key: usize, fresh: Fresh) -> Result<(), String> {
        let mut path = self.path(key)?;
        if fresh == Fresh::Local {
            path = format!("{path}?consistency=local")
                .parse()
                .map_err(|error| format!("{error}"))?;
        }
        let (_, body) = self.ask(Method::GET, &path, Bytes::new()).await?;
        if body.is_empty() {
            return Err("an empty document".to_owned());
        }
        Ok(())
    }
}
