//! What compiler and clippy cannot see: the house's own rules, checked over all files of the repository.
//!
//! Each rule lists everything that breaks it, so that one run shows all there is to do.

/// Longest source file, in lines.
const MAX_LINES: usize = 500;

#[cfg(test)]
mod house {
    //! The files of the repository.

    use std::fs;
    use std::path::{Path, PathBuf};

    pub(super) fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()
            .unwrap()
    }

    /// All files below a folder whose name ends so, without those of build and tool folders.
    pub(super) fn files(folder: &Path, ends: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci" && name != ".config";
            if path.is_dir() {
                if !hidden && name != "target" && name != "node_modules" {
                    found.extend(files(&path, ends));
                }
            } else if name.ends_with(ends) {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    pub(super) fn members() -> Vec<PathBuf> {
        files(&root(), "Cargo.toml")
            .into_iter()
            .filter(|path| path.parent() != Some(&root()))
            .collect()
    }

    pub(super) fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    pub(super) fn name(path: &Path) -> String {
        path.strip_prefix(root())
            .unwrap_or(path)
            .display()
            .to_string()
    }

    pub(super) fn none(rule: &str, broken: &[String]) {
        assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
    }

    /// Whether a file holds only tests.
    pub(super) fn is_test(path: &Path) -> bool {
        let name = name(path);
        name.contains("/tests/") || name.ends_with("/tests.rs") || name.starts_with("chaos-tests/")
    }
}

use std::collections::BTreeSet;
use std::path::Path;

use house::{files, is_test, members, name, none, read, root};

#[test]
fn every_file_says_what_it_is_for_and_fits_in_a_head() {
    let mut broken = Vec::new();
    for path in files(&root(), ".rs") {
        let text = read(&path);
        // What a fuzzer needs before anything else.
        let opening = text.strip_prefix("#![no_main]\n").unwrap_or(&text);
        if !opening.starts_with("//!") {
            broken.push(format!("{} does not open with //!", name(&path)));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!(
                "{} has {lines} lines, more than {MAX_LINES}",
                name(&path)
            ));
        }
    }
    none("files", &broken);
}

#[test]
fn every_member_takes_lints_and_dependencies_from_the_workspace() {
    let mut broken = Vec::new();
    for path in members()
        .iter()
        .filter(|path| !name(path).contains("/fuzz/"))
    {
        let manifest: toml::Table = toml::from_str(&read(path)).unwrap();
        if manifest.get("lints")
            != toml::from_str::<toml::Table>("lints.workspace = true")
                .unwrap()
                .get("lints")
        {
            broken.push(format!(
                "{}: [lints] workspace = true is missing",
                name(path)
            ));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(section) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (dependency, how) in section {
                if how.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    broken.push(format!(
                        "{}: {dependency} is not the workspace's",
                        name(path)
                    ));
                }
            }
        }
    }
    none("members", &broken);
}

#[test]
fn the_model_has_no_runtime() {
    let manifest: toml::Table =
        toml::from_str(&read(&root().join("storage/model/Cargo.toml"))).unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    for engine in [
        "tokio", "openraft", "rocksdb", "axum", "hyper", "quinn", "rustix",
    ] {
        assert!(
            !dependencies.contains_key(engine),
            "storage/model depends on {engine}"
        );
    }
}

/// Only a function named `until...` may, between two looks at its condition.
#[test]
fn no_test_sleeps() {
    // Put together here, or this line would be found.
    let call = concat!("sle", "ep(");
    let mut broken = Vec::new();
    // On virtual time nobody waits: there a span is what happens in it.
    let is_virtual = |path: &Path| name(path).starts_with("chaos-tests/src/sim/");
    let tests = files(&root(), ".rs");
    for path in tests
        .iter()
        .filter(|path| is_test(path) && !is_virtual(path))
    {
        let mut waits_for_a_condition = false;
        for (at, line) in read(path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("fn ") {
                waits_for_a_condition = code.contains("fn until");
            }
            if code.contains(call) && !waits_for_a_condition {
                broken.push(format!(
                    "{}:{}: wait for a condition with a limit",
                    name(path),
                    at + 1
                ));
            }
        }
    }
    none("tests that wait for time to pass", &broken);
}

#[test]
fn a_test_is_a_sentence() {
    let mut broken = Vec::new();
    for path in files(&root(), ".rs") {
        for (at, line) in read(&path).lines().enumerate() {
            if line.trim_start().starts_with(concat!("fn te", "st_")) {
                broken.push(format!("{}:{}", name(&path), at + 1));
            }
        }
    }
    none("names of tests", &broken);
}

/// Words of an expression that could be metrics of ours or of the process.
fn metrics_in(text: &str) -> Vec<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let ours = |word: &&str| {
        ["psp_", "pspd_", "process_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    text.split(word).filter(ours).map(str::to_owned).collect()
}

#[test]
fn every_metric_in_deploy_exists() {
    let known: String = files(&root(), "metrics.rs")
        .iter()
        .map(|path| read(path))
        .collect();
    let mut broken = Vec::new();
    for ends in [".yml", ".yaml", ".json"] {
        for path in files(&root().join("deploy"), ends) {
            for line in read(&path)
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
            {
                for metric in metrics_in(line) {
                    let base = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| metric.strip_suffix(suffix))
                        .unwrap_or(&metric);
                    if !known.contains(&format!("\"{base}\""))
                        && !known.contains(&format!("\"{metric}\""))
                    {
                        broken.push(format!("{}: {metric}", name(&path)));
                    }
                }
            }
        }
    }
    none("metrics that no metrics.rs has", &broken);
}

#[test]
fn every_invariant_in_the_architecture_has_its_file_and_the_other_way_round() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut broken = Vec::new();
    let mut ids = BTreeSet::new();
    for path in files(&root().join("chaos-tests/src/invariants"), ".rs") {
        let file = read(&path);
        let first = file.lines().next().unwrap_or_default();
        let Some(id) = first
            .strip_prefix("//! I-")
            .and_then(|it| it.split(',').next())
        else {
            continue;
        };
        if !text.contains(&format!("(I-{id})")) {
            broken.push(format!("{}: I-{id} is not in ARCHITECTURE.md", name(&path)));
        }
        ids.insert(id.to_owned());
    }
    for piece in text.split("(I-").skip(1) {
        let id = piece.split(')').next().unwrap_or_default();
        if !ids.contains(id) {
            broken.push(format!("I-{id} has no file"));
        }
    }
    assert!(ids.len() >= 10, "{ids:?}");
    none("invariants", &broken);
}

#[test]
fn nothing_names_a_machine() {
    // In pieces, or this file would be found.
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/", "psp"),
    ];
    let mut broken = Vec::new();
    for ends in [
        ".rs",
        ".toml",
        ".md",
        ".mjs",
        ".yml",
        ".service",
        "Makefile",
        "Dockerfile",
    ] {
        for path in files(&root(), ends) {
            let text = read(&path);
            broken.extend(
                places
                    .iter()
                    .filter(|place| text.contains(**place))
                    .map(|place| format!("{} holds {place}", name(&path))),
            );
        }
    }
    none("paths of one machine", &broken);
}
