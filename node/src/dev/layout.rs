//! What is where in the folder of `pspd dev`, and on which port.
//!
//! ```text
//! DIR/cluster.json         the numbers that the folder was made with
//! DIR/lock                 held by the running supervisor
//! DIR/dev.json             for scripts; there while the cluster runs
//! DIR/control.sock         for `pspd dev node ...`
//! DIR/secrets/             ca.crt, ca.key, master-key, cluster-secret, api-key
//! DIR/node-i/pspd.toml     made anew at each start
//! DIR/node-i/identity/     the node's certificate and key
//! DIR/node-i/data/         its disk
//! DIR/node-i/join-token    there when the node joins a running cluster, after a wipe
//! DIR/node-i/pspd.log      its log; the one before in pspd.log.1 when it grew past 16 MiB
//! ```

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, OrProblem as _, Problem};
use crate::secrets::write_private;

/// Distance of a node's admin port from its HTTP port.
const ADMIN: u16 = 100;
/// Distance of a node's peer port from its HTTP port.
const PEER: u16 = 200;

/// The folder's map. Whoever has one holds the folder's lock.
#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
    plan: Plan,
    _lock: File,
}

/// The numbers that a folder was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    nodes: u16,
    port: u16,
}

impl Layout {
    /// Takes the folder for this process; makes it if there is none.
    ///
    /// # Errors
    /// When another supervisor has it, it was made with other numbers, or a port is taken.
    pub(super) fn claim(folder: &Path, nodes: u16, port: u16) -> Result<Self, Problem> {
        let name = folder.display();
        fs::create_dir_all(folder).or_problem(Exit::Config, || format!("cannot make {name}"))?;
        let folder =
            fs::canonicalize(folder).or_problem(Exit::Config, || format!("cannot find {name}"))?;
        let lock = File::create(folder.join("lock"))
            .or_problem(Exit::Config, || format!("cannot write to {name}"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            Problem::new(Exit::Config, format!("another `pspd dev` runs in {name}"))
                .because(errno)
                .hint("stop it with SIGTERM, or choose another folder with --data")
        })?;
        let layout = Self {
            folder,
            plan: Plan { nodes, port },
            _lock: lock,
        };
        layout.settle()?;
        layout.remove_traces()?;
        layout.probe()?;
        Ok(layout)
    }

    /// The numbers of a folder never change: its nodes know each other by these addresses.
    fn settle(&self) -> Result<(), Problem> {
        let path = self.folder.join("cluster.json");
        let broken = || format!("{} is not what pspd dev wrote", path.display());
        match fs::read(&path) {
            Ok(bytes) => {
                let made: Plan = serde_json::from_slice(&bytes).or_problem(Exit::Config, broken)?;
                if made == self.plan {
                    return Ok(());
                }
                let Plan { nodes, port } = made;
                let text = format!(
                    "{} was made with --nodes {nodes} --port {port}, not --nodes {} --port {}",
                    self.folder.display(),
                    self.plan.nodes,
                    self.plan.port,
                );
                Err(Problem::new(Exit::Config, text)
                    .hint("give the same numbers, or another folder with --data"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = serde_json::to_vec(&self.plan).or_problem(Exit::Failed, broken)?;
                write_private(&path, &bytes)
                    .or_problem(Exit::Config, || format!("cannot write {}", path.display()))
            }
            Err(error) => Err(Problem::new(Exit::Config, broken()).because(error)),
        }
    }

    /// What only a running cluster has.
    pub(super) fn remove_traces(&self) -> Result<(), Problem> {
        for path in [self.record(), self.control()] {
            remove_if_there(&path)?;
        }
        Ok(())
    }

    /// A port that is taken is found now, not by a child that dies of it.
    fn probe(&self) -> Result<(), Problem> {
        for node in self.positions() {
            let (http, admin, peer) = (self.http(node), self.admin(node), self.peer(node));
            TcpListener::bind(http).map_err(|error| taken(http, error))?;
            TcpListener::bind(admin).map_err(|error| taken(admin, error))?;
            UdpSocket::bind(peer).map_err(|error| taken(peer, error))?;
        }
        Ok(())
    }

    /// The positions of the nodes, from 0.
    pub(super) fn positions(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.plan.nodes
    }

    /// The folder, absolute.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a node serves clients.
    pub(super) fn http(&self, node: u16) -> SocketAddr {
        self.address(node)
    }

    /// Where a node has its admin listener.
    pub(super) fn admin(&self, node: u16) -> SocketAddr {
        self.address(node + ADMIN)
    }

    /// Where a node listens for other nodes.
    pub(super) fn peer(&self, node: u16) -> SocketAddr {
        self.address(node + PEER)
    }

    fn address(&self, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.plan.port + offset).into()
    }

    pub(super) fn record(&self) -> PathBuf {
        self.folder.join(super::record::FILE)
    }

    pub(super) fn control(&self) -> PathBuf {
        self.folder.join(super::control::SOCKET)
    }

    pub(super) fn secret(&self, name: &str) -> PathBuf {
        self.secrets().join(name)
    }

    pub(super) fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    pub(super) fn node(&self, node: u16) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    pub(super) fn config(&self, node: u16) -> PathBuf {
        self.node(node).join("pspd.toml")
    }

    pub(super) fn identity(&self, node: u16) -> PathBuf {
        self.node(node).join("identity")
    }

    pub(super) fn data(&self, node: u16) -> PathBuf {
        self.node(node).join("data")
    }

    pub(super) fn join_token(&self, node: u16) -> PathBuf {
        self.node(node).join("join-token")
    }

    pub(super) fn log(&self, node: u16) -> PathBuf {
        self.node(node).join("pspd.log")
    }
}

fn taken(address: SocketAddr, error: std::io::Error) -> Problem {
    Problem::new(Exit::Config, format!("cannot listen on {address}"))
        .because(error)
        .hint("node i needs the ports PORT+i, PORT+100+i and PORT+200+i; choose others with --port")
}

/// Removes a file; that there is none is fine.
pub(super) fn remove_if_there(path: &Path) -> Result<(), Problem> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Problem::new(
            Exit::Config,
            format!("cannot remove {}", path.display()),
        )
        .because(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port for tests of this file, free with its neighbors at the moment.
    const PORT: u16 = 28_110;

    #[test]
    fn a_folder_made_with_other_numbers_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        drop(Layout::claim(folder.path(), 3, PORT).unwrap());
        let problem = Layout::claim(folder.path(), 5, PORT).unwrap_err();
        assert!(
            problem
                .to_string()
                .contains("--nodes 3 --port 28110, not --nodes 5"),
            "{problem}"
        );
        assert_eq!(problem.exit(), Exit::Config);
    }

    #[test]
    fn two_supervisors_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Layout::claim(folder.path(), 1, PORT + 10).unwrap();
        let problem = Layout::claim(folder.path(), 1, PORT + 10).unwrap_err();
        assert!(
            problem.to_string().contains("another `pspd dev`"),
            "{problem}"
        );
        drop(first);
        Layout::claim(folder.path(), 1, PORT + 10).unwrap();
    }

    #[test]
    fn a_taken_port_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let problem = Layout::claim(folder.path(), 1, port).unwrap_err();
        assert!(problem.to_string().contains(&port.to_string()), "{problem}");
    }
}
