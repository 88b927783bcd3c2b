//! One node's process: `pspd serve` in its namespace, its output in its log file.
//!
//! The process dies with this one (the kernel sees to it), and nothing is ever signaled by name.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::command::until;

/// How a node is started.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) binary: PathBuf,
    pub(super) namespace: String,
    pub(super) folder: PathBuf,
    pub(super) settings: Vec<String>,
    /// Variables of the process, such as those of a faked clock.
    pub(super) variables: Vec<(String, OsString)>,
}

/// A started process, living or dead.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Also the name of its control groups.
    namespace: String,
}

impl Process {
    /// Starts a node.
    pub(super) fn start(plan: &Plan) -> Result<Self, String> {
        let failed = |error| format!("cannot start a node: {error}");
        let log = File::options()
            .create(true)
            .append(true)
            .open(plan.folder.join("pspd.log"))
            .map_err(failed)?;
        // Not `ip netns exec`: that makes a mount namespace, which would hold unmounted disks.
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", plan.namespace))
            .args(["--", "env"])
            .args(plan.variables.iter().map(|(name, value)| {
                let mut pair = OsString::from(format!("{name}="));
                pair.push(value);
                pair
            }))
            .arg("MALLOC_ARENA_MAX=2")
            .arg(&plan.binary)
            .args(["serve", "--supervisor", &std::process::id().to_string()])
            .arg("--config")
            .arg(plan.folder.join("pspd.toml"))
            .args(plan.settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            child,
            namespace: plan.namespace.clone(),
        })
    }

    /// Its number. `nsenter` and `env` become the node, so this is the node's.
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Sends a signal; nothing if it has ended.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.pid()).expect("a process id");
            // Not waited for yet, so the number is still its own.
            kill_process(pid, signal).expect("the node is ours");
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        // A frozen process does not die before it is thawed; most have no such group.
        let freezer = Path::new("/sys/fs/cgroup/freezer").join(&self.namespace);
        drop(std::fs::write(freezer.join("freezer.state"), "THAWED"));
        drop(self.child.wait());
    }

    /// SIGTERM, and waits for a clean end.
    pub(super) fn stop(&mut self, limit: Duration) -> Result<(), String> {
        self.signal(Signal::TERM);
        if !until(limit, || self.ended().is_some()) {
            return Err(format!("node does not stop within {limit:?}"));
        }
        match self.ended() {
            Some(status) if status.success() => Ok(()),
            status => Err(format!("node ended with {status:?}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The library that fakes the wall clock, if it is installed.
pub(super) fn faketime_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}

/// The variables of a process whose wall clock is what `file` says, and whose timers stay right.
pub(super) fn faketime(library: &Path, file: &Path) -> Vec<(String, OsString)> {
    vec![
        ("LD_PRELOAD".to_owned(), library.into()),
        ("FAKETIME_TIMESTAMP_FILE".to_owned(), file.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".into()),
        ("FAKETIME_NO_CACHE".to_owned(), "1".into()),
    ]
}
