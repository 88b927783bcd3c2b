//! What a machine must have for a rig. What is missing is said in words, and never skipped over.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use super::process::faketime_library;

/// Tools that are run, and the Debian packages that have them.
const TOOLS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("findmnt", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("xfs_io", "xfsprogs"),
    ("strace", "strace"),
    ("cp", "coreutils"),
];

/// Checks everything at once.
pub(super) fn check(clocks: bool) -> Result<(), String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root (namespaces, mounts and devices need it)".to_owned());
    }
    for device in ["/dev/net/tun", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            missing.push(device.to_owned());
        }
    }
    for (tool, package) in TOOLS {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        if !folders
            .iter()
            .any(|folder| Path::new(folder).join(tool).exists())
        {
            missing.push(format!("{tool} (package {package})"));
        }
    }
    if clocks && faketime_library().is_none() {
        missing.push("libfaketimeMT.so.1 (package faketime)".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this machine cannot run the scenarios; missing: {}. `.ci/setup chaos` installs the packages",
        missing.join(", ")
    ))
}

/// Seconds since 1970, for certificates.
pub(super) fn seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}
