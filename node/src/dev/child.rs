//! One node's process: started with its configuration, sent signals, waited for.
//!
//! The task that waits for the process is also the one that sends signals, so no signal ever goes to another process
//! that got the number of one that ended. Output goes to the node's log file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::layout::Layout;

/// Size of a log, in bytes, past which a start begins a new one.
const MAX_LOG: u64 = 16 << 20;
/// Signals on their way to a process.
const MAX_SIGNALS: usize = 4;

/// What the C library's allocator is told: few arenas, because RocksDB's threads would each get one and keep it.
const ALLOCATOR: [(&str, &str); 1] = [("MALLOC_ARENA_MAX", "2")];

/// A handle of a running process.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) pid: u32,
    signals: mpsc::Sender<Signal>,
}

impl Handle {
    /// Sends a signal, if the process still runs.
    pub(super) fn signal(&self, signal: Signal) {
        // Full: it has enough to end of. Closed: it ended.
        self.signals.try_send(signal).unwrap_or(());
    }
}

/// A started process, before somebody waits for it.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    signals: mpsc::Receiver<Signal>,
}

/// Starts the node at this position.
///
/// # Errors
/// When the log cannot be opened or the program not started.
pub(super) fn start(
    layout: &Layout,
    node: u16,
    settings: &[String],
) -> io::Result<(Handle, Started)> {
    let log = open_log(&layout.log(node))?;
    let child = Command::new(std::env::current_exe()?)
        .args([
            "serve",
            "--supervisor",
            &std::process::id().to_string(),
            "--config",
        ])
        .arg(layout.config(node))
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .envs(ALLOCATOR)
        // Variables meant for a node configured by hand would reach every node here.
        .env_clear_prefix("PSPD_")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal is for the supervisor.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child
        .id()
        .ok_or_else(|| io::Error::other("the process has no number"))?;
    let (sender, signals) = mpsc::channel(MAX_SIGNALS);
    Ok((
        Handle {
            pid,
            signals: sender,
        },
        Started { child, signals },
    ))
}

impl Started {
    /// Waits for the end of the process, and sends it signals until then.
    pub(super) async fn wait(mut self) -> io::Result<ExitStatus> {
        loop {
            let signal = tokio::select! {
                status = self.child.wait() => return status,
                Some(signal) = self.signals.recv() => signal,
            };
            let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                kill_process(pid, signal)?;
            }
        }
    }
}

trait ClearPrefix {
    fn env_clear_prefix(&mut self, prefix: &str) -> &mut Self;
}

impl ClearPrefix for Command {
    fn env_clear_prefix(&mut self, prefix: &str) -> &mut Self {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with(prefix)) {
                self.env_remove(name);
            }
        }
        self
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_LOG) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}
