//! What the configuration takes, refuses, and which source wins.

use std::path::PathBuf;

use super::*;
use crate::exit::chain;

const SMALL: &str = r#"
data = "data"
[listen]
http = "127.0.0.1:7300"
admin = "127.0.0.1:7400"
peer = "127.0.0.1:7500"
[cluster]
name = "test"
[secrets]
identity = "identity"
master_key = "/etc/pspd/master-key"
cluster_secret = "cluster-secret"
api_key = "api-key"
"#;

fn source(text: &str) -> (tempfile::TempDir, Source) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pspd.toml");
    std::fs::write(&file, text).unwrap();
    (
        folder,
        Source {
            file,
            ..Source::default()
        },
    )
}

#[test]
fn a_small_file_gets_defaults_and_paths_of_its_folder() {
    let (folder, source) = source(SMALL);
    let config = Config::load(&source).unwrap();
    assert_eq!(config.cluster.shards, DEFAULT_SHARDS);
    assert_eq!(config.data, folder.path().join("data"));
    assert_eq!(
        config.secrets.master_key,
        PathBuf::from("/etc/pspd/master-key")
    );
    assert_eq!(config.http_url(), "http://127.0.0.1:7300");
}

#[test]
fn arguments_win_over_variables_and_those_over_the_file() {
    let (_folder, mut source) = source(SMALL);
    source.variables = vec![
        ("PSPD_LISTEN__HTTP".into(), "127.0.0.1:1".into()),
        ("PSPD_WORKER_THREADS".into(), "7".into()),
        ("OTHER".into(), "x".into()),
    ];
    source.settings = vec![
        "listen.http=127.0.0.1:2".into(),
        "stop.drain = 250ms".into(),
    ];
    source.settings[1] = "stop.drain=250ms".into();
    let config = Config::load(&source).unwrap();
    assert_eq!(config.listen.http.port(), 2);
    assert_eq!(config.worker_threads.get(), 7);
    assert_eq!(config.stop.drain.0, Duration::from_millis(250));
}

#[test]
fn unknown_keys_are_refused_by_name_from_every_source() {
    let (_folder, plain) = source(&format!("{SMALL}\nmaster_kye = \"x\"\n"));
    let error = chain(&Config::load(&plain).unwrap_err());
    assert!(error.contains("master_kye"), "{error}");
    let (_folder, mut plain) = source(SMALL);
    plain.variables = vec![("PSPD_WORKERTHREADS".into(), "1".into())];
    let error = chain(&Config::load(&plain).unwrap_err());
    assert!(error.contains("workerthreads"), "{error}");
}

#[test]
fn values_out_of_range_are_refused() {
    for setting in [
        "cluster.region=1024",
        "cluster.shards=0",
        "cluster.shards=65",
        "listen.admin=127.0.0.1:7300",
        "gateway.request_timeout=61s",
        "gateway.request_timeout=30",
        "gateway.body_memory=1KiB",
        "worker_threads=0",
        "secrets.tls_key=key.pem",
        "data.x=1",
    ] {
        let (_folder, mut source) = source(SMALL);
        source.settings = vec![setting.to_owned()];
        let problem = Config::load(&source).unwrap_err();
        assert_eq!(problem.exit(), Exit::Config, "{setting}");
    }
}

#[test]
fn the_example_configuration_is_complete_and_valid() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/pspd.toml");
    Config::load(&Source {
        file,
        ..Source::default()
    })
    .unwrap();
}
