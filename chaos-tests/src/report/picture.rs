//! The timeline of a run as SVG: faults, leaders of each shard, nodes, latency of each operation, throughput, memory.
//!
//! All panels share one axis of time, and faults shade all of them. Failures are always drawn; of successes at most
//! [`MOST_DOTS`], evenly chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::{Page, escape, push};
use crate::history::{End, Operation};
use crate::scenario::Mark;

/// Successes drawn as dots.
const MOST_DOTS: usize = 5000;
const WIDTH: f64 = 1240.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 12.0;
const LANE: f64 = 16.0;
const GAP: f64 = 26.0;
/// Buckets of throughput and percentiles over the whole run.
const BUCKETS: usize = 150;
const COLORS: [&str; 7] = [
    "#3566b8", "#d98327", "#3a9270", "#9a5fb5", "#b8506b", "#6f7d2c", "#4a4a4a",
];
const OK: &str = "#4a7fc1";
const FAIL: &str = "#c62828";
const UNKNOWN: &str = "#e69a00";
/// Latencies at the bottom and at the top of their panel, in microseconds.
const LATENCY: (f64, f64) = (300.0, 20_000_000.0);

struct Canvas {
    out: String,
    y: f64,
    end: f64,
}

impl Canvas {
    fn x(&self, at: u64) -> f64 {
        LEFT + at as f64 / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn rect(&mut self, (from, to): (u64, u64), (y, height): (f64, f64), style: &str) {
        let x = self.x(from);
        let width = (self.x(to) - x).max(1.0);
        push(
            &mut self.out,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {style}/>"
            ),
        );
    }

    fn label(&mut self, y: f64, text: &str) {
        let x = LEFT - 8.0;
        let text = escape(text);
        push(
            &mut self.out,
            format_args!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>"),
        );
    }

    fn title(&mut self, text: &str) {
        self.y += GAP;
        let y = self.y - 6.0;
        push(
            &mut self.out,
            format_args!(
                "<text x=\"{LEFT}\" y=\"{y:.1}\" font-weight=\"600\" fill=\"#56606e\">{}</text>",
                escape(text)
            ),
        );
    }
}

/// The picture.
#[must_use]
pub fn draw(page: &Page<'_>) -> String {
    let ends = page.operations.iter().map(|it| it.end);
    let ends = ends.chain(page.samples.iter().map(|it| it.at));
    let ends = ends.chain(page.marks.iter().map(|it| it.to.unwrap_or(it.from)));
    let end = ends.max().unwrap_or(1).max(1);
    let mut canvas = Canvas {
        out: String::new(),
        y: 0.0,
        end: end as f64 * 1.005,
    };
    marks(&mut canvas, page.marks, end);
    leaders(&mut canvas, page);
    nodes(&mut canvas, page);
    latency(&mut canvas, page.operations);
    throughput(&mut canvas, page.operations);
    memory(&mut canvas, page);
    axis(&mut canvas, end);
    let height = canvas.y + 8.0;
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" xmlns=\"http://www.w3.org/2000/svg\">");
    // Faults shade everything, below what is drawn.
    for mark in page.marks.iter().filter(|mark| mark.is_fault) {
        let (from, to) = (canvas.x(mark.from), canvas.x(mark.to.unwrap_or(mark.from)));
        let width = (to - from).max(1.0);
        push(
            &mut out,
            format_args!(
                "<rect x=\"{from:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height:.0}\" fill=\"#c62828\" opacity=\"0.07\"/>"
            ),
        );
    }
    out.push_str(&canvas.out);
    out.push_str("</svg>");
    out
}

fn marks(canvas: &mut Canvas, marks: &[Mark], end: u64) {
    canvas.title("faults and marks");
    let mut lanes: Vec<&str> = Vec::new();
    for mark in marks {
        if !lanes.contains(&mark.label.as_str()) {
            lanes.push(&mark.label);
        }
    }
    for (lane, label) in lanes.iter().enumerate() {
        let y = canvas.y + lane as f64 * LANE;
        canvas.label(y + 11.0, label);
        for mark in marks.iter().filter(|mark| mark.label == **label) {
            let fill = match (&mark.doubt, mark.is_fault) {
                (Some(_), _) => "#b0b0b0",
                (None, true) => FAIL,
                (None, false) => "#56606e",
            };
            let to = mark.to.unwrap_or_else(|| mark.from + end / 400);
            let style = format!("fill=\"{fill}\" rx=\"2\"");
            canvas.rect((mark.from, to), (y + 2.0, LANE - 5.0), &style);
            if let Some(doubt) = &mark.doubt {
                let x = canvas.x(to) + 4.0;
                let y = y + 11.0;
                push(
                    &mut canvas.out,
                    format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(doubt)),
                );
            }
        }
    }
    canvas.y += lanes.len() as f64 * LANE;
}

