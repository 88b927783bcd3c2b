//! What the supervisor knows of its nodes, and what each event does to that. No process, no clock, no waiting here.
//!
//! In: commands, ends of processes, readiness. Out: an [`Action`] for the supervisor, and answers to those who asked.

use std::process::ExitStatus;

use tokio::sync::oneshot;

use super::Verb;
use super::control::{Answer, Pending};

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No process.
    Down,
    /// A wiped node waits for its join token; no process yet.
    Joining,
    /// A process that is not ready yet.
    Starting,
    /// A process that was ready.
    Ready,
    /// A process that was told to end.
    Ending,
}

/// What the supervisor is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// Start the node's process, after it got a token if its disk is wiped.
    Start(u16),
    /// Tell the node's process to end as a planned restart does.
    Stop(u16),
    /// End the node's process at once.
    Kill(u16),
    /// Remove the node's disk.
    Wipe(u16),
}

#[derive(Debug)]
struct Slot {
    phase: Phase,
    pid: u32,
    waiting: Vec<oneshot::Sender<Answer>>,
}

/// All nodes, by position.
#[derive(Debug)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// As many nodes, all down.
    pub(super) fn new(count: usize) -> Self {
        let slot = || Slot {
            phase: Phase::Down,
            pid: 0,
            waiting: Vec::new(),
        };
        Self((0..count).map(|_| slot()).collect())
    }

    /// What a command leads to. It is answered at once, or when the node is where it is to be.
    pub(super) fn command(&mut self, (request, reply): Pending) -> Action {
        let node = request.node;
        let Some(slot) = self.0.get_mut(usize::from(node)) else {
            answer(
                reply,
                Err(format!("there is no node {node}: positions begin at 0")),
            );
            return Action::None;
        };
        let running = matches!(slot.phase, Phase::Starting | Phase::Ready);
        let refusal = match (request.verb, slot.phase) {
            (Verb::Start | Verb::Wipe, Phase::Down) => None,
            (Verb::Stop | Verb::Kill, _) if running => None,
            // A node that hangs while it stops can still be killed.
            (Verb::Kill, Phase::Ending) => None,
            (Verb::Start, _) if running => Some("is running already"),
            (Verb::Wipe, _) if running => Some("is running: stop or kill it first"),
            (_, Phase::Ending) => Some("is ending"),
            (_, Phase::Joining) => Some("is joining"),
            (_, _) => Some("is not running"),
        };
        if let Some(refusal) = refusal {
            answer(reply, Err(format!("node {node} {refusal}")));
            return Action::None;
        }
        match request.verb {
            Verb::Wipe => {
                slot.waiting.push(reply);
                Action::Wipe(node)
            }
            Verb::Start => {
                slot.phase = Phase::Joining;
                slot.waiting.push(reply);
                Action::Start(node)
            }
            Verb::Stop | Verb::Kill => {
                slot.phase = Phase::Ending;
                slot.waiting.push(reply);
                if request.verb == Verb::Stop {
                    Action::Stop(node)
                } else {
                    Action::Kill(node)
                }
            }
        }
    }

    /// A process was started.
    pub(super) fn started(&mut self, node: u16, pid: u32) {
        let slot = self.slot(node);
        slot.phase = Phase::Starting;
        slot.pid = pid;
    }

    /// A node was wiped, or could not be; or could not be started.
    pub(super) fn settled(&mut self, node: u16, result: Result<&str, String>) {
        let slot = self.slot(node);
        slot.phase = Phase::Down;
        slot.answer(&result.map(|what| format!("node {node} {what}")));
    }

    /// A process answered that it is ready, or did not within its time. False for a process that is not the node's
    /// newest, or that was told to end since.
    pub(super) fn ready(&mut self, node: u16, pid: u32, result: Result<(), String>) -> bool {
        let slot = self.slot(node);
        if slot.pid != pid || slot.phase != Phase::Starting {
            return false;
        }
        slot.phase = Phase::Ready;
        slot.answer(&result.map(|()| format!("node {node} is ready, process {pid}")));
        true
    }

    /// A process ended; whether that was asked for.
    pub(super) fn ended(&mut self, node: u16, status: Option<ExitStatus>) -> bool {
        let slot = self.slot(node);
        let how = status.map_or_else(
            || "in an unknown way".to_owned(),
            |status| status.to_string(),
        );
        let wanted = slot.phase == Phase::Ending;
        let text = format!("node {node} ended ({how})");
        slot.phase = Phase::Down;
        slot.answer(&if wanted { Ok(text) } else { Err(text) });
        wanted
    }

    /// Where a node is.
    pub(super) fn phase(&self, node: u16) -> Phase {
        self.0
            .get(usize::from(node))
            .map_or(Phase::Down, |slot| slot.phase)
    }

    /// The newest process of each node, by position; zero for one that never had any.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|slot| slot.pid)
    }

    /// Whether no node is on its way to being ready.
    pub(super) fn all_settled(&self) -> bool {
        self.0
            .iter()
            .all(|slot| matches!(slot.phase, Phase::Ready | Phase::Down))
    }

    /// Whether any process runs.
    pub(super) fn any_process(&self) -> bool {
        let runs = |slot: &Slot| !matches!(slot.phase, Phase::Down | Phase::Joining);
        self.0.iter().any(runs)
    }

    fn slot(&mut self, node: u16) -> &mut Slot {
        self.0
            .get_mut(usize::from(node))
            .expect("events come from nodes that were started")
    }
}

