//! A key-value bucket of NATS JetStream, over NATS's own text protocol.
//!
//! All clients together have [`SHARED`] connections; each request has an inbox of its own. Writes and reads of the newest value go to
//! the leader of the bucket's stream, which answers reads without asking the others; local ("direct") reads go to all nodes.
//! A client whose node does not answer goes on with the next one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::wire::{self, dial, limited};
use super::{Connection, Fresh, Store};

/// How many connections all clients share.
pub const SHARED: usize = 16;
/// The stream of the bucket.
const STREAM: &str = "KV_sessions";
/// The bucket, as its clients make it, with three replicas.
const CONFIG: &str = r#"{"name":"KV_sessions","subjects":["$KV.sessions.>"],"retention":"limits","discard":"new","storage":"file",
"num_replicas":3,"max_msgs_per_subject":1,"max_msgs":-1,"max_bytes":-1,"max_consumers":-1,"max_msg_size":-1,
"allow_rollup_hdrs":true,"deny_delete":true,"allow_direct":true}"#;
const HELLO: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1}\r\n";
const INBOX: &[u8] = b"_INBOX.";

/// A cluster.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The leader is the first one.
    nodes: Rc<[SocketAddr]>,
    limit: Duration,
    shared: Rc<RefCell<Links>>,
}

/// Connections by node and by place.
type Links = BTreeMap<(usize, usize), Rc<Open>>;

/// Who leads the stream, and who follows.
#[derive(Debug, Deserialize)]
struct Members {
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    #[serde(default)]
    current: bool,
}

/// What JetStream answers, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<Problem>,
    seq: Option<u64>,
    cluster: Option<Members>,
    message: Option<Message>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    data: String,
}

impl Nats {
    /// For these nodes, the leader first. A request that takes longer than `limit` has failed.
    #[must_use]
    pub fn new(nodes: &[SocketAddr], limit: Duration) -> Self {
        Self {
            nodes: nodes.into(),
            limit,
            shared: Rc::default(),
        }
    }

    /// Makes the bucket; if it is there already, nothing happens.
    ///
    /// # Errors
    /// In words.
    pub async fn prepare(&self) -> Result<(), String> {
        let subject = format!("$JS.API.STREAM.CREATE.{STREAM}");
        let answer = self.request((0, 0), &subject, CONFIG.as_bytes()).await?;
        understood(&answer).map(drop)
    }

    /// The name of the server that leads the bucket; an error unless all others follow.
    ///
    /// # Errors
    /// In words.
    pub async fn leader(&self) -> Result<String, String> {
        let subject = format!("$JS.API.STREAM.INFO.{STREAM}");
        let answer = understood(&self.request((0, 0), &subject, b"").await?)?;
        let members = answer.cluster.ok_or("it has no cluster")?;
        let current = members.replicas.iter().filter(|replica| replica.current);
        if current.count() + 1 < self.nodes.len() {
            return Err("a replica is not current".to_owned());
        }
        members.leader.ok_or_else(|| "it has no leader".to_owned())
    }

    async fn request(
        &self,
        (node, place): (usize, usize),
        subject: &str,
        body: &[u8],
    ) -> Result<Bytes, String> {
        limited(self.limit, async {
            let link = self.link(node % self.nodes.len().max(1), place).await?;
            let (answer, waits) = oneshot::channel();
            link.link.ask(subject, body, answer);
            waits.await.map_err(|error| error.to_string())?
        })
        .await
    }

    async fn link(&self, node: usize, place: usize) -> Result<Rc<Open>, String> {
        let known = self.shared.borrow().get(&(node, place)).cloned();
        if let Some(known) = known.filter(|open| !open.link.closed.get()) {
            return Ok(known);
        }
        let address = *self.nodes.get(node).ok_or("there are no nodes")?;
        let stream = dial(address).await?;
        let own = stream.local_addr().map_err(|error| error.to_string())?;
        // What is sent to an inbox goes to all who listen there: none but this connection has these two ports.
        let inbox = format!("_INBOX.{}-{}", address.port(), own.port());
        let link = Rc::new(Link {
            inbox: inbox.into(),
            ..Link::default()
        });
        link.greet();
        let (read, write) = stream.into_split();
        let reads = tokio::task::spawn_local(Rc::clone(&link).reads(read));
        let writes = tokio::task::spawn_local(Rc::clone(&link).writes(write));
        let tasks = [reads.abort_handle(), writes.abort_handle()];
        let link = Rc::new(Open { link, tasks });
        let mut shared = self.shared.borrow_mut();
        shared.insert((node, place), Rc::clone(&link));
        Ok(link)
    }
}

impl Store for Nats {
    type Connection = NatsConnection;

    async fn connect(&self, client: usize) -> Result<NatsConnection, String> {
        Ok(NatsConnection {
            store: self.clone(),
            place: client % SHARED,
            moved: 0,
        })
    }
}

