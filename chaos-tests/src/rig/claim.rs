//! One number for each running rig, from which all its names come, and the cleaning up after owners that died.
//!
//! The number is held by a lock on `ROOT/X/lock`, which the kernel takes back when the process ends, however it ends.
//! Whoever gets the lock next knows that everything of that number is left over: mounts below the folder, namespaces,
//! processes in them, control groups. Nothing of another number is ever touched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::command::{run, text, until};

/// How many rigs a machine can have at once.
const NUMBERS: u8 = 200;

/// A number that is this rig's own, with its folder.
#[derive(Debug)]
pub struct Claim {
    number: u8,
    folder: PathBuf,
    kept: AtomicBool,
    _lock: File,
}

impl Claim {
    /// Takes a free number and cleans up what its last owner left.
    ///
    /// # Errors
    /// With a sentence, when all are taken, or what is left cannot be removed.
    pub fn take() -> Result<Self, String> {
        let root = std::env::temp_dir().join("psp-rig");
        let first = std::process::id() % u32::from(NUMBERS);
        for step in 0..u32::from(NUMBERS) {
            let number = u8::try_from((first + step) % u32::from(NUMBERS)).unwrap_or(0) + 1;
            let folder = root.join(number.to_string());
            let failed = |error| format!("cannot make {}: {error}", folder.display());
            fs::create_dir_all(&folder).map_err(failed)?;
            let lock = File::create(folder.join("lock")).map_err(failed)?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let claim = Self {
                    number,
                    folder,
                    kept: AtomicBool::new(false),
                    _lock: lock,
                };
                claim.clean(true)?;
                return Ok(claim);
            }
        }
        Err(format!("{NUMBERS} rigs run on this machine already"))
    }

    /// The number, from 1.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Files stay where they are, until the next owner of the number removes them.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The folder of everything that the rig keeps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of a node's namespace, device and control groups.
    #[must_use]
    pub fn node_name(&self, node: usize) -> String {
        format!("{}n{node}", self.prefix())
    }

    /// The name of the clients' device.
    #[must_use]
    pub fn client_name(&self) -> String {
        format!("{}c", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("psprig{}", self.number)
    }

    /// Removes everything of this number; the folder's files too, if asked to. An error says what stays.
    fn clean(&self, files: bool) -> Result<(), String> {
        self.end_processes();
        self.unmount()?;
        self.remove_namespaces();
        self.remove_groups();
        if files {
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                if entry.file_name() != "lock" {
                    remove(&entry.path());
                }
            }
        }
        Ok(())
    }

    fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}n", self.prefix());
        let listed = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    fn end_processes(&self) {
        let gone = until(Duration::from_secs(5), || {
            let namespaces = self.namespaces();
            let pids: Vec<i32> = namespaces
                .iter()
                .filter_map(|name| run("ip", &["netns", "pids", name]).ok())
                .flat_map(|pids| numbers(&pids))
                .collect();
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have ended meanwhile.
                kill_process(pid, Signal::KILL).unwrap_or(());
            }
            pids.is_empty()
        });
        // What cannot be killed keeps its mount busy, and that is reported.
        let _reported_later = gone;
    }

    /// Mount points below the folder.
    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
        points
            .filter(|point| Path::new(point).starts_with(&self.folder))
            .collect()
    }

    fn unmount(&self) -> Result<(), String> {
        let mut said = String::new();
        let done = until(Duration::from_secs(10), || {
            for point in self.mounts() {
                if let Err(error) = run("umount", &[&point]) {
                    said = error;
                }
            }
            self.mounts().is_empty()
        });
        if done {
            return Ok(());
        }
        Err(format!(
            "something stays mounted in {}: {said}",
            self.folder.display()
        ))
    }

    fn remove_namespaces(&self) {
        for name in self.namespaces() {
            drop(run("ip", &["netns", "del", &name]));
        }
        // Mostly gone with its owner.
        drop(run("ip", &["link", "del", &self.client_name()]));
    }

    fn remove_groups(&self) {
        let prefix = format!("{}n", self.prefix());
        for controller in ["cpu", "blkio", "freezer"] {
            let folder = Path::new("/sys/fs/cgroup").join(controller);
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_str().is_some_and(|name| name.starts_with(&prefix)) {
                    drop(fs::remove_dir(entry.path()));
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The logs of a run that failed are for whoever looks into it; the next owner of the number removes them. What
        // cannot be removed now is removed then, too.
        let kept = std::thread::panicking() || self.kept.load(Ordering::Relaxed);
        drop(self.clean(!kept));
    }
}

/// The numbers in a text, such as process ids.
fn numbers(text: &str) -> Vec<i32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn remove(path: &Path) {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    if let Err(error) = removed {
        // It costs room, and harms no run: names are made anew each time.
        drop(run("logger", &[&format!("{}: {error}", text(path))]));
    }
}
