//! The authority's files, names and signatures.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::transport::ca::{CaError, ClusterName, Fingerprint, NodeKey};

fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

#[test]
fn names_of_nodes_and_clusters_round_trip_and_nothing_else_passes() {
    let name = cluster("eu-west-1");
    for node in [0, 7, u64::MAX] {
        let text = name.node_name(NodeId(node));
        assert_eq!(name.node_of(&text), Some(NodeId(node)));
    }
    let foreign = [
        "node-07.eu-west-1.psp.internal",
        "node-+7.eu-west-1.psp.internal",
        "node-.eu-west-1.psp.internal",
        "node-7.eu-west-2.psp.internal",
        "node-7.x.eu-west-1.psp.internal",
        "node-7eu-west-1.psp.internal",
        "node-18446744073709551616.eu-west-1.psp.internal",
        "",
    ];
    for text in foreign {
        assert_eq!(name.node_of(text), None, "{text}");
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a b", &"a".repeat(41)] {
        assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
    }
}

#[test]
fn a_fingerprint_round_trips_as_text() {
    let fingerprint = authority().fingerprint();
    let text = fingerprint.to_string();
    assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
    assert_eq!(Fingerprint::from_bytes(fingerprint.to_bytes()), fingerprint);
    assert!(text[1..].parse::<Fingerprint>().is_err());
    assert!("z".repeat(64).parse::<Fingerprint>().is_err());
}

#[tokio::test]
async fn what_was_saved_serves_after_loading_and_only_its_owner_reads_it() {
    let (ours, nodes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = Authority::create(cluster("test"), wall()).unwrap();
    made.save(ours.path()).unwrap();
    identity(&made, 1).save(nodes.path()).unwrap();
    // A second time replaces the files.
    identity(&made, 1).save(nodes.path()).unwrap();
    for (folder, files) in [
        (&ours, vec!["ca.crt", "ca.key"]),
        (&nodes, vec!["ca.crt", "node.crt", "node.key"]),
    ] {
        let mut found: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        found.sort_by_key(fs::DirEntry::file_name);
        assert_eq!(
            found
                .iter()
                .map(fs::DirEntry::file_name)
                .collect::<Vec<_>>(),
            files
        );
        for file in found {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    let loaded = Authority::load(ours.path(), cluster("test")).unwrap();
    assert_eq!(loaded.fingerprint(), made.fingerprint());
    let first = Identity::load(nodes.path(), cluster("test")).unwrap();
    assert_eq!(first.node(), NodeId(1));
    assert_eq!(first.authority_fingerprint(), made.fingerprint());
    let one = start(Config::new((Ipv4Addr::LOCALHOST, 0).into(), first));
    let two = start(config(&loaded, 2));
    one.meet(&two)
        .call(call(Lane::Data, ECHO, ""))
        .await
        .unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Identity::load(folder.path(), cluster("test")),
        Err(CaError::File {
            file: "node.crt",
            ..
        })
    ));
    let (ours, theirs) = (authority(), authority());
    ours.save(folder.path()).unwrap();
    identity(&ours, 1).save(folder.path()).unwrap();
    assert!(Authority::load(folder.path(), cluster("other")).is_err());
    assert!(Identity::load(folder.path(), cluster("other")).is_err());
    let certificate = fs::read(folder.path().join("node.crt")).unwrap();
    let authority = fs::read(folder.path().join("ca.crt")).unwrap();
    theirs.save(folder.path()).unwrap();
    identity(&theirs, 1).save(folder.path()).unwrap();
    fs::write(folder.path().join("node.crt"), certificate).unwrap();
    assert!(matches!(
        Identity::load(folder.path(), cluster("test")),
        Err(CaError::Invalid(_))
    ));
    fs::write(folder.path().join("ca.crt"), authority).unwrap();
    assert!(matches!(
        Authority::load(folder.path(), cluster("test")),
        Err(CaError::Invalid(_))
    ));
    fs::write(folder.path().join("node.key"), "no key").unwrap();
    assert!(Identity::load(folder.path(), cluster("test")).is_err());
}

#[test]
fn a_joiner_gets_the_authoritys_names_for_its_own_key() {
    let authority = authority();
    let validity = Validity {
        now: wall(),
        days: 30,
    };
    let key = NodeKey::generate().unwrap();
    let certificate = authority
        .issue(&key.signing_request().unwrap(), NodeId(5), validity)
        .unwrap();
    let trusted = authority.certificate().to_vec();
    let identity = key
        .into_identity(cluster("test"), certificate.clone(), trusted.clone())
        .unwrap();
    assert_eq!(identity.node(), NodeId(5));

    let another = NodeKey::generate().unwrap();
    assert!(
        another
            .into_identity(cluster("test"), certificate, trusted)
            .is_err()
    );
    let mut forged = NodeKey::generate().unwrap().signing_request().unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(authority.issue(&forged, NodeId(6), validity).is_err());
    assert!(authority.issue(b"", NodeId(6), validity).is_err());
}

#[test]
fn keys_do_not_show_in_debug_texts() {
    let authority = authority();
    let texts = [
        format!("{authority:?}"),
        format!("{:?}", identity(&authority, 1)),
        format!("{:?}", NodeKey::generate().unwrap()),
        format!("{:?}", config(&authority, 1)),
    ];
    for text in texts {
        assert!(!text.contains("[48, ") && !text.contains("key:"), "{text}");
    }
}
