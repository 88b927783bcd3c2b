//! Faults of disks: syncs that fail, wait or lie; no room; rot; an empty or an old disk.
//!
//! Syncs are caught by `strace`, attached to the node's threads that write its disk while the fault is there. Only those, because
//! each system call of a traced thread costs two stops.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, Injected};
use crate::rig::Rig;
use crate::rig::command::{text, until};
use crate::rig::image;

/// How long strace may take to attach or to let go.
const ATTACHES: Duration = Duration::from_secs(5);

/// What happens to a call that asks for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The first that comes fails with EIO, later ones are true.
    FailsOnce,
    /// Each one fails with EIO.
    Fails,
    /// Each one takes this much longer.
    Waits(Duration),
    /// Each one says that it is done, and does nothing.
    Lies,
}

impl Sync {
    fn inject(self) -> String {
        let what = match self {
            Self::FailsOnce => "error=EIO:when=1".to_owned(),
            Self::Fails => "error=EIO".to_owned(),
            Self::Waits(time) => format!("delay_enter={}us", time.as_micros()),
            Self::Lies => "retval=0".to_owned(),
        };
        format!("inject={CALLS}:{what}")
    }
}

/// The calls that ask for a sync.
const CALLS: &str = "fdatasync,fsync";

/// A node whose syncs do not do what they should.
#[derive(Debug)]
pub struct BadSync {
    node: usize,
    what: Sync,
    tracer: Option<Child>,
    record: PathBuf,
}

impl BadSync {
    /// This, for this node.
    #[must_use]
    pub fn new(node: usize, what: Sync) -> Self {
        Self {
            node,
            what,
            tracer: None,
            record: PathBuf::new(),
        }
    }

    /// How many calls met it.
    #[must_use]
    pub fn hits(&self) -> usize {
        let record = std::fs::read_to_string(&self.record).unwrap_or_default();
        let hit = |line: &&str| line.contains("(INJECTED)") || line.contains("(DELAYED)");
        record.lines().filter(hit).count()
    }

