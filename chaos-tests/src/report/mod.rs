//! A run for a person: a page that stands alone, and a line for the table of all runs.
//!
//! | module | what |
//! |---|---|
//! | [`picture`] | the timeline: faults, leaders, nodes, latency, throughput, memory, as SVG |
//! | [`table`] | results of many runs as a Markdown table |
//!
//! The page names sessions and values, which are the load's own; it shows no secret.

pub mod picture;
pub mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

pub use table::Line;

use crate::checker::Finding;
use crate::checker::coverage::Claim;
use crate::history::{Action, End, Operation};
use crate::scenario::{Mark, Sample, Usage};

/// Findings shown; the rest is counted.
const MOST_FINDINGS: usize = 50;

/// What a page shows.
#[derive(Debug)]
pub struct Page<'a> {
    /// The run in one line.
    pub line: &'a Line,
    /// How to run it once more, as one line for a shell.
    pub again: String,
    /// What the checkers found.
    pub findings: &'a [Finding],
    /// What they looked at.
    pub notes: &'a [String],
    /// What the run claims to have shown.
    pub claims: &'a [Claim],
    /// The load's operations, in order of their end.
    pub operations: &'a [Operation],
    /// Faults and other marks.
    pub marks: &'a [Mark],
    /// Who led and who answered.
    pub samples: &'a [Sample],
    /// Memory and descriptors.
    pub usage: &'a [Usage],
    /// The longest time without a write, for each shard.
    pub gaps: &'a BTreeMap<String, Duration>,
}

/// The page as HTML.
#[must_use]
pub fn page(page: &Page<'_>) -> String {
    let line = page.line;
    let mut out = String::with_capacity(1 << 20);
    let title = escape(&format!("{} (seed {})", line.scenario, line.seed));
    out.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    out.push_str(&title);
    out.push_str("</title><style>");
    out.push_str(STYLE);
    out.push_str("</style></head><body><h1>");
    out.push_str(&title);
    out.push_str("</h1><p>");
    for (what, good) in [("properties", line.property), ("coverage", line.coverage)] {
        let (class, word) = if good {
            ("good", "pass")
        } else {
            ("bad", "FAIL")
        };
        push(
            &mut out,
            format_args!("<span class=\"verdict {class}\">{what}: {word}</span> "),
        );
    }
    push(
        &mut out,
        format_args!("</p><p>Again: <code>{}</code></p>", escape(&page.again)),
    );
    findings(&mut out, page);
    out.push_str(&picture::draw(page));
    out.push_str("<div class=\"columns\"><div><h2>Operations</h2>");
    operations(&mut out, page.operations);
    out.push_str("</div><div><h2>Longest time without a write</h2>");
    gaps(&mut out, page.gaps);
    out.push_str("</div><div><h2>Coverage</h2><ul>");
    for claim in page.claims {
        let class = if claim.held { "good" } else { "bad" };
        push(
            &mut out,
            format_args!("<li class=\"{class}\">{}</li>", escape(&claim.what)),
        );
    }
    out.push_str("</ul></div><div><h2>Looked at</h2><ul>");
    for note in page.notes {
        push(&mut out, format_args!("<li>{}</li>", escape(note)));
    }
    out.push_str(
        "</ul></div></div><p>Raw: <a href=\"history.jsonl\">history.jsonl</a></p></body></html>\n",
    );
    out
}

fn findings(out: &mut String, page: &Page<'_>) {
    if page.findings.is_empty() {
        return;
    }
    push(
        out,
        format_args!(
            "<h2 class=\"bad\">{} findings</h2><ol>",
            page.findings.len()
        ),
    );
    for finding in page.findings.iter().take(MOST_FINDINGS) {
        push(
            out,
            format_args!("<li>{}</li>", escape(&finding.to_string())),
        );
    }
    out.push_str("</ol>");
}

fn operations(out: &mut String, operations: &[Operation]) {
    let mut kinds: BTreeMap<Action, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        kinds.entry(operation.action).or_default().push(operation);
    }
    out.push_str("<table><tr><th>kind</th><th>ok</th><th>fail</th><th>unknown</th><th>tries</th><th>p50</th><th>p99</th><th>most</th></tr>");
    for (kind, own) in kinds {
        let count = |end: End| own.iter().filter(|it| it.outcome == end).count();
        let mut times: Vec<u64> = own.iter().map(|it| it.latency()).collect();
        times.sort_unstable();
        let at = |percent: usize| millis(times[(times.len() * percent / 100).min(times.len() - 1)]);
        let tries = own.iter().map(|it| f64::from(it.attempts)).sum::<f64>() / own.len() as f64;
        push(
            out,
            format_args!(
                "<tr><td>{kind:?}</td><td>{}</td><td>{}</td><td>{}</td><td>{tries:.2}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                count(End::Ok),
                count(End::Fail),
                count(End::Unknown),
                at(50),
                at(99),
                at(100)
            ),
        );
    }
    out.push_str("</table>");
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for operation in operations.iter().filter(|it| it.outcome != End::Ok) {
        let status = operation
            .status
            .map_or_else(|| "no answer".to_owned(), |it| it.to_string());
        let code = operation.code.as_deref().unwrap_or("");
        *codes
            .entry(format!("{:?} {status} {code}", operation.outcome))
            .or_default() += 1;
    }
    for (code, count) in codes {
        push(
            out,
            format_args!("<p class=\"bad\">{count} x {}</p>", escape(&code)),
        );
    }
}

fn gaps(out: &mut String, gaps: &BTreeMap<String, Duration>) {
    out.push_str("<table><tr><th>shard</th><th>gap</th></tr>");
    for (shard, gap) in gaps {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        push(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td></tr>",
                escape(shard),
                millis(micros)
            ),
        );
    }
    out.push_str("</table>");
}

/// Microseconds as a person reads them.
pub(crate) fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

pub(crate) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all text");
}

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1240px;color:#1c2330;background:#fff}
h1{font-size:22px;margin:0 0 8px}h2{font-size:15px;margin:18px 0 6px}
code{background:#eef1f5;padding:2px 6px;border-radius:4px}
.good{color:#1d7a46}.bad{color:#b3261e}
.verdict{display:inline-block;padding:3px 10px;border-radius:4px;font-weight:600}
.verdict.good{background:#1d7a46;color:#fff}.verdict.bad{background:#b3261e;color:#fff}
table{border-collapse:collapse}td,th{padding:2px 10px 2px 0;text-align:right}td:first-child,th:first-child{text-align:left}
th{font-weight:600;border-bottom:1px solid #ccd2da}
.columns{display:grid;grid-template-columns:1.6fr 1fr;gap:0 32px}ul,ol{padding-left:20px;margin:0}
svg{width:100%;height:auto;font:11px system-ui,sans-serif;margin-top:12px}
";
