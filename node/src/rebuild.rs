//! A node whose log is damaged, or whose disk the cluster refuses, is made anew: under a new id, from the others' copies.
//!
//! It may have lost what it promised, so its old id must never vote again. Its certificate is still good for one thing: to be let
//! in once more, in its own place. With `cluster.rebuild = "auto"`, in this order, so that it goes on wherever it was interrupted:
//!
//! 1. The mark `DATA/rebuild`, with the reason: from here on the old disk is not opened any more.
//! 2. The old log, the node's own files and its certificate go to `DATA/damaged` and stay there until the next rebuild. The replicas'
//!    state goes: the others have it, and the new one needs the room.
//! 3. The cluster gives a new id, as for a join token; however often it is asked, it is one.
//! 4. The new certificate takes the place of the old one, and the mark goes.
//!
//! Without it the node ends, and says what the operator can do. Nothing is rebuilt when the cluster has no quorum without this
//! node, or when this node was removed from it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::id::{NodeId, RegionId};
use raft::host::{JoinFailed, Wish, known_peers, rejoin};
use raft::transport::ca::Identity;
use storage::disk::RealDisk;
use tokio::time::sleep;

use crate::config::{Config, Rebuild};
use crate::exit::{Exit, OrProblem as _, Problem, chain};
use crate::join::{self, OWN};
use crate::secrets::write_private;

/// Says that this node's disk is not to be used any more, and why.
const MARK: &str = "rebuild";
/// What is kept of the old disk.
const ASIDE: &str = "damaged";
const IDENTITY: &str = "identity";
/// Rounds over all known nodes, and the pause between two.
const ROUNDS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// What an operator can do.
pub(crate) const HINT: &str = "set cluster.rebuild = \"auto\" and start it again; or, with a token of `pspd node join-token`, \
     start a fresh node with [cluster.join] that replaces this one";

/// Whether a node may rebuild itself.
pub(crate) fn is_auto(config: &Config) -> bool {
    config.cluster.rebuild == Rebuild::Auto
}

/// Leaves the mark: the next start rebuilds this node.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn mark(config: &Config, node: NodeId, reason: &str) -> Result<(), Problem> {
    let text = format!("{node} {reason}\n");
    write_private(&config.data.join(MARK), text.as_bytes()).or_problem(Exit::Rebuild, || {
        "cannot mark this node for a rebuild".to_owned()
    })
}

/// The certificate of a node that was marked and not rebuilt yet.
///
/// # Errors
/// When it is marked, and may not or cannot be rebuilt.
pub(crate) fn pending(config: &Config) -> Result<Option<Identity>, Problem> {
    let text = match fs::read_to_string(config.data.join(MARK)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(
                Problem::new(Exit::Rebuild, "cannot read the mark of a rebuild").because(error),
            );
        }
    };
    if !is_auto(config) {
        return Err(Problem::new(Exit::Rebuild, "this node must be rebuilt")
            .because(text.trim().to_owned())
            .hint(HINT));
    }
    let marked = text.split(' ').next().and_then(|id| id.parse().ok());
    let marked = NodeId(marked.ok_or_else(|| {
        Problem::new(Exit::Rebuild, "the mark of a rebuild names no node").hint(HINT)
    })?);
    let name = join::cluster_name(config)?;
    let present = Identity::load(&config.secrets.identity, name.clone());
    if present.as_ref().is_ok_and(|it| it.node() != marked) {
        // It was interrupted after all was done.
        unmark(config)?;
        return Ok(None);
    }
    // While the new certificate is being written, the folder may hold half of each.
    let kept = Identity::load(&config.data.join(ASIDE).join(IDENTITY), name);
    match kept {
        Ok(kept) if kept.node() == marked => Ok(Some(kept)),
        _ => present.map(Some).or_problem(Exit::Rebuild, || {
            "cannot use the certificate of the node that must be rebuilt".to_owned()
        }),
    }
}

fn unmark(config: &Config) -> Result<(), Problem> {
    let unmarked = fs::remove_file(config.data.join(MARK)).and_then(|()| sync(&config.data));
    unmarked.or_problem(Exit::Rebuild, || {
        "cannot remove the mark of the rebuild".to_owned()
    })
}

/// Makes the node anew; its identity from now on.
///
/// # Errors
/// When the cluster does not let it in, or the folders cannot be changed.
pub(crate) async fn rebuild(config: &Config, old: &Identity) -> Result<Identity, Problem> {
    tracing::warn!(node = %old.node(), "this node is rebuilt under a new id");
    let peers = peers(config, old);
    if peers.is_empty() {
        return Err(Problem::new(
            Exit::Rebuild,
            "there is no other node to rebuild this one from",
        ));
    }
    set_aside(&config.data, old).or_problem(Exit::Rebuild, || {
        format!("cannot set the old disk aside in {}", config.data.display())
    })?;
    let new = admitted(config, old, &peers).await?;
    let folder = &config.secrets.identity;
    new.save(folder).or_problem(Exit::Rebuild, || {
        format!("cannot write to {}", folder.display())
    })?;
    unmark(config)?;
    tracing::info!(old = %old.node(), node = %new.node(), "this node has a new id");
    Ok(new)
}

