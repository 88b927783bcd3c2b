//! Starts all nodes, does what it is told about one of them, and stops all.
//!
//! In: signals, commands, ends of processes, readiness. One loop waits for the next of these and then acts without
//! waiting; what takes long runs beside it and comes back as an event.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::child::{self, Handle};
use super::cluster;
use super::control::{Control, Pending};
use super::layout::Layout;
use super::message;
use super::record::{Record, RecordedNode};
use super::slots::{Action, Phase, Slots};
use crate::client::{Call, Http, make_join_token};
use crate::console;
use crate::exit::{Exit, OrProblem as _, Problem, chain};
use crate::signals::Signals;

/// How long a node may take to become ready: it replays its log, or copies a whole disk when it joins.
const READY: Duration = Duration::from_secs(300);
/// How often a node is asked whether it is ready.
const POLL: Duration = Duration::from_millis(20);
/// How long nodes may take to end before they are killed: more than the bounds of their own steps together.
const END: Duration = Duration::from_secs(25);
/// How long a command that needs a node to be down waits for the end of one that runs: whoever killed it need not wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a join token for a wiped node is valid, in minutes.
const TOKEN_MINUTES: u32 = 60;

/// Something that happened.
enum Event {
    /// All is to end.
    Stop,
    /// Somebody wants something.
    Command(Pending),
    /// A node's process ended.
    Ended(u16, Option<ExitStatus>),
    /// A node's process is ready, or is not within its time.
    Ready(u16, u32, Result<(), String>),
    /// A command waited long enough for the end of its node.
    Patience(u16),
    /// A wiped node may join, or may not.
    Token(u16, Result<(), String>),
}

struct Supervisor {
    layout: Layout,
    log: String,
    settings: Vec<String>,
    key: SecretString,
    slots: Slots,
    handles: Vec<Option<Handle>>,
    /// Waits of every kind; each ends in an event.
    waits: JoinSet<Event>,
    /// Commands that wait for the end of their node.
    deferred: Vec<Pending>,
    /// Until all nodes were ready once.
    booting: bool,
}

/// Runs the cluster until it is told to stop.
pub(super) async fn run(layout: Layout, log: &str, settings: Vec<String>) -> Result<(), Problem> {
    let mut signals =
        Signals::listen().or_problem(Exit::Failed, || "cannot listen for signals".to_owned())?;
    let mut control = Control::listen(layout.folder())
        .or_problem(Exit::Config, || "cannot make the control socket".to_owned())?;
    let count = layout.positions().count();
    let mut supervisor = Supervisor {
        key: cluster::api_key(&layout)?,
        log: log.to_owned(),
        settings,
        slots: Slots::new(count),
        handles: vec![None; count],
        waits: JoinSet::new(),
        deferred: Vec::new(),
        booting: true,
        layout,
    };
    let ended = supervisor.serve(&mut signals, &mut control).await;
    supervisor.layout.remove_traces()?;
    supervisor.stop_all().await;
    ended
}

impl Supervisor {
    async fn serve(&mut self, signals: &mut Signals, control: &mut Control) -> Result<(), Problem> {
        for node in self.layout.positions() {
            if cluster::is_wiped(&self.layout, node) {
                console::note(&format!(
                    "node {node} has no disk: `pspd dev node start {node}` lets it join"
                ));
            } else {
                self.start(node)?;
            }
        }
        loop {
            match self.next(signals, control).await {
                Event::Stop => return Ok(()),
                event => self.handle(event)?,
            }
        }
    }

