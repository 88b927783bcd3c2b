//! Makes what a cluster on one machine needs, once: authority, certificates, keys; and each node's configuration, anew
//! at each start.
//!
//! Node ids are positions plus one. A node that comes back after a wipe gets a new id by joining, as on a real machine;
//! its position stays.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use model::id::NodeId;
use model::time::Clock as _;
use raft::transport::ca::{Authority, ClusterName, Identity, Validity};
use secrecy::SecretString;
use serde::Serialize;

use super::layout::{Layout, remove_if_there};
use crate::clock::SystemClock;
use crate::exit::{Exit, OrProblem as _, Problem};
use crate::secrets;

/// The cluster's name in its certificates.
const NAME: &str = "dev";
/// How long the nodes' certificates are valid, in days: as long as anybody keeps a folder.
const DAYS: u32 = 10 * 365;
/// Marks a node whose disk was wiped; holds the id that it had.
const WIPED: &str = "wiped";

/// Makes what is missing.
pub(super) fn make(layout: &Layout) -> Result<(), Problem> {
    private_folder(&layout.secrets())?;
    let failed = || "cannot make the cluster's keys".to_owned();
    secrets::make_key(&layout.secret("master-key")).or_problem(Exit::Config, failed)?;
    secrets::make_key(&layout.secret("cluster-secret")).or_problem(Exit::Config, failed)?;
    secrets::make_api_key(&layout.secret("api-key")).or_problem(Exit::Config, failed)?;
    let now = SystemClock.now().0 / 1000;
    let authority = authority(layout, now)?;
    for node in layout.positions() {
        let folder = layout.identity(node);
        private_folder(&folder)?;
        if is_wiped(layout, node) || folder.join("node.crt").exists() {
            continue;
        }
        let validity = Validity { now, days: DAYS };
        authority
            .identity(id_of(node), validity)
            .and_then(|identity| identity.save(&folder))
            .and_then(|()| authority.save(&folder))
            .or_problem(Exit::Config, || {
                format!("cannot make the certificate of node {node}")
            })?;
    }
    Ok(())
}

fn authority(layout: &Layout, now: u64) -> Result<Authority, Problem> {
    let folder = layout.secrets();
    let made = if folder.join("ca.crt").exists() {
        Authority::load(&folder, name()?)
    } else {
        Authority::create(name()?, now).and_then(|new| new.save(&folder).map(|()| new))
    };
    made.or_problem(Exit::Config, || {
        "cannot make the cluster's authority".to_owned()
    })
}

fn name() -> Result<ClusterName, Problem> {
    NAME.parse()
        .or_problem(Exit::Failed, || "the cluster's name is not one".to_owned())
}

fn id_of(node: u16) -> NodeId {
    NodeId(u64::from(node) + 1)
}

/// The key that clients show.
pub(super) fn api_key(layout: &Layout) -> Result<SecretString, Problem> {
    secrets::read_api_key(&layout.secret("api-key"))
        .or_problem(Exit::Config, || "cannot read the API key".to_owned())
}

/// Whether the node's disk was wiped, and it did not join again since.
pub(super) fn is_wiped(layout: &Layout, node: u16) -> bool {
    layout.node(node).join(WIPED).exists() && !layout.identity(node).join("node.crt").exists()
}

/// The id that a wiped node had.
fn replaces(layout: &Layout, node: u16) -> Option<u64> {
    fs::read_to_string(layout.node(node).join(WIPED))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Removes the disk and the certificate of a node that does not run.
pub(super) fn wipe(layout: &Layout, node: u16) -> Result<(), Problem> {
    if is_wiped(layout, node) {
        return remove_folder(&layout.data(node));
    }
    let identity = Identity::load(&layout.identity(node), name()?)
        .or_problem(Exit::Config, || format!("node {node} has no certificate"))?;
    // The mark first: without certificate and mark, a new certificate of the old id would be made.
    secrets::write_private(
        &layout.node(node).join(WIPED),
        identity.node().to_string().as_bytes(),
    )
    .or_problem(Exit::Config, || format!("cannot mark node {node} as wiped"))?;
    remove_if_there(&layout.join_token(node))?;
    remove_folder(&layout.identity(node))?;
    private_folder(&layout.identity(node))?;
    // On one machine, every node may admit others.
    Authority::load(&layout.secrets(), name()?)
        .and_then(|authority| authority.save(&layout.identity(node)))
        .or_problem(Exit::Config, || {
            format!("cannot prepare node {node} to join")
        })?;
    remove_folder(&layout.data(node))
}

fn remove_folder(path: &Path) -> Result<(), Problem> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Problem::new(
            Exit::Config,
            format!("cannot remove {}", path.display()),
        )
        .because(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn private_folder(path: &Path) -> Result<(), Problem> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.or_problem(Exit::Config, || format!("cannot make {}", path.display()))
}

/// A node's configuration, as `pspd serve` reads it.
#[derive(Serialize)]
struct File<'a> {
    data: PathBuf,
    worker_threads: u8,
    listen: Listen,
    cluster: Cluster,
    secrets: Secrets,
    log: Log<'a>,
}

