//! The UDP socket under the endpoint.
//!
//! Binds with large buffers, and tells quinn what our largest datagrams allow: at most [`MAX_SEGMENTS`] in one
//! send, and one received buffer of 64 KiB for each message, which holds everything that the kernel coalesces.
//! Without the latter quinn would set aside 64 such buffers for each, 128 MiB in all.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::quic::MAX_SEGMENTS;

/// What we ask of the kernel for each direction, in bytes; it may give less (`net.core.rmem_max`).
const BUFFER_BYTES: usize = 4 << 20;

/// Binds, and wraps the socket for the endpoint. `gone` is cancelled when the socket is closed.
pub(super) fn bind(
    address: SocketAddr,
    gone: CancellationToken,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = UdpSocket::bind(address)?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    for outcome in [
        state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES),
        state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES),
    ] {
        if let Err(error) = outcome {
            tracing::warn!(%error, "udp buffer size was not accepted");
        }
    }
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(Arc::new(Socket { inner, _gone: gone.drop_guard() }))
}

struct Socket {
    /// Dropped first: the port is free when `_gone` speaks.
    inner: Arc<dyn AsyncUdpSocket>,
    _gone: DropGuard,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(MAX_SEGMENTS)
    }

    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
