//! A process of ours: start, signal, wait. Its output is in a file.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::until;
use crate::procs;

/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(20);
/// Lines of its output that are shown when it ended by itself.
const LAST: usize = 5;

/// A process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    end: Signal,
}

impl Server {
    /// Starts it; what it prints goes to `log`. It gets a process group of its own, so that Ctrl-C in a terminal is for us alone.
    ///
    /// # Errors
    /// In words.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let file = |error: std::io::Error| format!("{}: {error}", log.display());
        let out = File::create(log).map_err(file)?;
        let errors = out.try_clone().map_err(file)?;
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        let child = command.process_group(0).spawn();
        Ok(Self {
            child: child.map_err(|error| format!("{program}: {error}"))?,
            log: log.to_owned(),
            end: Signal::TERM,
        })
    }

    /// It ends in order with this signal, not with SIGTERM.
    #[must_use]
    pub fn ended_by(mut self, end: Signal) -> Self {
        self.end = end;
        self
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nothing, while it runs.
    ///
    /// # Errors
    /// That it ended, and the last that it printed.
    pub fn lives(&mut self) -> Result<(), String> {
        let ended = self.child.try_wait().map_err(|error| error.to_string())?;
        let Some(status) = ended else {
            return Ok(());
        };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST)..];
        Err(format!("it ended ({status}): {}", last.join(" | ")))
    }

    /// Ends it in order, or kills it when that takes too long.
    pub async fn stop(mut self) {
        if signal(self.pid(), self.end).is_ok() {
            let ended = until("its end", END, async || match self.lives() {
                Ok(()) => Err("it still runs".to_owned()),
                Err(_) => Ok(()),
            });
            drop(ended.await);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.lives().is_err() {
            return;
        }
        // What it started first: afterwards nobody knows whose they were.
        for pid in procs::tree(self.pid()) {
            drop(signal(pid, Signal::KILL));
        }
        drop(self.child.wait());
    }
}

/// Signals a process.
///
/// # Errors
/// In words.
pub fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let sent = kill_process(pid.ok_or("no process id")?, signal);
    sent.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, folder: &Path) -> Server {
        let mut command = Command::new("/bin/sh");
        Server::start(command.args(["-c", text]), &folder.join("log")).expect("it starts")
    }

    fn runs(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn what_ended_by_itself_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = shell("echo too bad; exit 3", folder.path());
        let ended = until("its end", END, async || match server.lives() {
            Ok(()) => Err(String::new()),
            Err(why) => Ok(why),
        });
        let why = ended.await.unwrap();
        assert!(why.contains("3") && why.ends_with("too bad"), "{why}");
    }

    #[tokio::test]
    async fn what_is_dropped_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let server = shell("sleep 300 & wait", folder.path());
        let tree = until("its child", END, async || {
            let tree = procs::tree(server.pid());
            (tree.len() == 2).then_some(tree).ok_or_else(String::new)
        });
        let tree = tree.await.unwrap();
        drop(server);
        let gone = until("their end", END, async || {
            (!tree.iter().any(|pid| ended_not(*pid)))
                .then_some(())
                .ok_or_else(String::new)
        });
        gone.await.unwrap();
    }

    /// An orphan stays a zombie until the first process looks after it.
    fn ended_not(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn what_is_stopped_ends_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let server = shell(
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
            folder.path(),
        );
        let pid = server.pid();
        until("its start", END, async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains("up").then_some(()).ok_or_else(String::new)
        })
        .await
        .unwrap();
        server.stop().await;
        assert!(!runs(pid));
        assert!(std::fs::read_to_string(&log).unwrap().ends_with("bye\n"));
    }
}
