//! What a cluster needs besides its disks: authority, certificates, keys, and each node's configuration.
//!
//! ```text
//! FOLDER/secrets/           ca.crt, ca.key, master-key, cluster-secret, api-key
//! FOLDER/node-i/identity/   the node's certificate and key
//! FOLDER/node-i/join-token  there when the node joins in the place of one whose disk is lost
//! FOLDER/node-i/pspd.toml   its configuration
//! FOLDER/node-i/pspd.log    its log
//! FOLDER/disks/             the images and where they are mounted
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use model::id::NodeId;
use node::secrets;
use raft::transport::ca::{Authority, ClusterName, Validity};

/// The cluster's name in its certificates.
const NAME: &str = "rig";
/// Days that the certificates are valid: also for a node whose clock is put forward.
const DAYS: u32 = 3650;
/// Ports, the same on every node: each has an address of its own.
const HTTP: u16 = 7300;
const ADMIN: u16 = 7400;
const PEER: u16 = 7500;

/// The files of a rig.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    addresses: Vec<Ipv4Addr>,
}

impl Files {
    /// Makes keys, and a certificate for each node.
    pub(super) fn make(folder: &Path, addresses: Vec<Ipv4Addr>, now: u64) -> Result<Self, String> {
        let files = Self {
            folder: folder.to_owned(),
            addresses,
        };
        private(&files.secrets())?;
        let failed = |error: &dyn std::error::Error| format!("cannot make keys: {error}");
        secrets::make_key(&files.secret("master-key")).map_err(|error| failed(&error))?;
        secrets::make_key(&files.secret("cluster-secret")).map_err(|error| failed(&error))?;
        secrets::make_api_key(&files.secret("api-key")).map_err(|error| failed(&error))?;
        let authority = Authority::create(name(), now).map_err(|error| failed(&error))?;
        authority
            .save(&files.secrets())
            .map_err(|error| failed(&error))?;
        for node in 0..files.addresses.len() {
            private(&files.identity(node))?;
            let validity = Validity { now, days: DAYS };
            authority
                .identity(NodeId(id(node)), validity)
                .and_then(|identity| identity.save(&files.identity(node)))
                .and_then(|()| authority.save(&files.identity(node)))
                .map_err(|error| failed(&error))?;
            files.write_config(node, None)?;
        }
        Ok(files)
    }

    pub(super) fn api_key(&self) -> Result<String, String> {
        fs::read_to_string(self.secret("api-key"))
            .map(|key| key.trim().to_owned())
            .map_err(|error| format!("no API key: {error}"))
    }

    /// Takes the identity of a node whose disk is lost, and lets it join in that one's place.
    pub(super) fn rejoin(&self, node: usize, replaces: u64, token: &str) -> Result<(), String> {
        let failed = |error: &dyn std::error::Error| format!("cannot prepare a join: {error}");
        fs::remove_dir_all(self.identity(node)).map_err(|error| failed(&error))?;
        private(&self.identity(node))?;
        // It may admit others too, as every node of a rig.
        Authority::load(&self.secrets(), name())
            .and_then(|authority| authority.save(&self.identity(node)))
            .map_err(|error| failed(&error))?;
        write_private(&self.node(node).join("join-token"), token)?;
        self.write_config(node, Some(replaces))
    }

    fn write_config(&self, node: usize, replaces: Option<u64>) -> Result<(), String> {
        write_private(
            &self.node(node).join("pspd.toml"),
            &self.config_text(node, replaces),
        )
    }

    fn config_text(&self, node: usize, replaces: Option<u64>) -> String {
        let address = self.addresses[node];
        let secret = |name: &str| self.secret(name).display().to_string();
        let mut text = format!(
            "data = \"{}\"\nworker_threads = 1\n\n[listen]\nhttp = \"{address}:{HTTP}\"\nadmin = \"{address}:{ADMIN}\"\n\
             peer = \"{address}:{PEER}\"\n\n[secrets]\nidentity = \"{}\"\nmaster_key = \"{}\"\ncluster_secret = \"{}\"\n\
             api_key = \"{}\"\n\n[cluster]\nname = \"{NAME}\"\n",
            self.data(node).display(),
            self.identity(node).display(),
            secret("master-key"),
            secret("cluster-secret"),
            secret("api-key"),
        );
        let others = (0..self.addresses.len()).filter(|other| *other != node);
        match replaces {
            Some(replaces) => {
                let seeds: Vec<String> = others
                    .map(|other| format!("\"{}:{PEER}\"", self.addresses[other]))
                    .collect();
                text += &format!(
                    "\n[cluster.join]\ntoken = \"{}\"\nseeds = [{}]\nreplaces = {replaces}\n",
                    self.node(node).join("join-token").display(),
                    seeds.join(", "),
                );
            }
            None => {
                for (member, address) in self.addresses.iter().enumerate() {
                    text += &format!(
                        "\n[[cluster.members]]\nid = {}\npeer = \"{address}:{PEER}\"\nhttp = \"{}\"\nadmin = \"{}\"\n",
                        id(member),
                        self.http(member),
                        self.admin(member),
                    );
                }
            }
        }
        text
    }

    pub(super) fn http(&self, node: usize) -> String {
        format!("http://{}:{HTTP}", self.addresses[node])
    }

    pub(super) fn admin(&self, node: usize) -> String {
        format!("http://{}:{ADMIN}", self.addresses[node])
    }

    fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.secrets().join(name)
    }

    pub(super) fn disks(&self) -> PathBuf {
        self.folder.join("disks")
    }

    pub(super) fn node(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    fn identity(&self, node: usize) -> PathBuf {
        self.node(node).join("identity")
    }

    /// Where the node's disk is mounted has other things too; the data is a folder of it.
    fn data(&self, node: usize) -> PathBuf {
        self.disks().join(format!("{}.mnt", disk(node))).join(DATA)
    }
}

/// The folder of a disk that is the node's data.
pub const DATA: &str = "data";

/// The name of a node's disk.
pub(super) fn disk(node: usize) -> String {
    format!("node-{node}")
}

/// The id that a node of the first cluster has.
pub(super) fn id(node: usize) -> u64 {
    u64::try_from(node).expect("a rig has few nodes") + 1
}

fn name() -> ClusterName {
    NAME.parse().expect("a cluster's name")
}

fn private(folder: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))
}

/// Nobody else may read it.
fn write_private(path: &Path, text: &str) -> Result<(), String> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
