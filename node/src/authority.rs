//! The cluster's authority from the command line: made once, then a certificate for each of the first nodes.
//!
//! Nothing is overwritten: an authority that is lost cannot be made again, and a node's key is its identity.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use model::id::NodeId;
use model::time::Clock as _;
use raft::transport::ca::{Authority, ClusterName, Validity};

use crate::clock::SystemClock;
use crate::exit::{Exit, OrProblem as _, Problem};

/// What certificate is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificate {
    /// Whose.
    pub(crate) node: NodeId,
    /// How long it is valid.
    pub(crate) days: u32,
    /// Whether the node gets the authority's key too.
    pub(crate) may_admit: bool,
}

/// Makes an authority.
pub(crate) fn create(cluster: &str, out: &Path) -> Result<(), Problem> {
    let name = name(cluster)?;
    fresh(out, "ca.key")?;
    Authority::create(name, seconds())
        .and_then(|authority| authority.save(out))
        .or_problem(Exit::Failed, || "cannot make the authority".to_owned())
}

/// Makes a node's certificate.
pub(crate) fn issue(
    cluster: &str,
    ca: &Path,
    wanted: Certificate,
    out: &Path,
) -> Result<(), Problem> {
    let authority = Authority::load(ca, name(cluster)?).or_problem(Exit::Config, || {
        format!("no authority of {cluster} in {}", ca.display())
    })?;
    fresh(out, "node.key")?;
    let validity = Validity {
        now: seconds(),
        days: wanted.days,
    };
    authority
        .identity(wanted.node, validity)
        .and_then(|identity| identity.save(out))
        .and_then(|()| {
            if wanted.may_admit {
                authority.save(out)
            } else {
                Ok(())
            }
        })
        .or_problem(Exit::Failed, || "cannot make the certificate".to_owned())
}

fn name(cluster: &str) -> Result<ClusterName, Problem> {
    cluster.parse().or_problem(Exit::Usage, || {
        format!("`{cluster}` is not a cluster's name")
    })
}

fn seconds() -> u64 {
    SystemClock.now().0 / 1000
}

/// A private folder without this file.
fn fresh(folder: &Path, file: &str) -> Result<(), Problem> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.or_problem(Exit::Config, || format!("cannot make {}", folder.display()))?;
    if folder.join(file).exists() {
        let text = format!("{} is there already", folder.join(file).display());
        return Err(Problem::new(Exit::Config, text).hint("choose another folder with --out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::transport::ca::Identity;

    #[test]
    fn a_certificate_is_issued_once_and_names_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, node) = (folder.path().join("ca"), folder.path().join("node"));
        create("example", &ca).unwrap();
        assert!(
            create("example", &ca).is_err(),
            "an authority is not overwritten"
        );
        let wanted = Certificate {
            node: NodeId(7),
            days: 1,
            may_admit: false,
        };
        issue("example", &ca, wanted, &node).unwrap();
        assert!(
            issue("example", &ca, wanted, &node).is_err(),
            "a key is not overwritten"
        );
        assert!(issue("other", &ca, wanted, &folder.path().join("x")).is_err());
        let identity = Identity::load(&node, "example".parse().unwrap()).unwrap();
        assert_eq!(identity.node(), NodeId(7));
        assert!(!node.join("ca.key").exists());
    }
}