/// A client of [`Nats`].
#[derive(Debug)]
pub struct NatsConnection {
    store: Nats,
    place: usize,
    /// How often it went on with the next node.
    moved: usize,
}

impl NatsConnection {
    async fn ask(&mut self, first: usize, subject: &str, body: &[u8]) -> Result<Bytes, String> {
        let place = (first + self.moved, self.place);
        let asked = self.store.request(place, subject, body).await;
        if asked.is_err() {
            self.moved += 1;
        }
        asked
    }
}

impl Connection for NatsConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        self.put(key, body).await
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let subject = format!("$KV.sessions.{key}");
        let answer = understood(&self.ask(0, &subject, &body).await?)?;
        answer.seq.map(drop).ok_or_else(|| "no place".to_owned())
    }

    async fn get(&mut self, key: usize, fresh: Fresh) -> Result<(), String> {
        match fresh {
            Fresh::Linearizable => {
                let subject = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
                let body = format!("{{\"last_by_subj\":\"$KV.sessions.{key}\"}}");
                let answer = understood(&self.ask(0, &subject, body.as_bytes()).await?)?;
                let message = answer.message.filter(|message| !message.data.is_empty());
                message.map(drop).ok_or_else(|| "no value".to_owned())
            }
            Fresh::Local => {
                let subject = format!("$JS.API.DIRECT.GET.{STREAM}.$KV.sessions.{key}");
                let body = self.ask(self.place, &subject, b"").await?;
                // A refusal has a status and no body.
                (!body.is_empty())
                    .then_some(())
                    .ok_or_else(|| "no value".to_owned())
            }
        }
    }
}

