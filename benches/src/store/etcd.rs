//! etcd, over gRPC: HTTP/2, and the few protobuf messages written by hand.
//!
//! All clients together have [`SHARED`] connections. Writes and linearizable reads go to the leader, local ("serializable") reads to
//! all nodes. A client whose node does not answer goes on with the next one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::wire::{LARGEST, dial, limited};
use super::{Connection, Fresh, Store};

/// How many connections all clients share.
pub const SHARED: usize = 16;

const PUT: &str = "http://etcd/etcdserverpb.KV/Put";
const RANGE: &str = "http://etcd/etcdserverpb.KV/Range";
const STATUS: &str = "http://etcd/etcdserverpb.Maintenance/Status";

type Sender = http2::SendRequest<Full<Bytes>>;

/// A cluster.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// The leader is the first one.
    nodes: Rc<[SocketAddr]>,
    limit: Duration,
    /// By node and by place.
    shared: Rc<RefCell<BTreeMap<(usize, usize), Sender>>>,
}

impl Etcd {
    /// For these nodes, the leader first. A request that takes longer than `limit` has failed.
    #[must_use]
    pub fn new(nodes: &[SocketAddr], limit: Duration) -> Self {
        Self {
            nodes: nodes.into(),
            limit,
            shared: Rc::default(),
        }
    }

    /// Whether this node leads the cluster; an error when nobody does.
    ///
    /// # Errors
    /// In words.
    pub async fn leads(&self, node: usize) -> Result<bool, String> {
        let answer = limited(self.limit, async {
            let mut sender = self.sender(node, 0).await?;
            unary(&mut sender, STATUS, Bytes::from_static(&[0; 5])).await
        });
        let answer = answer.await?;
        let (mut own, mut leader) = (0, 0);
        for field in Fields(&answer) {
            match field? {
                (1, Value::Bytes(header)) => {
                    for field in Fields(header) {
                        if let (2, Value::Number(member)) = field? {
                            own = member;
                        }
                    }
                }
                (4, Value::Number(member)) => leader = member,
                _ => {}
            }
        }
        if leader == 0 {
            return Err("there is no leader".to_owned());
        }
        Ok(own == leader)
    }

    async fn sender(&self, node: usize, place: usize) -> Result<Sender, String> {
        let slot = (node % self.nodes.len().max(1), place);
        let known = self.shared.borrow().get(&slot).cloned();
        if let Some(known) = known.filter(|known| !known.is_closed()) {
            return Ok(known);
        }
        let address = *self.nodes.get(slot.0).ok_or("there are no nodes")?;
        let stream = TokioIo::new(dial(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        tokio::task::spawn_local(connection);
        self.shared.borrow_mut().insert(slot, sender.clone());
        Ok(sender)
    }
}

impl Store for Etcd {
    type Connection = EtcdConnection;

    async fn connect(&self, client: usize) -> Result<EtcdConnection, String> {
        Ok(EtcdConnection {
            store: self.clone(),
            place: client % SHARED,
            moved: 0,
        })
    }
}

/// A client of [`Etcd`].
#[derive(Debug)]
pub struct EtcdConnection {
    store: Etcd,
    place: usize,
    /// How often it went on with the next node.
    moved: usize,
}

impl EtcdConnection {
    async fn ask(
        &mut self,
        fresh: Fresh,
        path: &'static str,
        message: Bytes,
    ) -> Result<Bytes, String> {
        let first = match fresh {
            Fresh::Linearizable => 0,
            Fresh::Local => self.place,
        };
        let asked = limited(self.store.limit, async {
            let mut sender = self.store.sender(first + self.moved, self.place).await?;
            unary(&mut sender, path, message).await
        });
        let asked = asked.await;
        if asked.is_err() {
            self.moved += 1;
        }
        asked
    }
}

impl Connection for EtcdConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        self.put(key, body).await
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let message = put_request(&name(key), &body);
        let answer = self.ask(Fresh::Linearizable, PUT, message).await?;
        Fields(&answer).try_for_each(|field| field.map(drop))
    }

    async fn get(&mut self, key: usize, fresh: Fresh) -> Result<(), String> {
        let message = range_request(&name(key), fresh);
        let answer = self.ask(fresh, RANGE, message).await?;
        match value(&answer)? {
            1.. => Ok(()),
            0 => Err("no value".to_owned()),
        }
    }
}

fn name(key: usize) -> String {
    format!("session:{key}")
}

