//! The end of a run: heal, prove that every shard takes writes, then all checkers, then the report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use model::placement;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::{Mark, Scenario, setting};
use crate::checker::coverage::written;
use crate::checker::secrets::{Scan, Secrets};
use crate::checker::{self, Finding, Tally, ledger, replicas};
use crate::history::{Action, End, Operation};
use crate::report::{self, Line, Page};
use crate::workload::{Ask, Client};

/// The client number of what the run itself asks at its end.
const AUDITOR: usize = 9999;
/// Sessions read at a time at the end.
const AT_ONCE: usize = 32;
/// Creations to find a session in a shard that has none.
const MOST_CREATIONS: u64 = 400;
/// Sessions on one page of a list.
const PAGE: usize = 1000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// What the checkers found; empty for a pass.
    pub findings: Vec<Finding>,
    /// What the run did not show; empty for a pass.
    pub missing: Vec<String>,
    /// How its operations ended.
    pub tally: Tally,
    /// The longest time without a successful write, and in which shard.
    pub longest_gap: (String, Duration),
    /// The page for a person.
    pub report: PathBuf,
    again: String,
}

impl Verdicts {
    /// Both verdicts are a pass.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.findings.is_empty() && self.missing.is_empty()
    }

    /// What repeats the run.
    #[must_use]
    pub fn again(&self) -> &str {
        &self.again
    }

    /// Ends a test that did not pass.
    ///
    /// # Panics
    /// With everything that is wrong, and where to look.
    pub fn assert(&self) {
        let findings: Vec<String> = self
            .findings
            .iter()
            .take(20)
            .map(Finding::to_string)
            .collect();
        assert!(
            self.passed(),
            "{}\nproperties: {findings:#?}\ncoverage: {:#?}\nreport: {}",
            self.again,
            self.missing,
            self.report.display()
        );
    }
}

/// What the end of a run collects.
#[derive(Default)]
struct Audit {
    findings: Vec<Finding>,
    notes: Vec<String>,
    number: u64,
}

impl Audit {
    fn found(&mut self, checker: &'static str, text: impl Into<String>) {
        self.findings.push(Finding {
            checker,
            session: None,
            text: text.into(),
        });
    }

    fn next(&mut self, action: Action, session: &str) -> Ask {
        self.number += 1;
        Ask {
            client: AUDITOR,
            number: self.number,
            action,
            session: session.to_owned(),
            bytes: 100,
            expires: None,
            seen: None,
            due: Instant::now(),
        }
    }
}

impl Scenario {
    /// Heals, checks, writes the report.
    ///
    /// # Panics
    /// When the run's folder cannot be written.
    pub async fn finish(mut self) -> Verdicts {
        let mut audit = Audit::default();
        for heal in std::mem::take(&mut self.heals) {
            heal.await;
        }
        self.end_faults(self.history.now());
        let client = Client {
            budget: self.rules.recovery,
            ..self.client(self.target.gateways())
        };
        let shards = self
            .target
            .shards()
            .await
            .unwrap_or(model::limits::DEFAULT_SHARDS);
        self.write_everywhere(&client, shards, &mut audit).await;
        self.note("a write in each shard");
        for load in &mut self.loads {
            load.finish().await;
        }
        let quiet = self.history.now();
        self.note("load ended");
        self.read_everything(&client, &mut audit).await;
        self.count_creations(&mut audit).await;
        self.compare_replicas(&mut audit).await;
        self.scan_for_secrets(&mut audit).await;
        self.conclude(audit, shards, quiet)
    }

    /// What a run leaves that a panic ends: no more is asked of the nodes.
    fn cut_short(&mut self) {
        let mut audit = Audit::default();
        audit.found(
            "run",
            "it ended before its checks: what it waited for or asserted did not come",
        );
        let now = self.history.now();
        self.end_faults(now);
        self.conclude(audit, model::limits::DEFAULT_SHARDS, now);
    }

    fn end_faults(&self, at: u64) {
        for mark in self.marks.lock().iter_mut().filter(|mark| mark.is_fault) {
            mark.to.get_or_insert(at);
        }
    }

