//! How QUIC is set up: windows, datagram sizes, timers, for each use and each kind of path.
//!
//! What is chosen, and why:
//! - **Datagrams.** Loopback carries 65 KB in one datagram, which costs a fraction of the CPU of 45 small ones, but
//!   then several do not fit into one segmented send (the kernel refuses, and quinn takes that for loss), so
//!   segmentation is off there. Elsewhere the path's MTU is found up to jumbo frames, and [`MAX_SEGMENTS`] of the
//!   largest fit into one send.
//! - **Windows.** A stream may have [`STREAM_WINDOW`] bytes under way, and a main connection twice that and a
//!   rest, so that a full data lane never takes the room of the control lane. Bulk connections have a window of
//!   their own, small enough that what they have in flight delays a heartbeat by little.
//! - **Acknowledgements.** An append is answered within milliseconds, and the answer's packet acknowledges the append's: packets
//!   that only acknowledge are asked for (draft-ietf-quic-ack-frequency) every [`UNACKNOWLEDGED`], not every second one. A gap is still
//!   told at once.
//! - **Timers.** The first round-trip guess is a region's, so that an early loss costs milliseconds. Keep-alives
//!   run on the main connection only: an idle region sends a few small packets a second.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// The largest UDP payload that we take: what IPv4 and IPv6 allow.
pub(super) const MAX_UDP_PAYLOAD: u16 = 65_527;
/// The largest datagram on loopback, in bytes: below what IPv4 carries.
const LOOPBACK_MTU: u16 = 65_000;
/// The largest datagram elsewhere, in bytes: a jumbo frame.
const NETWORK_MTU: u16 = 8_900;
/// How many of the largest network datagrams one segmented send holds.
pub(super) const MAX_SEGMENTS: usize = 7;
const _: () = assert!(NETWORK_MTU as usize * MAX_SEGMENTS <= 65_000);

/// Bytes under way on one stream.
const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes under way on a main connection: control and data never wait for each other's room.
const MAIN_WINDOW: u64 = 2 * STREAM_WINDOW as u64 + (256 << 10);
/// Bytes under way on a bulk or snapshot connection.
pub(super) const BULK_WINDOW: u64 = 2 << 20;
/// Bytes that an accepted connection's peer may have under way, over all streams.
const RECEIVE_WINDOW: u32 = 16 << 20;
/// Streams that a peer may have open on one connection.
pub(super) const MAX_STREAMS: u32 = 64;
/// How long a bulk or snapshot connection without use stays. Nothing keeps it alive.
const BULK_IDLE: Duration = Duration::from_secs(30);
/// The first guess of the round-trip time: a region's.
const INITIAL_RTT: Duration = Duration::from_millis(5);

/// Packets that may wait for their acknowledgement.
const UNACKNOWLEDGED: u32 = 10;
/// How long they may wait: as QUIC has it, less what a timer is late.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(20);

/// What a connection is for. The dialer says it in its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// The lanes `Control` and `Data`.
    Main = 1,
    /// Large calls, a stream each.
    Bulk = 2,
    /// Raw byte streams.
    Streams = 3,
}

impl Purpose {
    pub(super) const fn number(self) -> u16 {
        self as u16
    }

    pub(super) const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Main),
            2 => Some(Self::Bulk),
            3 => Some(Self::Streams),
            _ => None,
        }
    }
}

/// Timers of main connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    pub(super) keep_alive: Duration,
    pub(super) idle: Duration,
}

#[derive(Debug)]
struct PathProfiles {
    main: Arc<TransportConfig>,
    bulk: Arc<TransportConfig>,
    accepted: Arc<TransportConfig>,
}

/// All transport configurations of an endpoint, made once.
#[derive(Debug)]
pub(super) struct Profiles {
    loopback: PathProfiles,
    network: PathProfiles,
}

/// Whether the other end is on this machine.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

impl Profiles {
    pub(super) fn new(timers: Timers) -> Self {
        let path = |loopback| PathProfiles {
            main: Arc::new(main(loopback, timers)),
            bulk: Arc::new(bulk(loopback)),
            accepted: Arc::new(accepted(loopback)),
        };
        Self {
            loopback: path(true),
            network: path(false),
        }
    }

    const fn path(&self, loopback: bool) -> &PathProfiles {
        if loopback {
            &self.loopback
        } else {
            &self.network
        }
    }

    pub(super) fn dial(&self, purpose: Purpose, address: SocketAddr) -> Arc<TransportConfig> {
        let path = self.path(is_loopback(address));
        match purpose {
            Purpose::Main => Arc::clone(&path.main),
            Purpose::Bulk | Purpose::Streams => Arc::clone(&path.bulk),
        }
    }

    pub(super) fn accept(&self, loopback: bool) -> Arc<TransportConfig> {
        Arc::clone(&self.path(loopback).accepted)
    }
}

fn idle(time: Duration) -> Option<IdleTimeout> {
    // A time too long for the protocol is as good as none.
    IdleTimeout::try_from(time).ok()
}

/// What all connections share.
fn base(loopback: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    let mut congestion = CubicConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED))
        .max_ack_delay(Some(ACKNOWLEDGED_AFTER));
    if loopback {
        discovery.upper_bound(LOOPBACK_MTU).minimum_change(2048);
        congestion.initial_window(1 << 20);
        config.enable_segmentation_offload(false);
    } else {
        discovery.upper_bound(NETWORK_MTU).minimum_change(64);
        congestion.initial_window(128 << 10);
    }
    config
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(congestion))
        .ack_frequency_config(Some(acks))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

fn main(loopback: bool, timers: Timers) -> TransportConfig {
    let mut config = base(loopback);
    config
        .send_window(MAIN_WINDOW)
        .keep_alive_interval(Some(timers.keep_alive))
        .max_idle_timeout(idle(timers.idle));
    config
}

fn bulk(loopback: bool) -> TransportConfig {
    let mut config = base(loopback);
    config
        .send_window(BULK_WINDOW)
        .max_idle_timeout(idle(BULK_IDLE));
    config
}

/// The acceptor learns what a connection is for only from its first frame; the shorter of both idle times counts.
fn accepted(loopback: bool) -> TransportConfig {
    let mut config = base(loopback);
    config
        .send_window(MAIN_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_idle_timeout(idle(BULK_IDLE));
    config
}

/// The configuration of a joiner's connection, before it is a node.
pub(super) fn joining() -> TransportConfig {
    let mut config = base(false);
    config.max_idle_timeout(idle(Duration::from_secs(10)));
    config
}