fn leaders(canvas: &mut Canvas, page: &Page<'_>) {
    let groups: BTreeSet<&String> = page
        .samples
        .iter()
        .flat_map(|it| it.leaders.keys())
        .collect();
    if groups.is_empty() {
        return;
    }
    canvas.title("leader of each group (one color for each node; a line where the term changes)");
    for (lane, group) in groups.into_iter().enumerate() {
        let y = canvas.y + lane as f64 * LANE;
        canvas.label(y + 11.0, group);
        let mut run: Option<(u64, usize, u64)> = None;
        for sample in page.samples {
            let now = sample.leaders.get(group).copied();
            let same =
                matches!((run, now), (Some((_, node, term)), Some(next)) if (node, term) == next);
            if !same {
                if let Some((from, node, _)) = run {
                    leads(canvas, (from, sample.at), y, node);
                }
                run = now.map(|(node, term)| (sample.at, node, term));
            }
        }
        if let (Some((from, node, _)), Some(last)) = (run, page.samples.last()) {
            leads(canvas, (from, last.at), y, node);
        }
    }
    let groups: BTreeSet<&String> = page
        .samples
        .iter()
        .flat_map(|it| it.leaders.keys())
        .collect();
    canvas.y += groups.len() as f64 * LANE;
}

fn leads(canvas: &mut Canvas, time: (u64, u64), y: f64, node: usize) {
    let color = COLORS[node % COLORS.len()];
    let style = format!("fill=\"{color}\" stroke=\"#fff\" stroke-width=\"1\"");
    canvas.rect(time, (y + 2.0, LANE - 5.0), &style);
}

fn nodes(canvas: &mut Canvas, page: &Page<'_>) {
    let count = page
        .samples
        .iter()
        .map(|it| it.answers.len())
        .max()
        .unwrap_or(0);
    canvas.title(
        "nodes: color of the node while ready, pale while it only answers, nothing while silent",
    );
    for node in 0..count {
        let y = canvas.y + node as f64 * LANE;
        canvas.label(y + 11.0, &format!("node {node}"));
        let look = |at: usize| {
            let sample = &page.samples[at];
            let answers = sample.answers.get(node).copied().unwrap_or(false);
            let ready = sample.ready.get(node).copied().unwrap_or(false);
            (answers, ready)
        };
        let mut from = 0;
        for at in 1..=page.samples.len() {
            if at < page.samples.len() && look(at) == look(from) {
                continue;
            }
            let (answers, ready) = look(from);
            if answers {
                let end = page.samples[at.min(page.samples.len() - 1)].at;
                let opacity = if ready { 0.9 } else { 0.3 };
                let style = format!(
                    "fill=\"{}\" opacity=\"{opacity}\"",
                    COLORS[node % COLORS.len()]
                );
                canvas.rect((page.samples[from].at, end), (y + 2.0, LANE - 5.0), &style);
            }
            from = at;
        }
    }
    canvas.y += count as f64 * LANE;
}

fn latency(canvas: &mut Canvas, operations: &[Operation]) {
    const HEIGHT: f64 = 200.0;
    canvas.title("latency from due to end: success (blue), failed (red), unknown (orange); lines: p50 and p99");
    let top = canvas.y;
    let y = |micros: f64| {
        let part =
            (micros.max(LATENCY.0).min(LATENCY.1) / LATENCY.0).ln() / (LATENCY.1 / LATENCY.0).ln();
        top + HEIGHT - part * HEIGHT
    };
    for (micros, text) in [
        (1e3, "1 ms"),
        (1e4, "10 ms"),
        (1e5, "100 ms"),
        (1e6, "1 s"),
        (1e7, "10 s"),
    ] {
        grid(canvas, y(micros), text);
    }
    let every = operations.len().div_ceil(MOST_DOTS).max(1);
    for (at, operation) in operations.iter().enumerate() {
        let (color, radius) = match operation.outcome {
            End::Ok if at % every != 0 => continue,
            End::Ok => (OK, 1.3),
            End::Fail => (FAIL, 2.8),
            End::Unknown => (UNKNOWN, 2.8),
        };
        let (x, y) = (canvas.x(operation.end), y(operation.latency() as f64));
        push(
            &mut canvas.out,
            format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{color}\"/>"),
        );
    }
    let mut buckets: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for operation in operations {
        buckets
            .entry(bucket(canvas, operation.end))
            .or_default()
            .push(operation.latency());
    }
    for (percent, color) in [(50, "#16335e"), (99, "#7a1fa2")] {
        let mut line = String::new();
        for (bucket, times) in &mut buckets {
            times.sort_unstable();
            let time = times[(times.len() * percent / 100).min(times.len() - 1)];
            push(
                &mut line,
                format_args!("{:.1},{:.1} ", middle(*bucket), y(time as f64)),
            );
        }
        push(
            &mut canvas.out,
            format_args!(
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.3\"/>"
            ),
        );
    }
    canvas.y += HEIGHT;
}

