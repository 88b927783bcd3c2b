//! A table for a person to read, and the pictures of its columns.

use std::fmt::Write as _;
use std::path::Path;

use super::grid::{Along, Kind, Measured};
use super::picture::{Axes, Line, chart};

/// The table, as Markdown.
#[must_use]
pub fn table(all: &[Measured]) -> String {
    let mut out = String::from(
        "| | clients | size | a second | p50 ms | p99 ms | CPU s for 1,000 | failed |\n|---|---|---|---|---|---|---|---|\n",
    );
    for one in all {
        let line = format!(
            "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.3} | {} |\n",
            one.kind.name(),
            one.clients,
            size(one.bytes),
            one.per_second,
            one.p50,
            one.p99,
            one.cpu,
            one.failed
        );
        out.push_str(&line);
    }
    out
}

fn size(bytes: usize) -> String {
    let mut out = String::new();
    let written = if bytes < 1 << 20 {
        write!(out, "{} KiB", bytes >> 10)
    } else {
        write!(out, "{} MiB", bytes >> 20)
    };
    written.map_or_else(|_| String::new(), |()| out)
}

/// Draws the pictures into a folder; their names.
///
/// # Errors
/// In words.
pub fn pictures(all: &[Measured], folder: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for (along, x, over) in [
        (Along::Clients, "clients", "over clients, 4 KiB"),
        (Along::Size, "bytes of a session", "over size, 16 clients"),
    ] {
        let of = |value: fn(&Measured) -> f64, what: &str| lines(all, along, value, what);
        let latency = [of(|it| it.p50, ", p50"), of(|it| it.p99, ", p99")].concat();
        for (name, y, lines) in [
            (
                "throughput",
                "requests a second",
                of(|it| it.per_second, ""),
            ),
            ("latency", "milliseconds", latency),
            ("cpu", "processor seconds for 1,000", of(|it| it.cpu, "")),
        ] {
            let title = format!("{name} {over}");
            let text = chart(
                &Axes {
                    title: &title,
                    x,
                    y,
                },
                &lines,
            )?;
            let file = format!("{name}-{}.svg", x.split(' ').next().unwrap_or(x));
            let path = folder.join(&file);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            names.push(file);
        }
    }
    Ok(names)
}

/// A line for each kind that was measured there.
fn lines(all: &[Measured], along: Along, value: fn(&Measured) -> f64, what: &str) -> Vec<Line> {
    let of = |kind: Kind| {
        // What failed altogether has no place on a logarithmic axis.
        let here = all
            .iter()
            .filter(|it| it.along == along && it.kind == kind && value(it) > 0.0);
        let points = here.map(|it| {
            let x = match along {
                Along::Clients => it.clients,
                Along::Size => it.bytes,
            };
            (f64::from(u32::try_from(x).unwrap_or(u32::MAX)), value(it))
        });
        Line {
            name: format!("{}{what}", kind.name()),
            points: points.collect(),
        }
    };
    let lines = Kind::ALL.map(of);
    lines
        .into_iter()
        .filter(|it| !it.points.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(kind: Kind, clients: usize) -> Measured {
        Measured {
            along: Along::Clients,
            kind,
            clients,
            bytes: 4096,
            per_second: 1000.0,
            p50: 1.0,
            p99: 2.5,
            cpu: 0.25,
            failed: 0,
        }
    }

    #[test]
    fn a_row_for_each_point_and_a_line_for_each_kind() {
        let all = [
            measured(Kind::Writes, 1),
            measured(Kind::Writes, 64),
            measured(Kind::Reads, 1),
        ];
        let table = table(&all);
        assert!(table.contains("| writes | 64 | 4 KiB | 1000 | 1.00 | 2.50 | 0.250 | 0 |"));
        let lines = lines(&all, Along::Clients, |it| it.p99, ", p99");
        let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["writes, p99", "linearizable reads, p99"]);
        assert_eq!(lines[0].points, [(1.0, 2.5), (64.0, 2.5)]);
        assert_eq!(size(4 << 20), "4 MiB");
    }
}
