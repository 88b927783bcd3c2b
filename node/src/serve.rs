//! `pspd serve`: one node.
use crate::config::Config;
use crate::exit::{Exit, OrProblem as _, Problem};
use crate::signals::Signals;

/// Runs a node until it is told to stop.
///
/// # Errors
/// What the process is to end with.
pub async fn run(_config: Config) -> Result<(), Problem> {
    let mut signals =
        Signals::listen().or_problem(Exit::Failed, || "cannot listen for signals".to_owned())?;
    signals.next().await;
    Ok(())
}
