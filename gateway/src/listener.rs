//! Accepting connections and speaking HTTP/1.1 and HTTP/2 on them, plain or with TLS.
//!
//! Guarantees: connections, streams of one, the head of a request and silence are bounded; one connection too many is
//! accepted and closed at once, so that the kernel's queue does not fill with the dead; a failing `accept` is tried
//! again and ends nothing. Draining finishes what was begun, tells clients to go elsewhere, and is itself bounded.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::LimitsConfig;
use crate::idle::Idle;
use crate::server::Server;
use crate::tls::Certificates;

/// After a failing `accept` (usually: no file descriptors) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a TLS handshake may take, and the first byte after it.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Largest buffer for the head of an HTTP/1.1 request, in bytes. Idle connections have less.
const HEAD_BUFFER: usize = 64 * 1024;
/// HTTP/2 windows, in bytes: what a peer may send before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one HTTP/2 stream that wait to be sent.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a peer opened and reset before we looked at them (rapid reset).
const PENDING_RESETS: usize = 32;
/// Streams that we reset for a peer's faults, before the connection ends.
const LOCAL_RESETS: usize = 256;

/// Listens for PSP clients.
pub(crate) struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Server,
    places: Arc<Semaphore>,
}

impl Listener {
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        server: Server,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let most = server.app.limits.connections.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            socket,
            tls,
            server,
            places: Arc::new(Semaphore::new(most)),
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until draining begins. Connections live on in the app's tasks.
    pub(crate) async fn run(self) {
        let app = Arc::clone(&self.server.app);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = app.draining.cancelled() => return,
            };
            let socket = match accepted {
                Ok((socket, _peer)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                app.metrics.connections_refused.increment(1);
                drop(socket);
                continue;
            };
            let (server, tls) = (self.server.clone(), self.tls.clone());
            app.tasks.spawn(async move {
                server.app.metrics.connections.increment(1);
                let app = Arc::clone(&server.app);
                tokio::select! {
                    () = connection(socket, tls, server) => {}
                    () = app.cut.cancelled() => {}
                }
                app.metrics.connections.decrement(1);
                drop(place);
            });
        }
    }
}

async fn connection(socket: TcpStream, tls: Option<TlsAcceptor>, server: Server) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a socket refused TCP_NODELAY");
    }
    let Some(tls) = tls else {
        return serve(socket, server).await;
    };
    match timeout(FIRST_BYTE, tls.accept(socket)).await {
        Ok(Ok(stream)) => serve(stream, server).await,
        Ok(Err(error)) => {
            server.app.metrics.handshakes_failed.increment(1);
            tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_late) => server.app.metrics.handshakes_failed.increment(1),
    }
}

async fn serve<T>(stream: T, server: Server)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = Arc::clone(&server.app);
    let builder = builder(&app.limits);
    let io = TokioIo::new(Idle::new(stream, FIRST_BYTE, app.limits.idle_timeout));
    let service = service_fn(move |request| server.clone().answer(request));
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

fn builder(limits: &LimitsConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BUFFER)
        .half_close(true);
    let headers = u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(headers)
        .enable_connect_protocol();
    builder
}

/// Looks for new certificates until draining begins.
pub(crate) async fn reload(certificates: Arc<Certificates>, server: Server) {
    loop {
        tokio::select! {
            () = sleep(certificates.reload_every()) => {}
            () = server.app.draining.cancelled() => return,
        }
        let fresh = Arc::clone(&certificates);
        match tokio::task::spawn_blocking(move || fresh.reload()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!("certificate reloaded"),
            Ok(Err(error)) => tracing::warn!(%error, "certificate not reloaded; the old one stays"),
            Err(error) => tracing::warn!(%error, "certificate not looked at"),
        }
    }
}
