//! A switch in user space: one TUN device for each port, and between each two ports a [`Link`] for each direction.
//!
//! One thread reads every device, asks the link of source and destination, and writes what is due to the
//! destination's device. Packets go by the last byte of their IPv4 destination; everything else is dropped. The
//! switch looks into no packet beyond its addresses, and repairs none. It ends when it is dropped, and its devices with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tappers::Tun;
use tokio::time::Instant;

use super::link::{Counts, Link, LinkSpec};

/// Largest packet, in bytes: a jumbo frame, for which the nodes' transport looks.
pub const MTU: u16 = 9000;
/// Packets under way between all ports at most; what comes on top is dropped.
const MAX_UNDER_WAY: usize = 50_000;
/// Packets read from one device before the others have their turn.
const TURN: usize = 32;
/// How long the thread sleeps at most: it looks then whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// A port: a device, and the last byte of the address behind it.
pub struct Port {
    /// The device, wherever its other end is.
    pub device: Tun,
    /// The last byte of its IPv4 address.
    pub address: u8,
}

/// Something that was added to the switch's links, to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer(u64);

struct Shared {
    state: Mutex<State>,
    ports: usize,
    stop: AtomicBool,
}

struct State {
    /// Row by row: from port, to port.
    links: Vec<Link>,
    layers: Vec<Added>,
    newest: u64,
}

/// What a layer does, and to which directions.
struct Added {
    layer: Layer,
    links: Vec<(usize, usize)>,
    spec: LinkSpec,
}

impl State {
    /// Each link does what all its layers ask for.
    fn settle(&mut self, ports: usize) {
        let mut specs = vec![LinkSpec::default(); self.links.len()];
        for added in &self.layers {
            for (from, to) in &added.links {
                let both = specs[from * ports + to].and(&added.spec);
                specs[from * ports + to] = both;
            }
        }
        for (link, spec) in self.links.iter_mut().zip(specs) {
            link.set(spec);
        }
    }
}

/// A running switch. Ports are named by their position.
pub struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a switch with {} ports", self.shared.ports)
    }
}

impl Switch {
    /// Starts a switch of perfect links, whose chance comes from `seed`.
    ///
    /// # Errors
    /// When a device or the thread cannot be set up.
    pub fn start(mut ports: Vec<Port>, seed: u64) -> io::Result<Self> {
        let count = ports.len();
        for port in &mut ports {
            port.device.set_nonblocking(true)?;
        }
        let links = (0..count * count)
            .map(|link| Link::new(seed ^ (u64::try_from(link).unwrap_or(0) << 40)))
            .collect();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                links,
                layers: Vec::new(),
                newest: 0,
            }),
            ports: count,
            stop: AtomicBool::new(false),
        });
        let runner = Runner {
            shared: Arc::clone(&shared),
            ports,
            flying: BinaryHeap::new(),
            begun: Instant::now(),
            sent: 0,
        };
        let thread = std::thread::Builder::new()
            .name("switch".into())
            .spawn(move || runner.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many ports it has.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.shared.ports
    }

    /// Does this to the packets of these directions, on top of what is done to them already.
    #[must_use]
    pub fn add(&self, links: &[(usize, usize)], spec: &LinkSpec) -> Layer {
        let mut state = self.shared.state.lock();
        state.newest += 1;
        let layer = Layer(state.newest);
        state.layers.push(Added {
            layer,
            links: links.to_vec(),
            spec: spec.clone(),
        });
        state.settle(self.shared.ports);
        layer
    }

    /// Takes back what was added.
    pub fn remove(&self, layer: Layer) {
        let mut state = self.shared.state.lock();
        state.layers.retain(|added| added.layer != layer);
        state.settle(self.shared.ports);
    }

    /// What happened to the direction's packets so far.
    #[must_use]
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.shared.state.lock().links[from * self.shared.ports + to].counts()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A packet that is to arrive later. Ordered by time, then by when it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Duration,
    sequence: u64,
    to: usize,
    packet: Vec<u8>,
}

struct Runner {
    shared: Arc<Shared>,
    ports: Vec<Port>,
    flying: BinaryHeap<Reverse<Flying>>,
    begun: Instant,
    sent: u64,
}

impl Runner {
    fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while !self.shared.stop.load(Ordering::Acquire) {
            self.deliver();
            for from in self.wait() {
                for _ in 0..TURN {
                    // Nothing there, or the device's other end is down: the next wait tells.
                    let Ok(length) = self.ports[from].device.recv(&mut buffer) else {
                        break;
                    };
                    self.route(from, &mut buffer[..length]);
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ports with something to read, after waiting for the first or for the next packet that is due.
    fn wait(&self) -> Vec<usize> {
        let due = self.flying.peek().map(|Reverse(next)| next.at);
        let rest = due.map_or(NAP, |at| at.saturating_sub(self.now()).min(NAP));
        let mut fds: Vec<PollFd<'_>> = self
            .ports
            .iter()
            .map(|port| PollFd::new(&port.device, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(rest).ok();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::IN);
        (0..fds.len()).filter(|port| ready(&fds[*port])).collect()
    }

    fn deliver(&mut self) {
        while let Some(Reverse(next)) = self.flying.peek() {
            if next.at > self.now() {
                break;
            }
            if let Some(Reverse(next)) = self.flying.pop() {
                self.write(next.to, &next.packet);
            }
        }
    }

    fn write(&self, to: usize, packet: &[u8]) {
        // A device whose other end is gone or full loses the packet, as a wire does.
        drop(self.ports[to].device.send(packet));
    }

    fn route(&mut self, from: usize, packet: &mut [u8]) {
        let version_4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
        let Some(address) = packet.get(19).copied().filter(|_| version_4) else {
            return;
        };
        let Some(to) = self.ports.iter().position(|port| port.address == address) else {
            return;
        };
        let now = self.now();
        let copies = {
            let mut state = self.shared.state.lock();
            state.links[from * self.shared.ports + to].offer(now, packet.len())
        };
        for copy in copies.into_iter().flatten() {
            if copy.at <= now && copy.flip.is_none() {
                self.write(to, packet);
                continue;
            }
            if self.flying.len() >= MAX_UNDER_WAY {
                continue;
            }
            let mut packet = packet.to_vec();
            if let Some(bit) = copy.flip {
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            self.sent += 1;
            self.flying.push(Reverse(Flying {
                at: copy.at,
                sequence: self.sent,
                to,
                packet,
            }));
        }
    }
}