/// Where the other nodes are, as far as anything here says.
fn peers(config: &Config, old: &Identity) -> Vec<String> {
    let own = [config.data.join(OWN), config.data.join(ASIDE).join(OWN)];
    let known = own
        .iter()
        .filter(|folder| folder.is_dir())
        .filter_map(|folder| RealDisk::open(folder).ok())
        .flat_map(|disk| known_peers(&disk))
        .map(|(_, peer)| peer);
    let members = config.cluster.members.iter();
    let members = members
        .filter(|member| member.id != old.node().0)
        .map(|member| member.peer.clone());
    let seeds = config
        .cluster
        .join
        .iter()
        .flat_map(|join| join.seeds.clone());
    let mut peers: Vec<String> = Vec::new();
    for peer in known.chain(members).chain(seeds) {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

/// Puts away what is left of the old node. May be done again after any interruption: what is in its place already is the old
/// one's, and what stands where that was is of no worth.
fn set_aside(data: &Path, old: &Identity) -> std::io::Result<()> {
    let aside = data.join(ASIDE);
    let kept = aside.join(IDENTITY);
    let begun = Identity::load(&kept, old.cluster().clone())
        .is_ok_and(|kept| kept.certificate_der() == old.certificate_der());
    if !begun {
        // Of an earlier rebuild.
        remove(&aside)?;
        fs::create_dir_all(&kept)?;
        old.save(&kept).map_err(std::io::Error::other)?;
        sync(&aside)?;
    }
    for folder in ["log", OWN] {
        let (from, to) = (data.join(folder), aside.join(folder));
        match to.exists() {
            true => remove(&from)?,
            false => move_to(&from, &to)?,
        }
    }
    remove(&data.join("groups"))?;
    fs::create_dir_all(data.join(OWN))?;
    sync(&aside)?;
    sync(data)
}

async fn admitted(config: &Config, old: &Identity, peers: &[String]) -> Result<Identity, Problem> {
    let own = config.data.join(OWN);
    let disk = RealDisk::open(&own)
        .or_problem(Exit::Rebuild, || format!("cannot use {}", own.display()))?;
    let disk = Arc::new(disk);
    let mut last = Problem::new(Exit::Unavailable, "no other node is known");
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        for peer in peers {
            let addresses = tokio::net::lookup_host(peer).await.into_iter().flatten();
            for address in addresses {
                let wish = Wish {
                    cluster: join::cluster_name(config)?,
                    region: RegionId::new(config.cluster.region)
                        .expect("the configuration is validated"),
                    address: join::address_of(config),
                    replaces: Some(old.node()),
                };
                match rejoin(address, old, wish, Arc::<RealDisk>::clone(&disk)).await {
                    Ok(joined) => return Ok(joined.identity),
                    Err(error) => {
                        tracing::warn!(peer, reason = chain(&error), "not let in by this node");
                        last = not_in(error);
                    }
                }
            }
        }
    }
    Err(last.hint(HINT))
}

fn not_in(error: JoinFailed) -> Problem {
    let exit = match &error {
        JoinFailed::Refused(_) => Exit::Rebuild,
        _ => Exit::Unavailable,
    };
    Problem::new(exit, "the cluster does not let this node in again").because(error)
}

fn move_to(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::transport::ca::{Authority, Validity};

    fn identity(node: u64) -> Identity {
        let authority = Authority::create("test".parse().unwrap(), 1_800_000_000).unwrap();
        let validity = Validity {
            now: 1_800_000_000,
            days: 30,
        };
        authority.identity(NodeId(node), validity).unwrap()
    }

    fn put(data: &Path, name: &str, text: &str) {
        let path = data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(data: &Path, name: &str) -> Option<String> {
        fs::read_to_string(data.join(name)).ok()
    }

    #[test]
    fn the_old_log_is_kept_the_state_goes_and_the_next_rebuild_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let first = identity(3);
        put(data, "log/segment", "old log");
        put(data, "node/map", "old map");
        put(data, "groups/1/CURRENT", "old state");
        set_aside(data, &first).unwrap();
        assert_eq!(
            text(data, "damaged/log/segment").as_deref(),
            Some("old log")
        );
        assert_eq!(text(data, "damaged/node/map").as_deref(), Some("old map"));
        assert!(!data.join("groups").exists() && !data.join("log").exists());
        // Interrupted, and begun again: what has come since is nothing, what was kept stays.
        put(data, "node/map", "half a new one");
        put(data, "log/segment", "an empty log");
        set_aside(data, &first).unwrap();
        assert_eq!(
            text(data, "damaged/log/segment").as_deref(),
            Some("old log")
        );
        assert_eq!(text(data, "node/map"), None);
        // The new node is damaged one day, too.
        put(data, "log/segment", "newer log");
        set_aside(data, &identity(4)).unwrap();
        assert_eq!(
            text(data, "damaged/log/segment").as_deref(),
            Some("newer log")
        );
    }
}