impl Slot {
    fn answer(&mut self, result: &Answer) {
        for reply in self.waiting.drain(..) {
            answer(reply, result.clone());
        }
    }
}

fn answer(reply: oneshot::Sender<Answer>, result: Answer) {
    // The asker may be gone.
    drop(reply.send(result));
}

#[cfg(test)]
mod tests {
    use super::super::control::Request;
    use super::*;

    fn ask(slots: &mut Slots, verb: Verb, node: u16) -> (Action, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (slots.command((Request { verb, node }, reply)), answer)
    }

    #[test]
    fn a_killed_node_stays_down_until_it_is_started() {
        let mut slots = Slots::new(3);
        slots.started(1, 42);
        assert!(slots.ready(1, 42, Ok(())));
        let (action, mut killed) = ask(&mut slots, Verb::Kill, 1);
        assert_eq!(action, Action::Kill(1));
        assert!(slots.ended(1, None), "it was asked for");
        assert!(killed.try_recv().unwrap().is_ok());
        assert_eq!(slots.phase(1), Phase::Down);
        let (action, mut started) = ask(&mut slots, Verb::Start, 1);
        assert_eq!(action, Action::Start(1));
        slots.started(1, 43);
        assert!(started.try_recv().is_err(), "it is not ready yet");
        assert!(!slots.ready(1, 42, Ok(())), "an old process does not count");
        assert!(slots.ready(1, 43, Ok(())));
        assert!(started.try_recv().unwrap().unwrap().contains("43"));
    }

    #[test]
    fn commands_that_do_not_fit_are_refused_in_words() {
        let mut slots = Slots::new(1);
        for verb in [Verb::Stop, Verb::Kill] {
            let (action, mut answer) = ask(&mut slots, verb, 0);
            assert_eq!(action, Action::None);
            assert_eq!(
                answer.try_recv().unwrap().unwrap_err(),
                "node 0 is not running"
            );
        }
        slots.started(0, 1);
        for verb in [Verb::Start, Verb::Wipe] {
            let (action, mut answer) = ask(&mut slots, verb, 0);
            assert_eq!(action, Action::None);
            assert!(answer.try_recv().unwrap().unwrap_err().contains("running"));
        }
        assert!(
            ask(&mut slots, Verb::Stop, 7)
                .1
                .try_recv()
                .unwrap()
                .is_err()
        );
    }

    #[test]
    fn a_node_that_dies_while_it_starts_is_reported() {
        let mut slots = Slots::new(1);
        let (_, mut answer) = ask(&mut slots, Verb::Start, 0);
        slots.started(0, 9);
        assert!(!slots.ended(0, None));
        assert!(answer.try_recv().unwrap().is_err());
    }
}
