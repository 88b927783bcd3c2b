//! A control group (version 1) with one node's process in it.

use std::path::{Path, PathBuf};

/// Where the controllers are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A group of one controller.
#[derive(Clone, Debug)]
pub(super) struct Group {
    parent: PathBuf,
    path: PathBuf,
}

impl Group {
    /// Makes the group of a controller and puts the process into it.
    pub(super) fn join(controller: &str, name: &str, pid: i32) -> Result<Self, String> {
        let parent = Path::new(ROOT).join(controller);
        if !parent.join("tasks").exists() {
            return Err(format!(
                "no controller `{controller}` (cgroup v1) in {ROOT}"
            ));
        }
        let path = parent.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        let group = Self { parent, path };
        // All its threads.
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    /// Sets a file of the group.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.path.join(file);
        std::fs::write(&path, value)
            .map_err(|error| format!("cannot write {value} to {}: {error}", path.display()))
    }

    /// Reads a file of the group.
    pub(super) fn read(&self, file: &str) -> Result<String, String> {
        let path = self.path.join(file);
        std::fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
    }

    /// A number of a file with lines `name number`.
    pub(super) fn number(&self, file: &str, name: &str) -> Result<u64, String> {
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(key, _)| *key == name);
        found
            .and_then(|(_, value)| value.parse().ok())
            .ok_or_else(|| format!("no {name} in {file}"))
    }

    /// Puts its processes back and removes it.
    pub(super) fn leave(self) -> Result<(), String> {
        for pid in self.read("cgroup.procs")?.lines() {
            // One that ended meanwhile needs no move.
            drop(std::fs::write(self.parent.join("cgroup.procs"), pid));
        }
        std::fs::remove_dir(&self.path)
            .map_err(|error| format!("cannot remove {}: {error}", self.path.display()))
    }
}
