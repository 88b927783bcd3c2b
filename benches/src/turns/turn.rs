//! One system's turn: started alone, loaded with one thing after the other, its leader killed at the end, stopped; what it wrote is
//! removed. After a turn that did not end well it stays, with its logs, until the system starts again.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::{Case, Measured, Plan, System};
use crate::load::{self, Load, Outcome};
use crate::peers::{Peer, Place, signal};
use crate::procs;

/// What else may run meanwhile, in processors.
const OTHERS: f64 = 0.1;
/// Of the counted time of a load, when the leader is killed.
const KILLED_AFTER: f64 = 0.2;

/// Gives a system its turn; every result is shown to `each` when it is there.
///
/// # Errors
/// In words; what was measured before was shown.
pub async fn turn<P: Peer>(
    place: &Place,
    system: System,
    (plan, round): (&Plan, u32),
    each: &mut dyn FnMut(Measured),
) -> Result<(), String> {
    let peer = P::start(place).await?;
    let done = loads(&peer, system, (plan, round), each).await;
    peer.stop().await;
    if done.is_ok() {
        clean(place.folder.join(system.name())).await?;
    }
    done
}

/// Removes what a system wrote, and waits for the disk: nothing of it is left to be written while the next one is measured.
async fn clean(folder: PathBuf) -> Result<(), String> {
    let removed = tokio::task::spawn_blocking(move || {
        let removed = std::fs::remove_dir_all(&folder);
        rustix::fs::sync();
        removed.map_err(|error| format!("{}: {error}", folder.display()))
    });
    removed.await.map_err(|error| error.to_string())?
}

async fn loads<P: Peer>(
    peer: &P,
    system: System,
    (plan, round): (&Plan, u32),
    each: &mut dyn FnMut(Measured),
) -> Result<(), String> {
    let mut clients: Option<(P::Store, Duration)> = None;
    let mut filled = None;
    for case in plan.cases.iter().filter(|case| system.takes(case)) {
        let limit = Plan::limit(case);
        let store = match clients.take().filter(|(_, known)| *known == limit) {
            Some((store, _)) => store,
            None => {
                filled = None;
                peer.store(limit).await?
            }
        };
        let load = plan.load(case, round);
        if filled != Some(case.bytes) {
            load::fill(&store, &load, 0..load.keys).await?;
            filled = Some(case.bytes);
        }
        let mut tries = 0;
        let measured = loop {
            let (outcome, others) = once(peer, &store, case, &load).await?;
            tries += 1;
            let killed = case.rate.is_some();
            if killed || others <= OTHERS || tries > plan.repeats {
                break Measured::new(system, case, round, (&outcome, peer.nodes().len(), others));
            }
        };
        each(measured);
        clients = Some((store, limit));
    }
    Ok(())
}

/// Carries a load out; what came of it, and how many processors something else took meanwhile.
async fn once<P: Peer>(
    peer: &P,
    store: &P::Store,
    case: &Case,
    load: &Load,
) -> Result<(Outcome, f64), String> {
    let victim = match case.rate {
        Some(_) => Some(peer.leader().await?),
        None => None,
    };
    let nodes = peer.nodes();
    let beside = async {
        sleep(load.warm_up).await;
        let before = others();
        if let Some(pid) = victim {
            sleep(load.time.mul_f64(KILLED_AFTER)).await;
            signal(pid, Signal::KILL)?;
            return Ok(0.0);
        }
        sleep(load.time).await;
        let took = others().saturating_sub(before);
        Ok::<_, String>(took.as_secs_f64() / load.time.as_secs_f64().max(f64::EPSILON))
    };
    let (outcome, others) = tokio::join!(load::run(store, load, &nodes), beside);
    Ok((outcome?, others?))
}

/// Time of all programs but us and those that we started: the servers are all ours.
fn others() -> Duration {
    let own = procs::usage(&[std::process::id()]).cpu;
    procs::busy().saturating_sub(own)
}