/// Sends one message, with its prefix of five bytes, and gives the answer without it.
async fn unary(sender: &mut Sender, path: &'static str, message: Bytes) -> Result<Bytes, String> {
    const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
    let mut request = Request::new(Full::new(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    request
        .headers_mut()
        .insert(header::TE, HeaderValue::from_static("trailers"));
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
    if !head.status.is_success() {
        return Err(format!("{}", head.status));
    }
    let body = body.collect().await.map_err(|error| error.to_string())?;
    // An answer without a message has its trailers at the head.
    judged(body.trailers().unwrap_or(&head.headers))?;
    unframed(body.to_bytes())
}

fn judged(trailers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).map(HeaderValue::as_bytes);
    match text("grpc-status") {
        Some(b"0") => Ok(()),
        status => Err(format!(
            "gRPC status {}: {}",
            String::from_utf8_lossy(status.unwrap_or(b"missing")),
            String::from_utf8_lossy(text("grpc-message").unwrap_or_default()),
        )),
    }
}

fn unframed(mut framed: Bytes) -> Result<Bytes, String> {
    let (head, rest) = framed.split_first_chunk::<5>().ok_or("a frame cut short")?;
    let [packed, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if packed != 0 || length > LARGEST || length != rest.len() {
        return Err(format!(
            "a frame that says {length} and has {} bytes",
            rest.len()
        ));
    }
    Ok(framed.split_off(5))
}

fn put_request(key: &str, value: &[u8]) -> Bytes {
    framed(key.len() + value.len(), |out| {
        bytes(out, 1, key.as_bytes());
        bytes(out, 2, value);
    })
}

fn range_request(key: &str, fresh: Fresh) -> Bytes {
    framed(key.len(), |out| {
        bytes(out, 1, key.as_bytes());
        if fresh == Fresh::Local {
            // serializable = true
            out.put_slice(&[7 << 3, 1]);
        }
    })
}

/// A message and its prefix: not packed, and so long.
fn framed(about: usize, message: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(about + 32);
    out.put_bytes(0, 5);
    message(&mut out);
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

fn bytes(out: &mut BytesMut, field: u8, value: &[u8]) {
    out.put_u8(field << 3 | 2);
    let mut rest = value.len();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low);
            break;
        }
        out.put_u8(low | 0x80);
    }
    out.put_slice(value);
}

/// The length of the first value in the answer to a range.
fn value(answer: &[u8]) -> Result<usize, String> {
    let mut found = 0;
    for field in Fields(answer) {
        if let (2, Value::Bytes(pair)) = field? {
            for field in Fields(pair) {
                if let (5, Value::Bytes(value)) = field? {
                    found = found.max(value.len());
                }
            }
        }
    }
    Ok(found)
}

/// The fields of a protobuf message.
struct Fields<'a>(&'a [u8]);

#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Eight or four bytes, which nothing here needs.
    Fixed,
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or("a number cut short")?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number too long".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (value, rest) = self
            .0
            .split_at_checked(length)
            .ok_or("a field longer than its message")?;
        self.0 = rest;
        Ok(value)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_skipped| Value::Fixed)?,
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_skipped| Value::Fixed)?,
            kind => return Err(format!("a field of kind {kind}")),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_these_bytes() {
        assert_eq!(
            put_request("k", b"ab"),
            &b"\0\0\0\0\x07\x0a\x01k\x12\x02ab"[..]
        );
        assert_eq!(
            range_request("k", Fresh::Local),
            &b"\0\0\0\0\x05\x0a\x01k\x38\x01"[..]
        );
        assert_eq!(
            range_request("k", Fresh::Linearizable),
            &b"\0\0\0\0\x03\x0a\x01k"[..]
        );
        let long = put_request("k", &[b'x'; 300]);
        assert_eq!(long[..11], b"\0\0\0\x01\x32\x0a\x01k\x12\xac\x02"[..]);
    }

    #[test]
    fn a_value_is_found_in_an_answer() {
        // A header with a member, then a pair with key, revision and value.
        let answer = b"\x0a\x02\x10\x07\x12\x09\x0a\x01k\x10\x05\x2a\x02ab\x20\x01";
        assert_eq!(value(answer), Ok(2));
        assert_eq!(value(b"\x0a\x02\x10\x07"), Ok(0));
        assert_eq!(value(b""), Ok(0));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            &b"\x80"[..],
            b"\x12\x05ab",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x13",
            b"\x09ab",
            b"\x12\x02\x2a\x07",
        ] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x01",
            b"\0\xff\xff\xff\xffa",
        ] {
            assert!(unframed(Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\x01a")).unwrap(), "a");
    }

    #[test]
    fn only_status_zero_is_well() {
        let mut trailers = HeaderMap::new();
        assert!(judged(&trailers).is_err());
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(judged(&trailers), Ok(()));
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-message", HeaderValue::from_static("leader changed"));
        assert_eq!(
            judged(&trailers),
            Err("gRPC status 14: leader changed".to_owned())
        );
    }
}