    /// Cancel-safe in all its branches.
    async fn next(&mut self, signals: &mut Signals, control: &mut Control) -> Event {
        tokio::select! {
            _ = signals.next() => Event::Stop,
            Some(pending) = control.next() => Event::Command(pending),
            Some(Ok(event)) = self.waits.join_next() => event,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Problem> {
        match event {
            Event::Stop => {}
            Event::Command(pending) if self.slots.needs_an_end(&pending.0) => {
                let node = pending.0.node;
                self.deferred.push(pending);
                self.waits.spawn(async move {
                    sleep(PATIENCE).await;
                    Event::Patience(node)
                });
            }
            Event::Command(pending) => self.command(pending),
            Event::Patience(node) => self.resume(node),
            Event::Token(node, Ok(())) => {
                if let Err(problem) = self.start(node) {
                    self.slots.settled(node, Err(chain(&problem)));
                }
            }
            Event::Token(node, Err(text)) => self.slots.settled(node, Err(text)),
            Event::Ready(node, pid, result) => {
                if self.slots.ready(node, pid, result) {
                    self.tell()?;
                }
            }
            Event::Ended(node, status) => self.ended(node, status)?,
        }
        Ok(())
    }

    fn command(&mut self, pending: Pending) {
        let action = self.slots.command(pending);
        self.act(action);
    }

    /// Carries out, or refuses, what waited for the end of a node.
    fn resume(&mut self, node: u16) {
        let (now, later): (Vec<_>, Vec<_>) = self
            .deferred
            .drain(..)
            .partition(|(request, _)| request.node == node);
        self.deferred = later;
        for pending in now {
            self.command(pending);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::None => {}
            Action::Start(node) if cluster::is_wiped(&self.layout, node) => self.fetch_token(node),
            Action::Start(node) => {
                if let Err(problem) = self.start(node) {
                    self.slots.settled(node, Err(chain(&problem)));
                }
            }
            Action::Stop(node) => self.signal(node, Signal::TERM),
            Action::Kill(node) => self.signal(node, Signal::KILL),
            Action::Wipe(node) => {
                let wiped = cluster::wipe(&self.layout, node);
                self.slots.settled(
                    node,
                    wiped
                        .map(|()| "is wiped")
                        .map_err(|problem| chain(&problem)),
                );
            }
        }
    }

    fn signal(&self, node: u16, signal: Signal) {
        if let Some(handle) = &self.handles[usize::from(node)] {
            handle.signal(signal);
        }
    }

    fn start(&mut self, node: u16) -> Result<(), Problem> {
        let failed = || format!("cannot start node {node}");
        cluster::write_config(&self.layout, node, &self.log)?;
        let (handle, started) =
            child::start(&self.layout, node, &self.settings).or_problem(Exit::Failed, failed)?;
        self.slots.started(node, handle.pid);
        let http = self.client()?;
        let (pid, admin) = (handle.pid, format!("http://{}", self.layout.admin(node)));
        self.handles[usize::from(node)] = Some(handle);
        self.waits
            .spawn(async move { Event::Ended(node, started.wait().await.ok()) });
        // At the first start all nodes come up together; later a node may be the only one, and has no leader to wait for.
        let leaders = self.booting;
        self.waits.spawn(async move {
            Event::Ready(node, pid, until_ready(&http, &admin, leaders).await)
        });
        Ok(())
    }

    fn client(&self) -> Result<Http, Problem> {
        let admins = self
            .layout
            .positions()
            .map(|node| format!("http://{}", self.layout.admin(node)));
        Http::new(admins.collect(), Some(self.key.clone()))
    }

    fn fetch_token(&mut self, node: u16) {
        let (http, path) = match self.client() {
            Ok(http) => (http, self.layout.join_token(node)),
            Err(problem) => return self.slots.settled(node, Err(chain(&problem))),
        };
        self.waits.spawn(async move {
            let token = make_join_token(&http, TOKEN_MINUTES).await;
            let written = token.and_then(|token| {
                crate::secrets::write_private(&path, token.as_bytes())
                    .or_problem(Exit::Failed, || "cannot write the join token".to_owned())
            });
            Event::Token(node, written.map_err(|problem| chain(&problem)))
        });
    }

    fn ended(&mut self, node: u16, status: Option<ExitStatus>) -> Result<(), Problem> {
        self.handles[usize::from(node)] = None;
        let wanted = self.slots.ended(node, status);
        let how = status.map_or_else(
            || "in an unknown way".to_owned(),
            |status| status.to_string(),
        );
        let log = self.layout.log(node);
        if self.booting && !wanted {
            let text = format!("node {node} ended while it started ({how})");
            return Err(
                Problem::new(Exit::Failed, text).hint(format!("its log: {}", log.display()))
            );
        }
        if !wanted {
            console::note(&format!(
                "node {node} ended ({how}); it stays down until `pspd dev node start {node}`; its log: {}",
                log.display()
            ));
        }
        self.tell()?;
        self.resume(node);
        Ok(())
    }

    /// Writes `dev.json` once no node is on its way, and says so the first time.
    fn tell(&mut self) -> Result<(), Problem> {
        if self.booting && !self.slots.all_settled() {
            return Ok(());
        }
        let node = |(id, pid): (u16, u32)| RecordedNode {
            id,
            pid,
            http: format!("http://{}", self.layout.http(id)),
            admin: format!("http://{}", self.layout.admin(id)),
        };
        let record = Record {
            api_key: self.key.expose_secret().to_owned(),
            nodes: self
                .layout
                .positions()
                .zip(self.slots.pids())
                .map(node)
                .collect(),
        };
        let written = record
            .write(&self.layout.record())
            .or_problem(Exit::Failed, || "cannot write dev.json".to_owned());
        if !self.booting {
            // A full disk is no reason to end the nodes that live: they serve reads, and take writes again when there is room.
            if let Err(problem) = written {
                console::note(&format!("{problem}; it is out of date"));
            }
        } else {
            written?;
            self.booting = false;
            let text = message::ready(&record, self.layout.folder());
            console::line(&text)
                .or_problem(Exit::Failed, || "cannot write to the terminal".to_owned())?;
        }
        Ok(())
    }

    /// All at once: there is nobody to hand leaderships to. Whoever takes too long is killed.
    async fn stop_all(&mut self) {
        self.signal_all(Signal::QUIT);
        if timeout(END, self.until_all_ended()).await.is_err() {
            console::note("some nodes did not end in time and are killed");
            self.signal_all(Signal::KILL);
            // The kernel ends them; waiting longer would not help.
            drop(timeout(Duration::from_secs(2), self.until_all_ended()).await);
        }
    }

    fn signal_all(&self, signal: Signal) {
        self.layout
            .positions()
            .for_each(|node| self.signal(node, signal));
    }

    async fn until_all_ended(&mut self) {
        while self.slots.any_process() {
            if let Some(Ok(Event::Ended(node, status))) = self.waits.join_next().await
                && self.slots.phase(node) != Phase::Down
            {
                self.slots.ended(node, status);
            }
        }
    }
}

/// Asks the node until it is ready, and with `leaders` until every group has one, within a limit.
async fn until_ready(http: &Http, admin: &str, leaders: bool) -> Result<(), String> {
    let end = Instant::now() + READY;
    loop {
        let asked = http
            .ask(admin, &Call::new(http::Method::GET, "/readyz"))
            .await;
        let waits_for = match asked {
            Ok(body) => match leaderless(&body).filter(|_| leaders) {
                None => return Ok(()),
                Some(groups) => format!("no leader of {groups}"),
            },
            Err(problem) => chain(&problem),
        };
        if Instant::now() >= end {
            return Err(format!(
                "not ready within {} s: {waits_for}",
                READY.as_secs()
            ));
        }
        sleep(POLL).await;
    }
}

/// The groups without a leader, if there are any: a node alone is ready without them, a cluster is not.
fn leaderless(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let groups = body.get("leaderless")?.as_array()?;
    let names: Vec<&str> = groups
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}