fn throughput(canvas: &mut Canvas, operations: &[Operation]) {
    const HEIGHT: f64 = 70.0;
    let mut buckets: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
    for operation in operations {
        let kind = match operation.outcome {
            End::Ok => 0,
            End::Fail => 1,
            End::Unknown => 2,
        };
        buckets.entry(bucket(canvas, operation.end)).or_default()[kind] += 1;
    }
    let most = buckets
        .values()
        .map(|kinds| kinds.iter().sum::<usize>())
        .max()
        .unwrap_or(1);
    let seconds = canvas.end / BUCKETS as f64 / 1e6;
    canvas.title(&format!(
        "operations that ended, at most {:.0} a second",
        most as f64 / seconds
    ));
    let width = (WIDTH - LEFT - RIGHT) / BUCKETS as f64;
    for (bucket, kinds) in buckets {
        let mut y = canvas.y + HEIGHT;
        for (count, color) in kinds.into_iter().zip([OK, FAIL, UNKNOWN]) {
            let height = count as f64 / most as f64 * HEIGHT;
            y -= height;
            let x = middle(bucket) - width / 2.0;
            push(
                &mut canvas.out,
                format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>",
                    width - 0.8
                ),
            );
        }
    }
    canvas.y += HEIGHT;
}

fn memory(canvas: &mut Canvas, page: &Page<'_>) {
    const HEIGHT: f64 = 60.0;
    let most = page.usage.iter().map(|it| it.memory).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let files = page.usage.iter().map(|it| it.files).max().unwrap_or(0);
    canvas.title(&format!(
        "resident memory, at most {} MiB; open files at most {files}",
        most >> 20
    ));
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for usage in page.usage {
        let (x, y) = (
            canvas.x(usage.at),
            canvas.y + HEIGHT - usage.memory as f64 / most as f64 * (HEIGHT - 4.0),
        );
        push(
            lines.entry(usage.node).or_default(),
            format_args!("{x:.1},{y:.1} "),
        );
    }
    for (node, points) in lines {
        let color = COLORS[node % COLORS.len()];
        push(
            &mut canvas.out,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.4\"/>"
            ),
        );
    }
    canvas.y += HEIGHT;
}

fn axis(canvas: &mut Canvas, end: u64) {
    canvas.y += 18.0;
    let y = canvas.y;
    let step = [
        100_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        600_000_000,
    ]
    .into_iter()
    .find(|step| end / step <= 16)
    .unwrap_or(3_600_000_000);
    for at in (0..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let x = canvas.x(at);
        push(
            &mut canvas.out,
            format_args!(
                "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#000\" opacity=\"0.06\"/><text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{:.1} s</text>",
                y - 12.0,
                at as f64 / 1e6
            ),
        );
    }
}

fn grid(canvas: &mut Canvas, y: f64, text: &str) {
    canvas.label(y + 4.0, text);
    let right = WIDTH - RIGHT;
    push(
        &mut canvas.out,
        format_args!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#d5dae1\"/>"
        ),
    );
}

fn bucket(canvas: &Canvas, at: u64) -> usize {
    let part = at as f64 / canvas.end * BUCKETS as f64;
    (0..BUCKETS)
        .rfind(|bucket| *bucket as f64 <= part)
        .unwrap_or(0)
}

fn middle(bucket: usize) -> f64 {
    LEFT + (bucket as f64 + 0.5) / BUCKETS as f64 * (WIDTH - LEFT - RIGHT)
}
