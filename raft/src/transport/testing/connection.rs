//! Connections of the test network: two ends, and tasks that carry what travels between them.
//!
//! Each end has its own knowledge of the connection's end: a close is heard by the other side when the network lets it,
//! and by nobody while it is cut.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use model::id::NodeId;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DEPTH, Net, Way};
use crate::transport::api::CallError;
use crate::transport::connection::{Path, peer_closed};
use crate::transport::stream::{ByteStream, Piece};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// What one side knows of the end.
#[derive(Default)]
struct Ending {
    error: Mutex<Option<CallError>>,
    token: CancellationToken,
}

/// What the two sides of a connection share.
pub(super) struct Both {
    net: Net,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    endings: [Ending; 2],
}

impl Both {
    const fn ending(&self, side: Side) -> &Ending {
        let [dialer, acceptor] = &self.endings;
        match side {
            Side::Dialer => dialer,
            Side::Acceptor => acceptor,
        }
    }

    pub(super) fn side_of(&self, node: NodeId) -> Side {
        if self.from == node {
            Side::Dialer
        } else {
            Side::Acceptor
        }
    }

    const fn way_from(&self, side: Side) -> Way {
        match side {
            Side::Dialer => (self.from, self.to),
            Side::Acceptor => (self.to, self.from),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.endings
            .iter()
            .all(|ending| ending.token.is_cancelled())
    }

    pub(super) async fn over(&self) {
        for ending in &self.endings {
            ending.token.cancelled().await;
        }
    }

    pub(super) fn end(&self, side: Side, reason: &'static str) {
        self.end_with(side, CallError::Unreachable(reason));
    }

    fn end_with(&self, side: Side, error: CallError) {
        let ending = self.ending(side);
        ending.error.lock().get_or_insert(error);
        ending.token.cancel();
    }

    /// One side closes; the other hears it when the network lets it.
    pub(super) fn close(self: &Arc<Self>, side: Side, code: VarInt, reason: &[u8]) {
        if self.ending(side).token.is_cancelled() {
            return;
        }
        self.end(side, "this node closed the connection");
        let (both, reason) = (Arc::clone(self), Bytes::copy_from_slice(reason));
        self.net.0.tasks.spawn(async move {
            let way = both.way_from(side);
            let told = async {
                tokio::time::sleep(both.net.delay(way)).await;
                both.net.when(|net| net.is_open(way)).await;
            };
            let error = match tokio::time::timeout(both.net.0.idle, told).await {
                Ok(()) => peer_closed(code, &reason),
                Err(_elapsed) => CallError::Unreachable("the peer is silent"),
            };
            both.end_with(side.other(), error);
        });
    }

    /// Runs until either side's connection has ended.
    async fn alive(&self, work: impl Future<Output = ()>) {
        let [dialer, acceptor] = &self.endings;
        tokio::select! {
            biased;
            () = dialer.token.cancelled() => {}
            () = acceptor.token.cancelled() => {}
            () = work => {}
        }
    }
}

/// Carries the pieces of one direction of a stream, in order and late.
async fn carry(
    both: Arc<Both>,
    side: Side,
    mut from: mpsc::Receiver<Piece>,
    to: mpsc::Sender<Piece>,
) {
    let way = both.way_from(side);
    let work = async {
        let mut last = Instant::now();
        while let Some((written, bytes)) = from.recv().await {
            last = last.max(written + both.net.delay(way));
            if last > Instant::now() {
                tokio::time::sleep_until(last).await;
            }
            both.net.when(|net| net.is_open(way)).await;
            both.net.arrived(way, bytes.as_ref().map_or(0, Bytes::len));
            if to.send((written, bytes)).await.is_err() {
                return;
            }
        }
    };
    both.alive(work).await;
}

/// One side of a connection.
#[derive(Clone)]
pub(in crate::transport) struct MemoryConnection {
    pub(super) both: Arc<Both>,
    side: Side,
    opened: mpsc::Sender<ByteStream>,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<ByteStream>>>,
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnection")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl MemoryConnection {
    pub(super) fn pair(net: &Net, from: NodeId, to: NodeId) -> (Self, Self) {
        let both = Arc::new(Both {
            net: net.clone(),
            from,
            to,
            endings: Default::default(),
        });
        let mut state = net.0.state.lock();
        let number = state.next;
        state.next += 1;
        state.connections.retain(|_, both| !both.is_over());
        state.connections.insert(number, Arc::clone(&both));
        drop(state);
        net.0.tasks.spawn(net.clone().watch(Arc::clone(&both)));
        let (there, back) = (mpsc::channel(DEPTH), mpsc::channel(DEPTH));
        let side = |side, opened, incoming| Self {
            both: Arc::clone(&both),
            side,
            opened,
            incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
        };
        (
            side(Side::Dialer, there.0, back.1),
            side(Side::Acceptor, back.0, there.1),
        )
    }

    pub(in crate::transport) fn end(&self) -> Option<CallError> {
        self.both.ending(self.side).error.lock().clone()
    }

    pub(in crate::transport) async fn closed(&self) -> CallError {
        self.both.ending(self.side).token.cancelled().await;
        self.end().unwrap_or(CallError::Closed)
    }

    pub(in crate::transport) fn close(&self, code: VarInt, reason: &[u8]) {
        self.both.close(self.side, code, reason);
    }

    pub(in crate::transport) async fn open(&self) -> Result<ByteStream, CallError> {
        if let Some(error) = self.end() {
            return Err(error);
        }
        let mut ends = Vec::new();
        for side in [self.side, self.side.other()] {
            let (writer, written) = mpsc::channel(DEPTH);
            let (arrived, reader) = mpsc::channel(DEPTH);
            self.both
                .net
                .0
                .tasks
                .spawn(carry(Arc::clone(&self.both), side, written, arrived));
            ends.push((writer, reader));
        }
        let [there, back] = <[_; 2]>::try_from(ends).expect("two directions were made");
        let theirs = ByteStream::memory(back.0, there.1);
        match self.opened.send(theirs).await {
            Ok(()) => Ok(ByteStream::memory(there.0, back.1)),
            Err(_gone) => Err(self
                .end()
                .unwrap_or(CallError::Unreachable("the peer is gone"))),
        }
    }

    pub(in crate::transport) async fn accept(&self) -> Result<ByteStream, CallError> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            error = self.closed() => Err(error),
            stream = incoming.recv() => {
                stream.ok_or_else(|| self.end().unwrap_or(CallError::Unreachable("the peer is gone")))
            }
        }
    }

    pub(in crate::transport) fn path(&self) -> Path {
        let net = &self.both.net;
        let rtt = net.delay(self.both.way_from(self.side))
            + net.delay(self.both.way_from(self.side.other()));
        Path {
            rtt,
            lost_packets: 0,
            mtu: u16::MAX,
        }
    }
}
