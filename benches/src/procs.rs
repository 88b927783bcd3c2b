//! What servers cost: processor time and memory of process trees, from `/proc`.
//!
//! A tree counts as a whole: who forks a process for each connection, as PostgreSQL does, pays for all of them. Time of children that have
//! ended counts when their parent has waited for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// Processor time and memory of some processes and all that descend from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in user and in kernel mode.
    pub cpu: Duration,
    /// Bytes that are resident, of all of them together; what they share is counted for each.
    pub memory: u64,
    /// How many processes.
    pub processes: usize,
}

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    pages: u64,
}

impl Stat {
    /// The command's name stands in parentheses and may hold anything: fields are counted from the last one.
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            // User, kernel, and the same of the children that were waited for.
            ticks: number(11)? + number(12)? + number(13)? + number(14)?,
            pages: number(21)?,
        })
    }
}

/// The usage of these processes, and of all below them, until now.
#[must_use]
pub fn usage(roots: &[u32]) -> Usage {
    of(&all(), roots)
}

/// A process and all below it.
#[must_use]
pub fn tree(root: u32) -> Vec<u32> {
    below(&all(), &[root]).into_iter().collect()
}

/// For how long programs have run on all of the machine's processors together.
#[must_use]
pub fn busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    tick() * u32::try_from(busy_ticks(&text)).unwrap_or(u32::MAX)
}

/// User, nice and system of the line for all processors. Interrupts belong to nobody.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let fields = line.unwrap_or_default().split_ascii_whitespace().take(3);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn tick() -> Duration {
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second());
    Duration::from_secs(1) / ticks.unwrap_or(100).max(1)
}

fn all() -> BTreeMap<u32, Stat> {
    let mut stats: BTreeMap<u32, Stat> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat"));
        if let Some(stat) = stat.ok().and_then(|text| Stat::read(&text)) {
            stats.insert(pid, stat);
        }
    }
    stats
}

fn below(stats: &BTreeMap<u32, Stat>, roots: &[u32]) -> BTreeSet<u32> {
    let mut tree: BTreeSet<u32> = BTreeSet::new();
    let mut next: Vec<u32> = roots.to_vec();
    while let Some(pid) = next.pop() {
        if stats.contains_key(&pid) && tree.insert(pid) {
            let children = stats.iter().filter(|(_, stat)| stat.parent == pid);
            next.extend(children.map(|(child, _)| *child));
        }
    }
    tree
}

fn of(stats: &BTreeMap<u32, Stat>, roots: &[u32]) -> Usage {
    let tree = below(stats, roots);
    let tick = tick();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut usage = Usage {
        processes: tree.len(),
        ..Usage::default()
    };
    for stat in tree.iter().filter_map(|pid| stats.get(pid)) {
        usage.cpu += tick * u32::try_from(stat.ticks).unwrap_or(u32::MAX);
        usage.memory += stat.pages * page;
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_command_is_called() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 5 0 123 1000 77 18446744073709551615";
        let stat = Stat::read(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                parent: 7,
                ticks: 124,
                pages: 77
            }
        );
        assert_eq!(Stat::read("42 (a) S 7"), None);
    }

    #[test]
    fn a_tree_is_its_root_and_all_below_it_once() {
        let stat = |parent, ticks| Stat {
            parent,
            ticks,
            pages: 1,
        };
        let stats = BTreeMap::from([
            (1, stat(0, 1)),
            (2, stat(1, 10)),
            (3, stat(2, 100)),
            (4, stat(0, 1000)),
        ]);
        let whole = of(&stats, &[1, 2, 9]);
        assert_eq!(whole.processes, 3);
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        assert_eq!(whole.cpu.as_millis(), u128::from(111 * tick));
    }

    #[test]
    fn the_machine_is_busy_with_programs() {
        let stat = "cpu  100 20 3 5000 70 8 9 0 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), 123);
        assert_eq!(busy_ticks("intr 7"), 0);
        assert!(busy() > Duration::ZERO);
    }

    #[test]
    fn this_process_uses_something() {
        let own = usage(&[std::process::id()]);
        assert!(own.memory > 0 && own.processes >= 1);
    }
}