    /// Every shard takes a write within the time for recovery.
    async fn write_everywhere(&self, client: &Client, shards: u16, audit: &mut Audit) {
        let mut there: BTreeMap<u16, String> = BTreeMap::new();
        for operation in self.history.operations().into_iter().rev() {
            let deleted = operation.action == Action::Delete;
            if let (Ok(id), false) = (operation.session.parse(), deleted) {
                let shard = shard_of(id, shards);
                there.entry(shard).or_insert(operation.session);
            }
        }
        let deadline = Instant::now() + self.rules.recovery;
        let writes = (0..shards).map(|shard| {
            let put = there
                .get(&shard)
                .map(|session| audit.next(Action::Put, session));
            let creates: Vec<Ask> = (0..MOST_CREATIONS)
                .map(|_| audit.next(Action::Create, ""))
                .collect();
            async move {
                if let Some(put) = put {
                    let (operation, _) = client.perform(put).await;
                    if operation.is_acknowledged() {
                        return true;
                    }
                }
                // It was deleted meanwhile, or there is none: a new one falls into the shard sooner or later.
                for create in creates {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    let (operation, _) = client.perform(create).await;
                    let id = operation.session.parse();
                    if operation.is_acknowledged()
                        && id.is_ok_and(|id| shard_of(id, shards) == shard)
                    {
                        return true;
                    }
                }
                false
            }
        });
        let writes: Vec<_> = writes.collect();
        for (shard, written) in join_all(writes).await.into_iter().enumerate() {
            if !written {
                let limit = self.rules.recovery;
                audit.found(
                    "recovery",
                    format!("shard {shard} took no write within {limit:?} after the faults"),
                );
            }
        }
    }

    /// A last linearizable read of every session.
    async fn read_everything(&self, client: &Client, audit: &mut Audit) {
        let operations = self.history.operations();
        let sessions: BTreeSet<String> = operations.into_iter().map(|it| it.session).collect();
        let reads: Vec<Ask> = sessions
            .iter()
            .filter(|session| !session.is_empty())
            .map(|session| audit.next(Action::Read, session))
            .collect();
        for batch in reads.chunks(AT_ONCE) {
            let reads = batch.iter().map(|ask| client.perform(ask.clone()));
            for (operation, _) in join_all(reads).await {
                if operation.outcome != End::Ok {
                    audit.findings.push(Finding {
                        checker: "recovery",
                        session: Some(operation.session),
                        text: format!(
                            "cannot be read at the end: {:?} {:?}",
                            operation.status, operation.code
                        ),
                    });
                }
            }
        }
    }

