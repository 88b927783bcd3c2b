//! Tables for a person to read, the exponent of each column, and pictures.
//!
//! The exponent is the slope of a line through the points over two logarithmic axes: 0 is flat, 1 grows as the size does.

use std::path::Path;

use super::stage::Stage;
use crate::alone::picture::{Axes, Line, chart};

/// Along what it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// More and more sessions.
    Sessions,
    /// More and more shards.
    Shards,
}

struct Column {
    name: &'static str,
    file: &'static str,
    digits: usize,
    value: fn(&Stage) -> Option<f64>,
}

const fn column(
    name: &'static str,
    file: &'static str,
    digits: usize,
    value: fn(&Stage) -> Option<f64>,
) -> Column {
    Column {
        name,
        file,
        digits,
        value,
    }
}

const COLUMNS: [Column; 13] = [
    column("created/s", "created", 0, |it| Some(it.created)),
    column("writes/s", "writes", 0, |it| Some(it.writes)),
    column("p50 ms of a write", "write-p50", 2, |it| Some(it.write_p50)),
    column("CPU s for 1,000 writes", "write-cpu", 3, |it| {
        Some(it.write_cpu)
    }),
    column("reads/s", "reads", 0, |it| Some(it.reads)),
    column("p50 ms of a read", "read-p50", 2, |it| Some(it.read_p50)),
    column("MiB of a node", "memory", 0, |it| {
        Some(float(it.memory) / 1048576.0)
    }),
    column("idle processors", "idle", 3, |it| Some(it.idle)),
    column("disk/user bytes", "disk", 2, |it| {
        Some(float(it.disk) / float(it.user.max(1)))
    }),
    column("the same, compacted", "compacted", 2, |it| {
        it.compacted
            .map(|bytes| float(bytes) / float(it.user.max(1)))
    }),
    column("compaction s", "compaction", 1, |it| it.compaction),
    column("start s", "start", 2, |it| Some(it.start)),
    column("rebuild s", "rebuild", 1, |it| it.rebuild),
];

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn size(along: Along, stage: &Stage) -> f64 {
    match along {
        Along::Sessions => float(u64::try_from(stage.sessions).unwrap_or(u64::MAX)),
        Along::Shards => f64::from(stage.shards),
    }
}

/// Points of a column, by size; what is zero has no place on a logarithmic axis.
fn points(along: Along, stages: &[Stage], column: &Column) -> Vec<(f64, f64)> {
    let of = |stage| Some((size(along, stage), (column.value)(stage)?));
    let points = stages.iter().filter_map(of);
    points.filter(|(_, value)| *value > 0.0).collect()
}

/// The slope of the line of least squares through the logarithms; none for fewer than two sizes.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let count = float(u64::try_from(points.len()).ok()?);
    let logs = || points.iter().map(|(x, y)| (x.ln(), y.ln()));
    let (x, y) = logs().fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let (x, y) = (x / count, y / count);
    let spread: f64 = logs().map(|it| (it.0 - x) * (it.0 - x)).sum();
    let common: f64 = logs().map(|it| (it.0 - x) * (it.1 - y)).sum();
    (spread > 1e-9).then(|| common / spread)
}

/// The table, as Markdown; the last line has the exponents.
#[must_use]
pub fn table(along: Along, stages: &[Stage]) -> String {
    let mut out = String::from("| nodes | shards | sessions |");
    for column in &COLUMNS {
        out.push_str(&format!(" {} |", column.name));
    }
    out.push_str("\n|---|---|---|");
    out.push_str(&"---|".repeat(COLUMNS.len()));
    for stage in stages {
        out.push_str(&format!(
            "\n| {} | {} | {} |",
            stage.nodes, stage.shards, stage.sessions
        ));
        for column in &COLUMNS {
            let value = (column.value)(stage);
            let text = value.map_or_else(|| "-".to_owned(), |it| format!("{it:.*}", column.digits));
            out.push_str(&format!(" {text} |"));
        }
    }
    out.push_str("\n| exponent | | |");
    for column in &COLUMNS {
        let exponent = exponent(&points(along, stages, column));
        let text = exponent.map_or_else(|| "-".to_owned(), |it| format!("{it:+.2}"));
        out.push_str(&format!(" {text} |"));
    }
    out.push('\n');
    out
}

/// Draws a picture of each column into a folder; their names.
///
/// # Errors
/// In words.
pub fn pictures(along: Along, stages: &[Stage], folder: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let x = match along {
        Along::Sessions => "sessions",
        Along::Shards => "shards",
    };
    for column in &COLUMNS {
        let points = points(along, stages, column);
        let Some(exponent) = exponent(&points) else {
            continue;
        };
        let line = Line {
            name: format!("exponent {exponent:+.2}"),
            points,
        };
        let title = format!("{} over {x}", column.name);
        let axes = Axes {
            title: &title,
            x,
            y: column.name,
        };
        let name = format!("{}-{x}.svg", column.file);
        let path = folder.join(&name);
        std::fs::write(&path, chart(&axes, &[line])?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(sessions: usize, memory: u64) -> Stage {
        Stage {
            nodes: 1,
            shards: 6,
            sessions,
            created: 5000.0,
            writes: 6000.0,
            write_p50: 9.5,
            write_cpu: 0.25,
            reads: 40_000.0,
            read_p50: 1.5,
            memory,
            idle: 0.05,
            disk: u64::try_from(sessions).unwrap() * 2048,
            compacted: Some(u64::try_from(sessions).unwrap() * 1024),
            compaction: Some(2.0),
            user: u64::try_from(sessions).unwrap() * 4096,
            start: 0.5,
            rebuild: None,
        }
    }

    #[test]
    fn what_is_flat_has_exponent_zero_and_what_grows_with_it_one() {
        let flat = [(10.0, 3.0), (100.0, 3.0), (1000.0, 3.0)];
        assert!(exponent(&flat).unwrap().abs() < 1e-9);
        let square = [(10.0, 5.0), (100.0, 500.0), (1000.0, 50_000.0)];
        assert!((exponent(&square).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(exponent(&[(10.0, 3.0)]), None);
        assert_eq!(exponent(&[]), None);
    }

    #[test]
    fn a_table_has_a_line_for_each_size_and_the_exponents() {
        let stages = [stage(1000, 1 << 28), stage(10_000, 1 << 29)];
        let table = table(Along::Sessions, &stages);
        assert!(table.contains("| 1 | 6 | 10000 | 5000 | 6000 | 9.50 | 0.250 | 40000 | 1.50 | 512 | 0.050 | 0.50 | 0.25 | 2.0 | 0.50 | - |"));
        let last = table.lines().last().unwrap();
        assert!(last.starts_with("| exponent | | | +0.00 |"), "{last}");
        assert!(last.contains("+0.30") && last.ends_with("- |"), "{last}");
        let folder = tempfile::tempdir().unwrap();
        let names = pictures(Along::Sessions, &stages, folder.path()).unwrap();
        assert_eq!(names.len(), COLUMNS.len() - 1);
        assert!(folder.path().join("memory-sessions.svg").exists());
    }
}
