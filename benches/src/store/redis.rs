//! Redis, over its own text protocol (RESP 2), each client with a connection.
//!
//! A write is `SET` and `WAIT 1 0` in one packet: it ends well when a replica has received it. With `appendfsync always` the primary
//! has synced it then; the replica may not have, and a failover may lose it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};

use super::wire::{self, LONGEST_LINE, Wire, limited};
use super::{Connection, Fresh, Store};

/// A primary, and all nodes.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The primary is the first one.
    nodes: Rc<[SocketAddr]>,
    limit: Duration,
}

impl Redis {
    /// For these nodes, the primary first. A request that takes longer than `limit` has failed.
    #[must_use]
    pub fn new(nodes: &[SocketAddr], limit: Duration) -> Self {
        Self {
            nodes: nodes.into(),
            limit,
        }
    }

    /// What the primary says of its replicas.
    ///
    /// # Errors
    /// In words.
    pub async fn info(&self) -> Result<String, String> {
        let mut out = Vec::new();
        command(&mut out, &[b"INFO", b"replication"]);
        let address = *self.nodes.first().ok_or("there are no nodes")?;
        limited(self.limit, async {
            let mut wire = Wire::dial(address).await?;
            wire.send(&out).await?;
            match wire.next(reply).await? {
                Reply::Bulk(Some(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
                other => Err(format!("no report: {other:?}")),
            }
        })
        .await
    }
}

impl Store for Redis {
    type Connection = RedisConnection;

    async fn connect(&self, client: usize) -> Result<RedisConnection, String> {
        let near = client % self.nodes.len().max(1);
        Ok(RedisConnection {
            store: self.clone(),
            near,
            wires: [None, None],
        })
    }
}

/// A client of [`Redis`]. It connects when it first asks.
#[derive(Debug)]
pub struct RedisConnection {
    store: Redis,
    near: usize,
    /// To the primary, and to the node of local reads.
    wires: [Option<Wire>; 2],
}

impl RedisConnection {
    /// Sends commands and gives the answers to all of them.
    async fn ask(&mut self, fresh: Fresh, out: &[u8], answers: usize) -> Result<Reply, String> {
        let (place, node) = match fresh {
            Fresh::Linearizable => (0, 0),
            Fresh::Local => (1, self.near),
        };
        let address = *self.store.nodes.get(node).ok_or("there are no nodes")?;
        let wire = &mut self.wires[place];
        let asked = limited(self.store.limit, async {
            let wire = match wire {
                Some(wire) => wire,
                none => none.insert(Wire::dial(address).await?),
            };
            wire.send(out).await?;
            for _ in 1..answers {
                if let Reply::Error(why) = wire.next(reply).await? {
                    return Err(why);
                }
            }
            wire.next(reply).await
        });
        let asked = asked.await;
        if asked.is_err() {
            self.wires[place] = None;
        }
        match asked? {
            Reply::Error(why) => Err(why),
            reply => Ok(reply),
        }
    }
}

impl Connection for RedisConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        self.put(key, body).await
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let mut out = Vec::with_capacity(body.len() + 128);
        command(&mut out, &[b"SET", name(key).as_bytes(), &body]);
        command(&mut out, &[b"WAIT", b"1", b"0"]);
        match self.ask(Fresh::Linearizable, &out, 2).await? {
            Reply::Integer(1..) => Ok(()),
            other => Err(format!("no replica has it: {other:?}")),
        }
    }

    async fn get(&mut self, key: usize, fresh: Fresh) -> Result<(), String> {
        let mut out = Vec::with_capacity(64);
        command(&mut out, &[b"GET", name(key).as_bytes()]);
        match self.ask(fresh, &out, 1).await? {
            Reply::Bulk(Some(value)) if !value.is_empty() => Ok(()),
            other => Err(format!("no value: {other:?}")),
        }
    }
}

fn name(key: usize) -> String {
    format!("session:{key}")
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a server answers, as far as it does here.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Status,
    Error(String),
    Integer(i64),
    Bulk(Option<Bytes>),
}

fn reply(inbox: &mut BytesMut) -> Result<Option<Reply>, String> {
    // A value is long: its end is looked for only when enough is there.
    let mut rest = &inbox[..];
    let Some(head) = rest
        .iter()
        .take(LONGEST_LINE)
        .position(|byte| *byte == b'\n')
    else {
        return if rest.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(format!("a line longer than {LONGEST_LINE} bytes"))
        };
    };
    let line = rest[..head].strip_suffix(b"\r").ok_or("a bare line end")?;
    let (kind, text) = line.split_first().ok_or("an empty reply")?;
    rest.advance(head + 1);
    let reply = match kind {
        b'+' => Reply::Status,
        b'-' => Reply::Error(String::from_utf8_lossy(text).into_owned()),
        b':' => {
            let number = std::str::from_utf8(text).ok();
            let number = number.and_then(|text| text.parse().ok());
            Reply::Integer(number.ok_or("no number")?)
        }
        b'$' if text == b"-1" => Reply::Bulk(None),
        b'$' => {
            let length = wire::length(text)?;
            if rest.len() < length + 2 {
                return Ok(None);
            }
            if &rest[length..length + 2] != b"\r\n" {
                return Err("a value does not end where it should".to_owned());
            }
            inbox.advance(head + 1);
            let value = inbox.split_to(length).freeze();
            inbox.advance(2);
            return Ok(Some(Reply::Bulk(Some(value))));
        }
        other => return Err(format!("an unknown kind of reply: {other}")),
    };
    inbox.advance(head + 1);
    Ok(Some(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_these_bytes() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"k", b"v\r\n"]);
        command(&mut out, &[b"WAIT", b"1", b"0"]);
        let golden =
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nv\r\n\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";
        assert_eq!(out, golden);
    }

    #[test]
    fn replies_are_taken_one_by_one_when_they_are_whole() {
        let whole = b"+OK\r\n:1\r\n$3\r\na\r\n\r\n$-1\r\n-ERR no\r\n";
        let want = [
            Reply::Status,
            Reply::Integer(1),
            Reply::Bulk(Some(Bytes::from_static(b"a\r\n"))),
            Reply::Bulk(None),
            Reply::Error("ERR no".to_owned()),
        ];
        // However they are cut.
        for cut in 0..whole.len() {
            let mut got = Vec::new();
            let mut inbox = BytesMut::from(&whole[..cut]);
            for more in [&b""[..], &whole[cut..]] {
                inbox.extend_from_slice(more);
                while let Some(reply) = reply(&mut inbox).unwrap() {
                    got.push(reply);
                }
            }
            assert_eq!(got, want, "{cut}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            &b"\r\n"[..],
            b"\n",
            b"?\r\n",
            b":\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$1x\r\n",
            b"$1\r\nabc",
            b"$99999999999\r\n",
        ] {
            assert!(reply(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
        assert!(reply(&mut BytesMut::from(&vec![b'+'; 70_000][..])).is_err());
    }
}
