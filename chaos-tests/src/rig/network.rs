//! The rig's network: a namespace with a TUN device for each node, one device for the clients, and the
//! [`Switch`] between them.
//!
//! Node `i` (from 0) has the address `10.77.X.(i+1)`, the clients, in the namespace of the test, have `10.77.X.254`;
//! X is the [`Claim`]'s. The device is made here and moved into its namespace, the switch keeps its other end. All
//! names begin with the claim's, and go when this is dropped.

use std::net::Ipv4Addr;

use tappers::{Interface, Tun};

use super::claim::Claim;
use super::command::run;
use super::switch::{MTU, Port, Switch};

/// The last byte of the clients' address.
const CLIENTS: u8 = 254;
/// Packets that wait in a device for the switch. The kernel drops what comes on top, so: many.
const QUEUE: u32 = 10_000;

/// The network of one rig.
#[derive(Debug)]
pub struct Network {
    switch: Switch,
    namespaces: Vec<String>,
    client: String,
    x: u8,
}

impl Network {
    /// Makes namespaces, devices and switch for so many nodes.
    ///
    /// # Errors
    /// With a sentence, when a part cannot be made.
    pub fn start(claim: &Claim, nodes: usize, seed: u64) -> Result<Self, String> {
        let x = claim.number();
        let mut ports = Vec::new();
        let mut namespaces = Vec::new();
        for node in 0..nodes {
            let name = claim.node_name(node);
            run("ip", &["netns", "add", &name])?;
            namespaces.push(name.clone());
            let address = last_byte(node);
            let device = device(&name)?;
            run("ip", &["link", "set", &name, "netns", &name])?;
            let within = |arguments: &[&str]| run("ip", &[&["-n", &name], arguments].concat());
            within(&["link", "set", "lo", "up"])?;
            configure(within, &name, x, address)?;
            ports.push(Port { device, address });
        }
        let name = claim.client_name();
        let device = device(&name)?;
        configure(|arguments| run("ip", arguments), &name, x, CLIENTS)?;
        ports.push(Port {
            device,
            address: CLIENTS,
        });
        let switch = Switch::start(ports, seed).map_err(|error| format!("no switch: {error}"))?;
        Ok(Self {
            switch,
            namespaces,
            client: name,
            x,
        })
    }

    /// The switch: nodes by their position, then the clients.
    #[must_use]
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The port of the clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.namespaces.len()
    }

    /// The namespace of a node.
    #[must_use]
    pub fn namespace(&self, node: usize) -> &str {
        &self.namespaces[node]
    }

    /// The address of a node.
    #[must_use]
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.x, last_byte(node))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // What stays is removed by the next owner of the claim.
            drop(run("ip", &["netns", "del", name]));
        }
        // It would go with its last descriptor, but the library closes that in builds with debug assertions only.
        drop(run("ip", &["link", "del", &self.client]));
    }
}

fn last_byte(node: usize) -> u8 {
    u8::try_from(node + 1).expect("a rig has few nodes")
}

fn device(name: &str) -> Result<Tun, String> {
    Interface::new(name)
        .and_then(Tun::new_named)
        .map_err(|error| format!("cannot make the network device {name}: {error}"))
}

fn configure(
    ip: impl Fn(&[&str]) -> Result<String, String>,
    device: &str,
    x: u8,
    address: u8,
) -> Result<(), String> {
    let address = format!("10.77.{x}.{address}/24");
    ip(&["addr", "add", &address, "dev", device])?;
    let (mtu, queue) = (MTU.to_string(), QUEUE.to_string());
    let size = ["mtu", &mtu, "txqueuelen", &queue];
    ip(&[&["link", "set", device], size.as_slice(), &["up"]].concat())?;
    Ok(())
}