    fn attach(&mut self, rig: &Rig) -> Result<(), String> {
        let pid = rig.pid(self.node);
        let threads = self.threads(pid);
        if threads.is_empty() {
            return Err(format!("node {} has no thread that writes", self.node));
        }
        self.record = rig.folder().join(format!("strace-{}", rig.name(self.node)));
        drop(std::fs::remove_file(&self.record));
        let said = std::fs::File::create(self.record.with_extension("err"))
            .map_err(|error| format!("no file for strace: {error}"))?;
        // Threads that a traced one starts are followed.
        let tracer = Command::new("strace")
            .arg("-f")
            .args(["-e", &format!("trace={CALLS}"), "-e", &self.what.inject()])
            .args(["-o", text(&self.record)])
            .args(
                threads
                    .iter()
                    .flat_map(|thread| ["-p".to_owned(), thread.to_string()]),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(|error| format!("cannot run strace: {error}"))?;
        let expected = tracer.id().to_string();
        self.tracer = Some(tracer);
        let attached = until(ATTACHES, || {
            // A thread whose sync failed may be gone already.
            let mut there = threads
                .iter()
                .filter_map(|thread| tracer_of(pid, *thread))
                .peekable();
            (there.peek().is_some() || self.hits() > 0) && there.all(|tracer| tracer == expected)
        });
        if attached {
            return Ok(());
        }
        let said = std::fs::read_to_string(self.record.with_extension("err"));
        Err(format!("strace is not attached: {said:?}"))
    }

    /// Whom strace watches. A lie must be complete to be believed after a power cut, so it is told to all threads.
    fn threads(&self, pid: i32) -> Vec<i32> {
        let all = tasks(pid);
        if self.what == Sync::Lies {
            return all;
        }
        all.into_iter()
            .filter(|thread| writes(pid, *thread))
            .collect()
    }

    fn detach(&mut self) -> Result<(), String> {
        let Some(mut tracer) = self.tracer.take() else {
            return Ok(());
        };
        let pid = i32::try_from(tracer.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Ok(None)) = (pid, tracer.try_wait()) {
            // Asked to end, it lets its threads go on; killed, so does the kernel.
            kill_process(pid, Signal::INT)
                .map_err(|error| format!("no signal to strace: {error}"))?;
        }
        if until(ATTACHES, || matches!(tracer.try_wait(), Ok(Some(_)))) {
            return Ok(());
        }
        drop(tracer.kill());
        drop(tracer.wait());
        Err("strace had to be killed".to_owned())
    }
}

impl Fault for BadSync {
    fn label(&self) -> String {
        let what = match self.what {
            Sync::FailsOnce => "fail once".to_owned(),
            Sync::Fails => "fail".to_owned(),
            Sync::Waits(time) => format!("take {time:?} more"),
            Sync::Lies => "lie".to_owned(),
        };
        format!("node {}'s syncs {what}", self.node)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        Injected::of(self.detach().and_then(|()| self.attach(rig)))
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        Injected::when(self.hits() > 0, || {
            format!("{}: no call met it", self.label())
        })
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        Injected::of(self.detach())
    }
}

impl Drop for BadSync {
    fn drop(&mut self) {
        drop(self.detach());
    }
}

/// The threads of a process.
fn tasks(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether it is a thread that does nothing but write a node's disk: the log's writer, or one of RocksDB's.
fn writes(pid: i32, thread: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm"));
    name.is_ok_and(|name| name.starts_with("log-writer") || name.starts_with("rocksdb"))
}

/// Who traces a thread.
fn tracer_of(pid: i32, thread: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    Some(line.trim().to_owned())
}

/// Bytes that may be free on a disk that was just filled, on top of what is left: the file system's own blocks.
const ON_TOP: u64 = 1 << 20;
/// The same later: the node itself gives back files that it has replaced.
const GIVEN_BACK: u64 = 16 << 20;

/// A disk with no more room than `leave` bytes. Healed by giving the room back.
#[derive(Clone, Debug)]
pub struct Full {
    /// Which node's.
    pub node: usize,
    /// Bytes that stay free.
    pub leave: u64,
}

impl Full {
    fn is_there(&self, rig: &Rig, on_top: u64) -> Injected {
        match rig.disk(self.node).free() {
            Ok(free) => Injected::when(free <= self.leave.saturating_add(on_top), || {
                format!("{free} bytes are free")
            }),
            Err(why) => Injected::Indeterminate(why),
        }
    }
}

impl Fault for Full {
    fn label(&self) -> String {
        format!("node {}'s disk has {} bytes left", self.node, self.leave)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        Injected::of(rig.disk(self.node).fill(self.leave)).and(self.is_there(rig, ON_TOP))
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        self.is_there(rig, GIVEN_BACK)
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        Injected::of(rig.disk(self.node).free_ballast())
    }
}

/// One flipped byte in a file of a node that does not run. It is not healed: the product is to.
#[derive(Clone, Debug)]
pub struct Rot {
    /// Which node's.
    pub node: usize,
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
}

impl Fault for Rot {
    fn label(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        format!(
            "node {}'s {} is flipped at {}",
            self.node,
            name.display(),
            self.offset
        )
    }

    fn inject(&mut self, _rig: &Rig) -> Injected {
        Injected::of(image::flip(&self.file, self.offset))
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }
}

/// An empty disk in place of a node's; the node is killed for it and started again. Not healed: its replicas are elsewhere.
#[derive(Clone, Debug)]
pub struct Wiped(pub usize);

impl Fault for Wiped {
    fn label(&self) -> String {
        format!("node {}'s disk is empty", self.0)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        rig.kill(self.0);
        let wiped = rig.disk(self.0).wipe();
        rig.begin(self.0);
        Injected::of(wiped)
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }
}

/// A disk as it was when it was [saved](crate::rig::image::Image::save); the node is killed for it and started again. Not healed.
#[derive(Clone, Debug)]
pub struct OldDisk {
    /// Which node's.
    pub node: usize,
    /// The name under which it was saved.
    pub saved: String,
}

impl Fault for OldDisk {
    fn label(&self) -> String {
        format!("node {}'s disk is an old one", self.node)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        rig.kill(self.node);
        let restored = rig.disk(self.node).restore(&self.saved);
        rig.begin(self.node);
        Injected::of(restored)
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        Injected::Installed
    }
}
