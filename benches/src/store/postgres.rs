//! PostgreSQL, over version 3 of its protocol, each client with a connection and two prepared statements.
//!
//! A write is one statement in a transaction of its own. Whether it waits for a standby is the server's setting.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::wire::{LARGEST, Wire, limited};
use super::{Connection, Fresh, Store};

/// Who is asked for, and in which database; the server trusts whoever asks.
const START: &[u8] = b"user\0postgres\0database\0postgres\0\0";
const VERSION: u32 = 3 << 16;
const PUT: &str = "INSERT INTO sessions (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body";
const GET: &str = "SELECT body FROM sessions WHERE id = $1";
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS sessions (id int4 PRIMARY KEY, body bytea NOT NULL)";

/// A primary, and all nodes.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// The primary is the first one.
    nodes: Rc<[SocketAddr]>,
    limit: Duration,
}

impl Postgres {
    /// For these nodes, the primary first. A request that takes longer than `limit` has failed.
    #[must_use]
    pub fn new(nodes: &[SocketAddr], limit: Duration) -> Self {
        Self {
            nodes: nodes.into(),
            limit,
        }
    }

    /// Runs a statement on the primary; gives the first column of its first row as text, or nothing.
    ///
    /// # Errors
    /// In words.
    pub async fn query(&self, statement: &str) -> Result<String, String> {
        let mut out = BytesMut::new();
        message(&mut out, b'Q', |out| text(out, statement));
        let asked = limited(self.limit, async {
            let mut wire = self.open(0).await?;
            wire.send(&out).await?;
            answer(&mut wire).await
        });
        let row = asked.await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&row).into_owned())
    }

    /// Makes the table.
    ///
    /// # Errors
    /// In words.
    pub async fn prepare(&self) -> Result<(), String> {
        self.query(TABLE).await.map(drop)
    }

    async fn open(&self, node: usize) -> Result<Wire, String> {
        let address = *self.nodes.get(node).ok_or("there are no nodes")?;
        let mut wire = Wire::dial(address).await?;
        let mut out = BytesMut::new();
        frame(&mut out, |out| {
            out.put_u32(VERSION);
            out.put_slice(START);
        });
        wire.send(&out).await?;
        answer(&mut wire).await?;
        Ok(wire)
    }
}

impl Store for Postgres {
    type Connection = PostgresConnection;

    async fn connect(&self, client: usize) -> Result<PostgresConnection, String> {
        Ok(PostgresConnection {
            store: self.clone(),
            near: client % self.nodes.len().max(1),
            wires: [None, None],
        })
    }
}

/// A client of [`Postgres`]. It connects when it first asks.
#[derive(Debug)]
pub struct PostgresConnection {
    store: Postgres,
    near: usize,
    /// To the primary, and to the node of local reads.
    wires: [Option<Wire>; 2],
}

impl PostgresConnection {
    async fn ask(&mut self, fresh: Fresh, out: &[u8]) -> Result<Option<Bytes>, String> {
        let (place, node) = match fresh {
            Fresh::Linearizable => (0, 0),
            Fresh::Local => (1, self.near),
        };
        let (store, wire) = (&self.store, &mut self.wires[place]);
        let asked = limited(store.limit, async {
            let wire = match wire {
                Some(wire) => wire,
                none => {
                    let mut wire = store.open(node).await?;
                    wire.send(&statements()).await?;
                    answer(&mut wire).await?;
                    none.insert(wire)
                }
            };
            wire.send(out).await?;
            answer(wire).await
        });
        let asked = asked.await;
        if asked.is_err() {
            self.wires[place] = None;
        }
        asked
    }
}

impl Connection for PostgresConnection {
    async fn fill(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        self.put(key, body).await
    }

    async fn put(&mut self, key: usize, body: Bytes) -> Result<(), String> {
        let mut out = BytesMut::with_capacity(body.len() + 128);
        bind(&mut out, "put", &[&id(key)?, &body]);
        self.ask(Fresh::Linearizable, &out).await.map(drop)
    }

    async fn get(&mut self, key: usize, fresh: Fresh) -> Result<(), String> {
        let mut out = BytesMut::with_capacity(128);
        bind(&mut out, "get", &[&id(key)?]);
        match self.ask(fresh, &out).await? {
            Some(body) if !body.is_empty() => Ok(()),
            _ => Err("no value".to_owned()),
        }
    }
}

fn id(key: usize) -> Result<[u8; 4], String> {
    let key = i32::try_from(key).map_err(|error| error.to_string())?;
    Ok(key.to_be_bytes())
}

