//! `pspd dev`: a whole region on one machine, one process a node, on the loopback interface.
//!
//! | file | what |
//! |---|---|
//! | [`layout`] | what is where in the folder, and on which port |
//! | [`cluster`] | makes keys, certificates and configurations, once |
//! | [`child`] | one node's process: start, signal, wait |
//! | [`supervisor`] | starts all, answers commands, stops all |
//! | [`control`] | the socket by which `pspd dev node ...` talks to the supervisor |
//! | [`record`] | `dev.json`, for scripts |
//! | [`message`] | what is printed when the cluster is ready |
//!
//! Guarantees: no node outlives the supervisor, however that dies; a node that ended stays so until it is told
//! otherwise; the folder is used by one supervisor at a time, and only with the numbers that it was made with.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cli::{DevArgs, DevCluster, DevCommand};
use crate::console;
use crate::exit::{Exit, OrProblem as _, Problem};

mod child;
mod cluster;
mod control;
mod layout;
mod message;
mod record;
mod slots;
mod supervisor;

pub use record::{Record, RecordedNode};

/// The folder of `pspd dev` when none is named.
pub const DEFAULT_FOLDER: &str = ".run/dev";

/// What can be done to one node of a running `pspd dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Start a node that ended, and wait until it is ready.
    Start,
    /// End a node as a planned restart does: it hands its leaderships over first.
    Stop,
    /// End a node with SIGKILL, as a crash does.
    Kill,
    /// Remove the disk of a node that ended. When it is started, it joins under a new id.
    Wipe,
}

/// Runs a cluster, or one command for a running one.
pub(crate) async fn run(args: DevArgs) -> Result<(), Problem> {
    match args.command {
        None => run_cluster(args.cluster).await,
        Some(DevCommand::Node(command)) => {
            let request = control::Request {
                verb: command.verb,
                node: command.id,
            };
            let text = control::ask(&command.data, &request).await?;
            console::line(&text).or_problem(Exit::Failed, || "cannot write the result".to_owned())
        }
    }
}

async fn run_cluster(args: DevCluster) -> Result<(), Problem> {
    let layout = layout::Layout::claim(&args.data, args.nodes, args.port)?;
    cluster::make(&layout)?;
    supervisor::run(layout, &args.log, args.settings.clone()).await
}
