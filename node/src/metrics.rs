//! The metrics registry of the process, and what is known of the process itself.
//!
//! One recorder, installed once; the crates declare their own metrics in their `metrics.rs`. The text is made when it is
//! asked for; [`Registry::upkeep`] must run now and then, or histograms grow.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use model::time::{Clock, UnixMillis};

use crate::exit::{Exit, OrProblem as _, Problem};

/// Names of the metrics that this crate makes; `node/tests/tidy.rs` checks alerts and dashboards against them.
pub const NAMES: [&str; 8] = [
    "pspd_build_info",
    "pspd_allocated_bytes",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_threads",
    "process_start_time_seconds",
];

/// How often [`Registry::upkeep`] is to run.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// Buckets of every histogram in seconds: fine around a synced write, coarse to a minute.
const SECONDS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0, 60.0,
];

/// Clock ticks in a second in `/proc`: fixed by the kernel's interface to programs.
const TICKS: u64 = 100;

static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Registry {
    handle: PrometheusHandle,
    started: UnixMillis,
}

impl Registry {
    /// Installs the recorder, the first time; later calls get the same one.
    ///
    /// # Errors
    /// When something else installed a recorder.
    pub fn install(clock: &dyn Clock) -> Result<Self, Problem> {
        let handle = match INSTALLED.get() {
            Some(handle) => handle.clone(),
            None => PrometheusBuilder::new()
                .set_buckets(&SECONDS)
                .and_then(PrometheusBuilder::install_recorder)
                .or_problem(Exit::Failed, || {
                    "cannot install the metrics recorder".to_owned()
                })?,
        };
        let handle = INSTALLED.get_or_init(|| handle).clone();
        Ok(Self {
            handle,
            started: clock.now(),
        })
    }

    /// Moves samples out of buffers.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.handle.render();
        Sample::take().write(&mut text, self.started);
        text
    }
}

/// What the kernel and the allocator say of this process. What cannot be read is zero.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    resident: u64,
    virtual_size: u64,
    cpu_millis: u64,
    fds: u64,
    threads: u64,
    allocated: u64,
}

impl Sample {
    fn take() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fds = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        tikv_jemalloc_ctl::epoch::advance().unwrap_or(0);
        let allocated = tikv_jemalloc_ctl::stats::allocated::read().unwrap_or(0);
        Self {
            resident: kib(&status, "VmRSS:") * 1024,
            virtual_size: kib(&status, "VmSize:") * 1024,
            threads: kib(&status, "Threads:"),
            cpu_millis: cpu_millis(&stat).unwrap_or(0),
            fds: u64::try_from(fds).unwrap_or(u64::MAX),
            allocated: u64::try_from(allocated).unwrap_or(u64::MAX),
        }
    }

    fn write(self, text: &mut String, started: UnixMillis) {
        let seconds = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        let rows = [
            (
                "pspd_build_info",
                "gauge",
                "Always 1; the label says what.",
                "1".to_owned(),
            ),
            (
                "pspd_allocated_bytes",
                "gauge",
                "Allocated by Rust code.",
                self.allocated.to_string(),
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory.",
                self.resident.to_string(),
            ),
            (
                "process_virtual_memory_bytes",
                "gauge",
                "Virtual memory.",
                self.virtual_size.to_string(),
            ),
            (
                "process_cpu_seconds_total",
                "counter",
                "Processor time.",
                seconds(self.cpu_millis),
            ),
            (
                "process_open_fds",
                "gauge",
                "Open file descriptors.",
                self.fds.to_string(),
            ),
            (
                "process_threads",
                "gauge",
                "Threads.",
                self.threads.to_string(),
            ),
            (
                "process_start_time_seconds",
                "gauge",
                "Start, since 1970.",
                seconds(started.0),
            ),
        ];
        for (name, kind, help, value) in rows {
            let labels = if name == "pspd_build_info" {
                version
            } else {
                ""
            };
            let row =
                format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
            text.push_str(&row);
        }
    }
}

/// The number after a name in `/proc/self/status`.
fn kib(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// User and system time. The command's name may hold spaces, so fields count from the last parenthesis.
fn cpu_millis(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn every_named_metric_is_in_the_text_with_a_value() {
        let registry = Registry::install(&SystemClock).unwrap();
        let text = registry.text();
        for name in NAMES {
            let value = text
                .lines()
                .find(|line| line.starts_with(name) && !line.starts_with('#'))
                .and_then(|line| line.rsplit(' ').next());
            assert!(value.is_some(), "{name}");
        }
        assert!(Sample::take().resident > 0);
        assert!(Sample::take().threads > 0);
    }

    #[test]
    fn processor_time_is_read_after_a_name_with_spaces() {
        let stat = "1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0";
        assert_eq!(cpu_millis(stat), Some(2000));
    }
}