    /// Every creation is in the list of all sessions as often as it should.
    async fn count_creations(&self, audit: &mut Audit) {
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            match self.page(&cursor).await {
                Some((more, next)) => {
                    names.extend(more);
                    match next {
                        Some(next) => cursor = next,
                        None => break,
                    }
                }
                None => return audit.found("ledger", "the list of all sessions cannot be read"),
            }
        }
        for text in ledger::creations(&self.history.operations(), &names) {
            audit.found("ledger", text);
        }
    }

    async fn page(&self, cursor: &str) -> Option<(Vec<String>, Option<String>)> {
        for gateway in self.target.gateways() {
            let url = format!("{gateway}/api/v2/sessions?limit={PAGE}&cursor={cursor}");
            let request = self.target.http.get(url).bearer_auth(&self.target.api_key);
            let Ok(response) = request.send().await else {
                continue;
            };
            let Ok(body) = response.json::<serde_json::Value>().await else {
                continue;
            };
            let Some(sessions) = body["sessions"].as_array() else {
                continue;
            };
            let names = sessions.iter().filter_map(|it| it["name"].as_str());
            let next = body["nextCursor"].as_str().map(str::to_owned);
            return Some((names.map(str::to_owned).collect(), next));
        }
        None
    }

    async fn compare_replicas(&self, audit: &mut Audit) {
        let comparison = replicas::until_equal(&self.target, self.rules.recovery).await;
        for text in comparison.different.iter().chain(&comparison.incomplete) {
            audit.found("replicas", text.as_str());
        }
        for (group, index, keys, count) in &comparison.equal {
            audit.notes.push(format!(
                "{group}: {count} replicas equal at index {index}, {keys} keys"
            ));
        }
    }

    async fn scan_for_secrets(&self, audit: &mut Audit) {
        let secrets = Secrets::new(self.document.secret());
        let mut scan = Scan::default();
        secrets.scan_bytes("an error answer", &self.errors.lock(), &mut scan);
        for position in 0..self.target.nodes.len() {
            for path in ["/metrics", "/readyz", "/admin/v1/cluster"] {
                let page = self
                    .target
                    .admin_page(position, path)
                    .await
                    .unwrap_or_default();
                secrets.scan_bytes(
                    &format!("{path} of node {position}"),
                    page.as_bytes(),
                    &mut scan,
                );
            }
        }
        let folders = self.target.folders.clone();
        let walk = spawn_blocking(move || {
            let walked = secrets.scan_folders(&folders, &mut scan);
            (walked, scan)
        });
        let (walked, scan) = walk.await.expect("the scan does not panic");
        if let Err(error) = walked {
            audit.found("secrets", format!("not all files could be read: {error}"));
        }
        if scan.files == 0 {
            audit.found("secrets", "there was no file to scan");
        }
        for text in &scan.found {
            audit.found("secrets", text.as_str());
        }
        let mebibytes = scan.bytes >> 20;
        audit.notes.push(format!(
            "{} files of {mebibytes} MiB scanned for secrets",
            scan.files
        ));
    }

    fn conclude(&mut self, mut audit: Audit, shards: u16, quiet: u64) -> Verdicts {
        self.concluded = true;
        let operations = self.history.operations();
        let (found, undecided) = checker::check(&operations, self.rules.expiry_tolerance);
        audit.findings.splice(0..0, found);
        let marks = self.marks.lock().clone();
        let mut coverage = self.coverage.lock().clone();
        for session in undecided {
            coverage.claim(format!("the order of session {session} was decided"), false);
        }
        let load: Vec<Operation> = operations
            .iter()
            .filter(|it| it.client != AUDITOR)
            .cloned()
            .collect();
        let tally = checker::tally(&load);
        let first_fault = marks
            .iter()
            .filter(|mark| mark.is_fault)
            .map(|mark| mark.from)
            .min();
        if let Some(first) = first_fault {
            let rules = &self.rules;
            let faults = marks.iter().filter(|mark| mark.is_fault);
            let spans: Vec<_> = faults
                .map(|mark| mark.from..=mark.to.unwrap_or(u64::MAX))
                .collect();
            let (met, least) = (written(&load, &spans), rules.least_under_fault);
            let claim = format!("{met} writes succeeded while a fault was there, at least {least}");
            coverage.claim(claim, met >= least);
            let (met, least) = (written(&load, &[first..=u64::MAX]), rules.least_after_fault);
            let claim = format!("{met} writes succeeded after the first fault, at least {least}");
            coverage.claim(claim, met >= least);
        }
        let gaps = checker::gaps(&load, shards, first_fault.unwrap_or(0), quiet);
        let longest = gaps.iter().max_by_key(|(_, gap)| **gap);
        let longest_gap = longest.map_or((String::new(), Duration::ZERO), |(shard, gap)| {
            (shard.clone(), *gap)
        });
        self.judge(&mut audit, &longest_gap, tally);
        let line = Line {
            scenario: self.name.clone(),
            seed: self.seed,
            faults: faults(&marks),
            checked: checked(),
            operations: load.len() as u64,
            ok: tally.ok,
            fail: tally.fail,
            unknown: tally.unknown,
            longest_gap_ms: u64::try_from(longest_gap.1.as_millis()).unwrap_or(u64::MAX),
            property: audit.findings.is_empty(),
            coverage: coverage.missing().is_empty(),
            seconds: self.begun.elapsed().as_secs_f64(),
            commit: setting("CHAOS_COMMIT"),
        };
        let report = self.write(&line, &audit, &coverage, (&load, &marks, &gaps));
        Verdicts {
            findings: audit.findings,
            missing: coverage.missing(),
            tally,
            longest_gap,
            report,
            again: self.again.clone(),
        }
    }

    /// What this scenario's own rules say.
    fn judge(&self, audit: &mut Audit, longest_gap: &(String, Duration), tally: Tally) {
        if let Some(bound) = self.rules.longest_gap
            && longest_gap.1 > bound
        {
            let (shard, gap) = longest_gap;
            audit.found(
                "gap",
                format!("{shard} took no write for {gap:?}, the bound is {bound:?}"),
            );
        }
        if !self.rules.failures_allowed && tally.fail + tally.unknown > 0 {
            audit.found(
                "failures",
                format!(
                    "careful clients saw {} failed and {} unknown requests",
                    tally.fail, tally.unknown
                ),
            );
        }
    }

    fn write(
        &self,
        line: &Line,
        audit: &Audit,
        coverage: &checker::coverage::Coverage,
        (load, marks, gaps): (&[Operation], &[Mark], &BTreeMap<String, Duration>),
    ) -> PathBuf {
        let history = self.folder.join("history.jsonl");
        self.history
            .save(&history)
            .expect("the history can be written");
        let seen = self.sampler.take();
        let page = Page {
            line,
            again: self.again.clone(),
            findings: &audit.findings,
            notes: &audit.notes,
            claims: coverage.claims(),
            operations: load,
            marks,
            samples: &seen.samples,
            usage: &seen.usage,
            gaps,
        };
        let path = self.folder.join("report.html");
        std::fs::write(&path, report::page(&page)).expect("the report can be written");
        if let Some(results) = setting("CHAOS_RESULTS") {
            line.append(results.as_ref())
                .expect("the results can be written");
        }
        path
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if !self.concluded && std::thread::panicking() {
            self.cut_short();
        }
    }
}

fn shard_of(id: model::id::SessionId, shards: u16) -> u16 {
    placement::shard_of(id.slot(), shards).0
}

/// The kinds of faults that there were, each once.
fn faults(marks: &[Mark]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let faults = marks
        .iter()
        .filter(|mark| mark.is_fault && mark.doubt.is_none());
    let labels = faults.map(|mark| mark.label.clone());
    labels.filter(|label| seen.insert(label.clone())).collect()
}

fn checked() -> Vec<String> {
    [
        "linearizable",
        "versions",
        "ledger",
        "expiry",
        "replicas",
        "secrets",
        "recovery",
    ]
    .map(str::to_owned)
    .to_vec()
}