#[derive(Serialize)]
struct Listen {
    http: String,
    admin: String,
    peer: String,
}

#[derive(Serialize)]
struct Cluster {
    name: &'static str,
    rebuild: &'static str,
    members: Vec<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<Join>,
}

#[derive(Serialize)]
struct Member {
    id: u64,
    peer: String,
    http: String,
    admin: String,
}

#[derive(Serialize)]
struct Join {
    token: PathBuf,
    seeds: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<u64>,
}

#[derive(Serialize)]
struct Secrets {
    identity: PathBuf,
    master_key: PathBuf,
    cluster_secret: PathBuf,
    api_key: PathBuf,
}

#[derive(Serialize)]
struct Log<'a> {
    filter: &'a str,
}

/// Writes a node's configuration.
pub(super) fn write_config(layout: &Layout, node: u16, log: &str) -> Result<(), Problem> {
    let joins = layout.join_token(node).exists();
    let member = |node: u16| Member {
        id: id_of(node).0,
        peer: layout.peer(node).to_string(),
        http: format!("http://{}", layout.http(node)),
        admin: format!("http://{}", layout.admin(node)),
    };
    let others = || layout.positions().filter(|other| *other != node);
    let file = File {
        data: layout.data(node),
        worker_threads: 1,
        listen: Listen {
            http: layout.http(node).to_string(),
            admin: layout.admin(node).to_string(),
            peer: layout.peer(node).to_string(),
        },
        cluster: Cluster {
            name: NAME,
            rebuild: "auto",
            // A node that joined learns its peers from the cluster.
            members: if joins {
                Vec::new()
            } else {
                layout.positions().map(member).collect()
            },
            join: joins.then(|| Join {
                token: layout.join_token(node),
                seeds: others()
                    .map(|other| layout.peer(other).to_string())
                    .collect(),
                replaces: replaces(layout, node),
            }),
        },
        secrets: Secrets {
            identity: layout.identity(node),
            master_key: layout.secret("master-key"),
            cluster_secret: layout.secret("cluster-secret"),
            api_key: layout.secret("api-key"),
        },
        log: Log { filter: log },
    };
    let text = toml::to_string(&file).or_problem(Exit::Failed, || {
        format!("cannot write the configuration of node {node}")
    })?;
    secrets::write_private(&layout.config(node), text.as_bytes()).or_problem(Exit::Config, || {
        format!("cannot write {}", layout.config(node).display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    #[test]
    fn a_made_cluster_has_valid_configurations_and_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::claim(folder.path(), 3, 28_150).unwrap();
        make(&layout).unwrap();
        let key = fs::read(layout.secret("api-key")).unwrap();
        make(&layout).unwrap();
        assert_eq!(fs::read(layout.secret("api-key")).unwrap(), key);
        for node in layout.positions() {
            write_config(&layout, node, "info").unwrap();
            let source = Source {
                file: layout.config(node),
                ..Source::default()
            };
            let config = Config::load(&source).unwrap();
            assert_eq!(config.cluster.members.len(), 3);
            assert_eq!(config.listen.http.port(), 28_150 + node);
            let identity = Identity::load(&config.secrets.identity, name().unwrap()).unwrap();
            assert_eq!(identity.node(), id_of(node));
        }
    }

    #[test]
    fn a_wiped_node_is_to_join_in_the_place_of_its_old_id() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::claim(folder.path(), 3, 28_160).unwrap();
        make(&layout).unwrap();
        assert!(!is_wiped(&layout, 1));
        wipe(&layout, 1).unwrap();
        assert!(is_wiped(&layout, 1));
        assert_eq!(replaces(&layout, 1), Some(2));
        make(&layout).unwrap();
        assert!(is_wiped(&layout, 1), "no certificate of the old id is made");
        secrets::write_private(&layout.join_token(1), b"token").unwrap();
        write_config(&layout, 1, "info").unwrap();
        let source = Source {
            file: layout.config(1),
            ..Source::default()
        };
        let config = Config::load(&source).unwrap();
        assert_eq!(config.cluster.join.unwrap().seeds.len(), 2);
        assert!(config.cluster.members.is_empty());
    }
}
