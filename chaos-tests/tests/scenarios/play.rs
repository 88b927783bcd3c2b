//! What all scenarios have in common: a rig, a load over it, faults on a timeline, and the end with its two verdicts.

use std::time::Duration;

use chaos_tests::faults::Fault;
use chaos_tests::rig::{Rig, RigConfig};
use chaos_tests::scenario::{Rules, Scenario};
use chaos_tests::workload::Mix;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Within what a region serves again when all its nodes are back.
pub(crate) const SERVES_WITHIN: Duration = Duration::from_secs(10);

/// Within what a node is refused whose disk has less than it promised.
const REFUSED_WITHIN: Duration = Duration::from_secs(8);
/// How a node ends whose disk is refused (the table is in `node/src/exit.rs`).
const REFUSED: i32 = 71;
/// Within what a node with an empty disk has joined.
const JOINS_WITHIN: Duration = Duration::from_secs(30);

/// A running scenario.
pub(crate) struct Play {
    pub(crate) rig: Rig,
    pub(crate) scenario: Scenario,
    pub(crate) random: ChaCha8Rng,
}

impl Play {
    /// Starts a rig and a load over it.
    pub(crate) async fn begin(name: &str, config: RigConfig, rules: Rules, mix: Mix) -> Self {
        let seed = config.seed;
        let rig = Rig::start(config).await;
        println!("{name}: rig in {}", rig.folder().display());
        let mut scenario = Scenario::begin_with(name, seed, &rig.target(), rules);
        scenario.load(mix).await;
        scenario.progress(100).await;
        Self {
            rig,
            scenario,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Makes a fault happen, and puts it on the timeline.
    pub(crate) fn inject(&self, fault: &mut dyn Fault) {
        let label = fault.label();
        let injected = fault.inject(&self.rig);
        println!("{label}: {injected:?}");
        self.scenario.fault(&label, &injected);
    }

    /// Takes a fault back, after asking whether it did something.
    pub(crate) fn heal(&self, fault: &mut dyn Fault) {
        let label = fault.label();
        let met = fault.met(&self.rig);
        self.scenario
            .cover(format!("{label}: something met it"), met.is_installed());
        let healed = fault.heal(&self.rig);
        self.scenario
            .cover(format!("{label}: taken back"), healed.is_installed());
        self.scenario.healed(&label);
        println!("{label}: met {met:?}, healed {healed:?}");
    }

    /// The node that leads most shards.
    pub(crate) async fn leader(&self) -> usize {
        let leaders = self.rig.target().leaders().await;
        let led = |node: &usize| leaders.values().filter(|leader| *leader == node).count();
        (0..self.rig.count()).max_by_key(led).expect("a node")
    }

    /// How many shards a node leads, as it says itself.
    pub(crate) async fn leads(&self, node: usize) -> usize {
        let leaders = self.rig.target().leaders().await;
        leaders.values().filter(|leader| **leader == node).count()
    }

    /// A metric of a node; zero while it does not answer.
    pub(crate) async fn metric(&self, node: usize, name: &str) -> f64 {
        let found = self.rig.target().metric(node, name).await;
        found.unwrap_or(0.0)
    }

    /// Waits until every node is ready and every shard has a leader; how long it took.
    ///
    /// # Panics
    /// With what each node says, when that is not so in time.
    pub(crate) async fn until_serves(&self) -> Duration {
        let target = self.rig.target();
        let shards = usize::from(target.shards().await.unwrap_or(6));
        let from = tokio::time::Instant::now();
        let mut period = tokio::time::interval(Duration::from_millis(20));
        loop {
            let mut ready = 0;
            for node in 0..self.rig.count() {
                ready += usize::from(self.rig.is_ready(node).await);
            }
            let leaders = target.leaders().await;
            if ready == self.rig.count() && leaders.len() == shards {
                return from.elapsed();
            }
            if from.elapsed() > SERVES_WITHIN {
                let mut said = Vec::new();
                for node in 0..self.rig.count() {
                    let page = target.admin_page(node, "/readyz").await;
                    said.push(format!("node {node}: {page:?} {:?}", self.rig.ended(node)));
                }
                let logs = self.rig.folder().display();
                unreachable!(
                    "the region does not serve again: {said:#?} {leaders:?}; logs in {logs}"
                );
            }
            period.tick().await;
        }
    }

    /// A node came back under its id with a disk that has less than it promised: it is refused, and says so as it ends. Then it joins
    /// with an empty disk in place of its old id, as an operator would have it do.
    ///
    /// # Panics
    /// When it is ready with that disk, or not refused in time.
    pub(crate) async fn until_refused_and_rejoined(&self, node: usize) {
        let sponsor = (node + 1) % self.rig.count();
        let mut period = tokio::time::interval(Duration::from_millis(20));
        let from = tokio::time::Instant::now();
        let ended = loop {
            let ready = self.rig.is_ready(node).await;
            assert!(!ready, "node {node} serves with a disk that forgot");
            if let Some(ended) = self.rig.ended(node) {
                break ended;
            }
            let logs = self.rig.folder().display();
            assert!(
                from.elapsed() < REFUSED_WITHIN,
                "node {node} is not refused; logs in {logs}"
            );
            period.tick().await;
        };
        assert_eq!(ended.code(), Some(REFUSED), "node {node} ended otherwise");
        self.scenario.note(&format!("node {node} is refused"));
        println!(
            "node {node} is refused after {:?}; it joins under a new id",
            from.elapsed()
        );
        self.rig.disk(node).wipe().expect("an empty disk");
        let id = u64::try_from(node).expect("few nodes") + 1;
        let joined = self.rig.rejoin(node, id, sponsor).await;
        joined.expect("a node can join in its place");
        let ready = || self.rig.is_ready(node);
        let what = "the node is there under a new id";
        self.rig.until(what, JOINS_WITHIN, ready).await;
        let status = self.rig.target().status(node).await.expect("it answers");
        assert_ne!(status.node, id, "node {node} has its old id");
    }

    /// The end: everything healed by now, all checks, both verdicts.
    ///
    /// # Panics
    /// When one of them is no pass.
    pub(crate) async fn finish(self) {
        let Self { rig, scenario, .. } = self;
        for node in 0..rig.count() {
            let panics = rig.log(node).matches("panicked at").count();
            assert_eq!(
                panics,
                0,
                "node {node} panicked; {}",
                rig.folder().display()
            );
        }
        let verdicts = scenario.finish().await;
        let (shard, gap) = &verdicts.longest_gap;
        println!(
            "{:?}; longest time without a write {gap:?} in {shard}; {}",
            verdicts.tally,
            verdicts.report.display()
        );
        verdicts.assert();
        drop(rig);
    }
}
