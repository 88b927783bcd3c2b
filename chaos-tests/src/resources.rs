//! What processes use, read from `/proc`.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes.
pub const MIB: u64 = 1 << 20;

/// Processor time, user and system, that a process has used.
///
/// # Panics
/// When the process does not live.
#[must_use]
pub fn processor_time(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(')').expect("a command's name");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory of a process in bytes: now (`VmRSS`) or at most (`VmHWM`).
///
/// # Panics
/// When the process does not live.
#[must_use]
pub fn memory(pid: i32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: u64 = kibibytes
        .and_then(|text| text.parse().ok())
        .expect("a figure");
    kibibytes * 1024
}

/// Lets this process, and those that it starts, open as many files as it may; returns how many.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_refused) => limit.current.unwrap_or(most),
    }
}
