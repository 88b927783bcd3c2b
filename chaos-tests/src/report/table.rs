//! Results of runs as lines of JSON, and many of them as the table in the README.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::push;

/// A word with digits that has so many letters is the name of a file.
const FILE_NAME: usize = 12;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which scenario.
    pub scenario: String,
    /// What decided everything.
    pub seed: u64,
    /// What was done to the cluster.
    pub faults: Vec<String>,
    /// Which checkers looked.
    pub checked: Vec<String>,
    /// How many operations the load made.
    pub operations: u64,
    /// How many were answered.
    pub ok: u64,
    /// How many were refused.
    pub fail: u64,
    /// How many ended nobody knows how.
    pub unknown: u64,
    /// The longest time without a successful write in a shard, since the first fault.
    pub longest_gap_ms: u64,
    /// The verdict on the properties.
    pub property: bool,
    /// The verdict on the coverage.
    pub coverage: bool,
    /// How long the run took.
    pub seconds: f64,
    /// What was tested, if the environment says so.
    #[serde(default)]
    pub commit: Option<String>,
}

impl Line {
    /// Appends it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, path: &Path) -> std::io::Result<()> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        // One write: lines of runs that end together do not mix.
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.write_all(line.as_bytes())
    }
}

/// Reads a file of lines.
///
/// # Errors
/// With the number of the line that is none.
pub fn read(text: &str) -> Result<Vec<Line>, String> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))
        })
        .collect()
}

/// The Markdown table: one row for each scenario.
#[must_use]
pub fn markdown(lines: &[Line]) -> String {
    let mut rows: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        rows.entry(&line.scenario).or_default().push(line);
    }
    let mut out = String::from(
        "| scenario | fault | checked | operations | fail, unknown | longest gap | seeds | passed | the last in a row |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (scenario, runs) in rows {
        let seeds: BTreeSet<u64> = runs.iter().map(|run| run.seed).collect();
        let sum = |of: fn(&Line) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
        let good = |run: &&&Line| run.property && run.coverage;
        let passed = runs.iter().filter(good).count();
        let in_a_row = runs.iter().rev().take_while(good).count();
        let gap = runs.iter().map(|run| run.longest_gap_ms).max().unwrap_or(0);
        push(
            &mut out,
            format_args!(
                "| {scenario} | {} | {} | {} | {}, {} | {gap} ms | {} | {passed} of {} | {in_a_row} |\n",
                words(runs.iter().map(|run| &run.faults)),
                words(runs.iter().map(|run| &run.checked)),
                sum(|run| run.operations),
                sum(|run| run.fail),
                sum(|run| run.unknown),
                seeds.len(),
                runs.len()
            ),
        );
    }
    out
}

/// The words of all runs, each once, in the order in which they come; what tells nodes, files and amounts apart is left out.
fn words<'a>(lists: impl Iterator<Item = &'a Vec<String>>) -> String {
    let mut seen = BTreeSet::new();
    let plain = |word: &String| -> String {
        let kept: Vec<&str> = word.split(' ').filter_map(plain).collect();
        kept.join(" ").replace('|', "/")
    };
    let words = lists
        .flatten()
        .map(plain)
        .filter(|word| seen.insert(word.clone()));
    words.collect::<Vec<_>>().join("; ")
}

/// A part of a fault's name as it is in all runs, if it is.
fn plain(part: &str) -> Option<&str> {
    let letters = |part: &str| part.chars().any(char::is_alphabetic);
    let digits = |part: &str| part.chars().any(|c| c.is_ascii_digit());
    match part {
        part if digits(part) && !letters(part) => None,
        // An older form of an amount.
        part if part.starts_with("Ok(") => None,
        part if digits(part) && part.ends_with("'s") => Some("N's"),
        part if digits(part) && part.len() >= FILE_NAME => Some("file"),
        part => Some(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_become_one_row_for_each_scenario() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let line = |seed, gap, property| Line {
            scenario: "leader killed".to_owned(),
            seed,
            faults: vec![format!("kill node {seed}")],
            checked: vec!["versions".to_owned()],
            operations: 100,
            longest_gap_ms: gap,
            property,
            coverage: true,
            ..Line::default()
        };
        for line in [line(1, 300, true), line(2, 500, true), line(2, 400, false)] {
            line.append(&path).unwrap();
        }
        let lines = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(lines.len(), 3);
        let table = markdown(&lines);
        let row = "| leader killed | kill node | versions | 300 | 0, 0 | 500 ms | 2 | 2 of 3 | 0 |";
        assert!(table.contains(row), "{table}");
        assert!(read("{}\n").is_err());
    }

    #[test]
    fn what_differs_from_run_to_run_is_no_word() {
        let one = vec![
            "Ok(10) bytes of node 2's sst files are flipped".to_owned(),
            "node 0's 966d5a54a307fd3f719ef598.part is flipped at 12".to_owned(),
            "power cut of nodes [0, 1]".to_owned(),
        ];
        let other = vec!["7 bytes of node 1's sst files are flipped".to_owned()];
        assert_eq!(
            words([one, other].iter()),
            "bytes of node N's sst files are flipped; node N's file is flipped at; power cut of nodes"
        );
    }
}