/// A length, itself included, and what it is the length of.
fn frame(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    frame(out, body);
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn statements() -> BytesMut {
    let mut out = BytesMut::new();
    for (name, statement) in [("put", PUT), ("get", GET)] {
        message(&mut out, b'P', |out| {
            text(out, name);
            text(out, statement);
            out.put_u16(0);
        });
    }
    message(&mut out, b'S', |_nothing| {});
    out
}

/// Bind, execute and sync in one packet; values and results are binary.
fn bind(out: &mut BytesMut, statement: &str, values: &[&[u8]]) {
    message(out, b'B', |out| {
        text(out, "");
        text(out, statement);
        out.put_slice(&[0, 1, 0, 1]);
        out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        for value in values {
            out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
            out.put_slice(value);
        }
        out.put_slice(&[0, 1, 0, 1]);
    });
    message(out, b'E', |out| {
        text(out, "");
        out.put_u32(0);
    });
    message(out, b'S', |_nothing| {});
}

/// Everything until the server is ready for the next thing; the first column of the first row.
async fn answer(wire: &mut Wire) -> Result<Option<Bytes>, String> {
    let (mut row, mut problem) = (None, None);
    loop {
        let (kind, body) = wire.next(received).await?;
        match kind {
            b'D' if row.is_none() => row = column(&body)?,
            b'E' => {
                // Before it is ready for the first time, it says no and closes.
                if problem.is_some() || body.windows(6).any(|part| part == b"FATAL\0") {
                    return Err(said(&body));
                }
                problem = Some(said(&body));
            }
            b'R' if body[..] != [0; 4] => return Err("it asks who we are".to_owned()),
            b'Z' => return problem.map_or(Ok(row), Err),
            _ => {}
        }
    }
}

fn received(inbox: &mut BytesMut) -> Result<Option<(u8, Bytes)>, String> {
    let Some((head, rest)) = inbox.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let [kind, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..=LARGEST).contains(&length) {
        return Err(format!("a message of {length} bytes"));
    }
    if rest.len() < length - 4 {
        return Ok(None);
    }
    let mut message = inbox.split_to(length + 1);
    Ok(Some((kind, message.split_off(5).freeze())))
}

fn column(row: &Bytes) -> Result<Option<Bytes>, String> {
    let (count, rest) = row.split_first_chunk::<2>().ok_or("a row cut short")?;
    if *count == [0, 0] {
        return Ok(None);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("a row cut short")?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        return Ok(None);
    };
    let value = rest.get(..length).ok_or("a column longer than its row")?;
    Ok(Some(row.slice_ref(value)))
}

/// The words of an error, which has a letter before each of its texts.
fn said(body: &[u8]) -> String {
    let mut parts = body.split(|byte| *byte == 0);
    let words = parts.find_map(|part| part.strip_prefix(b"M"));
    String::from_utf8_lossy(words.unwrap_or(b"an error without words")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_these_bytes() {
        let mut out = BytesMut::new();
        bind(&mut out, "put", &[&id(7).unwrap(), b"ab"]);
        let golden = [
            &b"B\0\0\0\x21\0put\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x02ab\0\x01\0\x01"[..],
            b"E\0\0\0\x09\0\0\0\0\0",
            b"S\0\0\0\x04",
        ];
        assert_eq!(out, golden.concat());
    }

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        let whole = b"D\0\0\0\x0c\0\x01\0\0\0\x02ab";
        for cut in 0..whole.len() - 1 {
            let mut inbox = BytesMut::from(&whole[..cut]);
            assert_eq!(received(&mut inbox), Ok(None), "{cut}");
        }
        let (kind, body) = received(&mut BytesMut::from(&whole[..])).unwrap().unwrap();
        assert_eq!(kind, b'D');
        assert_eq!(column(&body).unwrap().unwrap(), &b"ab"[..]);
        let null = Bytes::from_static(b"\0\x01\xff\xff\xff\xff");
        assert_eq!(column(&null), Ok(None));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [&b"Z\0\0\0\x03"[..], b"Z\xff\xff\xff\xff", b"D\x04\0\0\x01"] {
            assert!(received(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
        for bad in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01\0\0\0",
            b"\0\x01\0\0\0\x09a",
        ] {
            assert!(column(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(said(b"SERROR\0Mno such table\0\0"), "no such table");
        assert_eq!(said(b""), "an error without words");
    }
}