fn understood(answer: &[u8]) -> Result<Answer, String> {
    if answer.is_empty() {
        return Err("nobody answers for the bucket".to_owned());
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    match answer.error {
        Some(problem) => Err(problem.description),
        None => Ok(answer),
    }
}

type Waits = oneshot::Sender<Result<Bytes, String>>;

/// A connection with its two tasks, which end with it.
#[derive(Debug)]
struct Open {
    link: Rc<Link>,
    tasks: [AbortHandle; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A connection over which many clients ask. What they send at one time goes out in one packet.
#[derive(Debug, Default)]
struct Link {
    /// Before the number of a request: where it is answered.
    inbox: Rc<str>,
    out: RefCell<BytesMut>,
    wake: Notify,
    waits: RefCell<BTreeMap<u64, Waits>>,
    last: Cell<u64>,
    closed: Cell<bool>,
}

impl Link {
    fn greet(&self) {
        let mut out = self.out.borrow_mut();
        out.extend_from_slice(HELLO);
        out.extend_from_slice(format!("SUB {}.* 1\r\n", self.inbox).as_bytes());
        self.wake.notify_one();
    }

    fn ask(&self, subject: &str, body: &[u8], waits: Waits) {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waits.borrow_mut().insert(number, waits);
        let reply = format!("{}.{number}", self.inbox);
        publish(&mut self.out.borrow_mut(), subject, &reply, body);
        self.wake.notify_one();
    }

    async fn writes(self: Rc<Self>, mut stream: OwnedWriteHalf) {
        while !self.closed.get() {
            self.wake.notified().await;
            let out = self.out.borrow_mut().split();
            if let Err(error) = stream.write_all(&out).await {
                self.close(&error.to_string());
            }
        }
    }

    async fn reads(self: Rc<Self>, mut stream: OwnedReadHalf) {
        let mut inbox = BytesMut::with_capacity(64 << 10);
        let why = loop {
            match stream.read_buf(&mut inbox).await {
                Ok(0) => break "the server closed the connection".to_owned(),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
            if let Err(why) = self.take(&mut inbox) {
                break why;
            }
        };
        self.close(&why);
    }

    /// Everything that is there whole.
    fn take(&self, inbox: &mut BytesMut) -> Result<(), String> {
        while let Some(event) = event(inbox)? {
            match event {
                Event::Message(number, body) => {
                    let waits = self.waits.borrow_mut().remove(&number);
                    if let Some(waits) = waits {
                        // Who does not wait any more has given up.
                        drop(waits.send(Ok(body)));
                    }
                }
                Event::Ping => {
                    self.out.borrow_mut().extend_from_slice(b"PONG\r\n");
                    self.wake.notify_one();
                }
                Event::Nothing => {}
            }
        }
        Ok(())
    }

    fn close(&self, why: &str) {
        self.closed.set(true);
        self.wake.notify_one();
        for (_, waits) in std::mem::take(&mut *self.waits.borrow_mut()) {
            drop(waits.send(Err(why.to_owned())));
        }
    }
}

fn publish(out: &mut BytesMut, subject: &str, reply: &str, body: &[u8]) {
    let head = format!("PUB {subject} {reply} {}\r\n", body.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// What a server says, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// To an inbox; without headers.
    Message(u64, Bytes),
    Ping,
    Nothing,
}

fn event(inbox: &mut BytesMut) -> Result<Option<Event>, String> {
    let end = inbox.iter().take(wire::LONGEST_LINE);
    let Some(end) = end.copied().position(|byte| byte == b'\n') else {
        return if inbox.len() < wire::LONGEST_LINE {
            Ok(None)
        } else {
            Err("an endless line".to_owned())
        };
    };
    let line = inbox[..end].strip_suffix(b"\r").ok_or("a bare line end")?;
    let mut words = line.split(|byte| *byte == b' ');
    let kind = words.next().unwrap_or_default();
    let headers = match kind {
        b"MSG" => false,
        b"HMSG" => true,
        b"-ERR" => return Err(String::from_utf8_lossy(line).into_owned()),
        other => {
            let event = match other {
                b"PING" => Event::Ping,
                b"PONG" | b"+OK" | b"INFO" => Event::Nothing,
                _ => return Err(String::from_utf8_lossy(line).into_owned()),
            };
            inbox.advance(end + 1);
            return Ok(Some(event));
        }
    };
    let words: Vec<&[u8]> = words.collect();
    // Subject, subscription, where to answer (or not), length of headers (or not), length of all.
    let (length, before) = words.split_last().ok_or("a message without length")?;
    let length = wire::length(length)?;
    let skipped = match before.last() {
        Some(skipped) if headers => wire::length(skipped)?,
        _ => 0,
    };
    if skipped > length {
        return Err("headers longer than their message".to_owned());
    }
    let number = before.first().and_then(|subject| {
        let number = subject
            .strip_prefix(INBOX)?
            .rsplit(|byte| *byte == b'.')
            .next();
        std::str::from_utf8(number?).ok()?.parse().ok()
    });
    let number = number.ok_or("a message to nobody here")?;
    let Some(rest) = inbox.get(end + 1..end + 3 + length) else {
        return Ok(None);
    };
    if !rest.ends_with(b"\r\n") {
        return Err("a message does not end where it should".to_owned());
    }
    inbox.advance(end + 1 + skipped);
    let body = inbox.split_to(length - skipped).freeze();
    inbox.advance(2);
    Ok(Some(Event::Message(number, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_these_bytes() {
        let mut out = BytesMut::new();
        publish(&mut out, "$KV.sessions.7", "_INBOX.1.12", b"ab");
        assert_eq!(out, &b"PUB $KV.sessions.7 _INBOX.1.12 2\r\nab\r\n"[..]);
    }

    #[test]
    fn events_are_taken_one_by_one_when_they_are_whole() {
        let whole = b"INFO {\"a\":1}\r\nPING\r\nMSG _INBOX.1.3 1 2\r\nab\r\nHMSG _INBOX.1.4 1 x.y 12 14\r\nNATS/1.0\r\n\r\ncd\r\nPONG\r\n";
        let want = [
            Event::Nothing,
            Event::Ping,
            Event::Message(3, Bytes::from_static(b"ab")),
            Event::Message(4, Bytes::from_static(b"cd")),
            Event::Nothing,
        ];
        for cut in 0..whole.len() {
            let mut got = Vec::new();
            let mut inbox = BytesMut::from(&whole[..cut]);
            for more in [&b""[..], &whole[cut..]] {
                inbox.extend_from_slice(more);
                while let Some(event) = event(&mut inbox).unwrap() {
                    got.push(event);
                }
            }
            assert_eq!(got, want, "{cut}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            &b"\n"[..],
            b"\r\n",
            b"-ERR 'no'\r\n",
            b"MSG\r\n",
            b"MSG 1\r\n",
            b"MSG other 1 1\r\na\r\n",
            b"MSG _INBOX.1.1 1 x\r\n",
            b"MSG _INBOX.1.1 1 1\r\nabc",
            b"HMSG _INBOX.1.1 1 9 1\r\na\r\n",
            b"MSG _INBOX.1.1 1 99999999999\r\n",
        ] {
            assert!(event(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
        assert!(event(&mut BytesMut::from(&vec![b'x'; 70_000][..])).is_err());
    }

    #[test]
    fn an_error_in_an_answer_is_one() {
        let full = br#"{"error":{"code":503,"description":"no quorum"},"stream":"x","seq":0}"#;
        assert_eq!(understood(full).map(drop), Err("no quorum".to_owned()));
        let good = understood(br#"{"stream":"KV_sessions","seq":7,"domain":"x"}"#);
        assert_eq!(good.unwrap().seq, Some(7));
        assert!(understood(b"").is_err());
        assert!(understood(b"{").is_err());
    }
}
