//! Too little of something: processor time, writes a second. By control groups of version 1.

use super::group::Group;
use super::{Fault, Injected};
use crate::rig::Rig;

/// A process that gets only a share of one processor.
#[derive(Clone, Debug)]
pub struct SlowProcessor {
    node: usize,
    percent: u32,
    group: Option<Group>,
}

impl SlowProcessor {
    /// So many percent of one processor for this node.
    #[must_use]
    pub const fn new(node: usize, percent: u32) -> Self {
        Self {
            node,
            percent,
            group: None,
        }
    }
}

impl Fault for SlowProcessor {
    fn label(&self) -> String {
        format!("node {} has {} % of a processor", self.node, self.percent)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        let joined = Group::join("cpu", &rig.name(self.node), rig.pid(self.node));
        let group = match joined {
            Ok(group) => group,
            Err(why) => return Injected::Skipped(why),
        };
        // Of a period of 100 ms, in microseconds.
        let limited = group
            .write("cpu.cfs_period_us", "100000")
            .and_then(|()| group.write("cpu.cfs_quota_us", &(self.percent * 1000).to_string()));
        self.group = Some(group);
        Injected::of(limited)
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        let Some(group) = &self.group else {
            return Injected::Skipped("not injected".to_owned());
        };
        match group.number("cpu.stat", "nr_throttled") {
            Ok(0) => Injected::Indeterminate("it was never throttled".to_owned()),
            Ok(_) => Injected::Installed,
            Err(why) => Injected::Indeterminate(why),
        }
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        let left = self.group.take().map_or(Ok(()), Group::leave);
        Injected::of(left)
    }
}

/// A disk that takes only so many writes a second.
#[derive(Clone, Debug)]
pub struct SlowDisk {
    node: usize,
    writes: u32,
    device: String,
    group: Option<Group>,
}

impl SlowDisk {
    /// So many writes a second for this node.
    #[must_use]
    pub const fn new(node: usize, writes: u32) -> Self {
        Self {
            node,
            writes,
            device: String::new(),
            group: None,
        }
    }
}

impl Fault for SlowDisk {
    fn label(&self) -> String {
        format!("node {} has {} writes a second", self.node, self.writes)
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        let device = match rig.disk(self.node).device().and_then(|path| numbers(&path)) {
            Ok(device) => device,
            Err(why) => return Injected::Skipped(why),
        };
        let joined = Group::join("blkio", &rig.name(self.node), rig.pid(self.node));
        let group = match joined {
            Ok(group) => group,
            Err(why) => return Injected::Skipped(why),
        };
        let limit = format!("{device} {}", self.writes);
        let limited = group.write("blkio.throttle.write_iops_device", &limit);
        self.group = Some(group);
        self.device = device;
        Injected::of(limited)
    }

    fn met(&mut self, _rig: &Rig) -> Injected {
        let Some(group) = &self.group else {
            return Injected::Skipped("not injected".to_owned());
        };
        let name = format!("{} Write", self.device);
        let served = match group.read("blkio.throttle.io_serviced") {
            Ok(served) => served,
            Err(why) => return Injected::Indeterminate(why),
        };
        let mut lines = served.lines().filter_map(|line| line.strip_prefix(&name));
        let writes = lines.next().map_or("0", str::trim);
        Injected::when(writes != "0", || "no write was counted".to_owned())
    }

    fn heal(&mut self, _rig: &Rig) -> Injected {
        let Some(group) = self.group.take() else {
            return Injected::Installed;
        };
        // Nothing waits for the limit any more when the process leaves.
        let unlimited = group.write(
            "blkio.throttle.write_iops_device",
            &format!("{} 0", self.device),
        );
        Injected::of(unlimited.and_then(|()| group.leave()))
    }
}

/// The numbers of a block device, as in `7:3`.
fn numbers(path: &str) -> Result<String, String> {
    let stat = rustix::fs::stat(path).map_err(|error| format!("no device {path}: {error}"))?;
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    Ok(format!("{major}:{minor}"))
}
