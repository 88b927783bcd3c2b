//! Who this node is: its certificate, read from its folder, or bought with a join token when there is none.
//!
//! A node joins once: what it got is kept in the identity folder, and the token is used up. A node whose disk was lost
//! joins again under a new id, in the place of the old one.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use model::id::{NodeId, RegionId};
use model::meta::NodeAddress;
use raft::host::{JoinFailed, JoinToken, Wish, join};
use raft::transport::ca::{ClusterName, Identity};
use storage::disk::RealDisk;

use crate::config::{Config, Join};
use crate::exit::{Exit, OrProblem as _, Problem, chain};
use crate::secrets::read_token;

/// The folder, below the node's data, of its own small files.
pub(crate) const OWN: &str = "node";

/// This node's identity.
///
/// # Errors
/// When there is none and none can be had.
pub(crate) async fn identity(config: &Config) -> Result<Identity, Problem> {
    let folder = &config.secrets.identity;
    if folder.join("node.crt").exists() {
        return Identity::load(folder, cluster_name(config)?).or_problem(Exit::Config, || {
            format!("cannot use the identity in {}", folder.display())
        });
    }
    let Some(wish) = &config.cluster.join else {
        let text = format!("there is no certificate in {}", folder.display());
        return Err(Problem::new(Exit::Config, text)
            .hint("make one with `pspd node issue`, or let the node join: [cluster.join]"));
    };
    let identity = joined(config, wish).await?;
    identity.save(folder).or_problem(Exit::Config, || {
        format!("cannot write to {}", folder.display())
    })?;
    tracing::info!(node = %identity.node(), "joined the cluster");
    Ok(identity)
}

/// The cluster's name, typed.
pub(crate) fn cluster_name(config: &Config) -> Result<ClusterName, Problem> {
    let name = &config.cluster.name;
    name.parse()
        .or_problem(Exit::Config, || format!("cluster.name `{name}` is not one"))
}

async fn joined(config: &Config, how: &Join) -> Result<Identity, Problem> {
    let token: JoinToken = read_token(&how.token)
        .or_problem(Exit::Config, || "cannot read the join token".to_owned())?
        .parse()
        .or_problem(Exit::Config, || {
            format!("{} holds no join token", how.token.display())
        })?;
    let own = config.data.join(OWN);
    for folder in [&config.secrets.identity, &own] {
        private_folder(folder)?;
    }
    let disk = RealDisk::open(&own)
        .or_problem(Exit::Config, || format!("cannot use {}", own.display()))?;
    let disk: Arc<RealDisk> = Arc::new(disk);
    let mut last = Problem::new(Exit::Unavailable, "there is no seed");
    for seed in &how.seeds {
        let addresses = tokio::net::lookup_host(seed).await.into_iter().flatten();
        for address in addresses {
            let wish = Wish {
                cluster: cluster_name(config)?,
                region: RegionId::new(config.cluster.region)
                    .expect("the configuration is validated"),
                address: address_of(config),
                replaces: how.replaces.map(NodeId),
            };
            match join(address, &token, wish, Arc::<RealDisk>::clone(&disk)).await {
                Ok(joined) => return Ok(joined.identity),
                Err(error @ JoinFailed::Refused(_)) => {
                    return Err(Problem::new(
                        Exit::Config,
                        "the cluster does not let this node in",
                    )
                    .because(error)
                    .hint("a token is good for one node, once, for a limited time: make another"));
                }
                Err(error) => {
                    tracing::warn!(
                        seed,
                        reason = chain(&error),
                        "cannot join through this node"
                    );
                    last =
                        Problem::new(Exit::Unavailable, "no seed lets this node in").because(error);
                }
            }
        }
    }
    Err(last)
}

/// How others reach this node.
pub(crate) fn address_of(config: &Config) -> NodeAddress {
    NodeAddress {
        peer: config.peer_address(),
        http: config.http_url(),
        admin: config.admin_url(),
        zone: config.cluster.zone.clone(),
    }
}

fn private_folder(path: &Path) -> Result<(), Problem> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.or_problem(Exit::Config, || format!("cannot make {}", path.display()))
}
