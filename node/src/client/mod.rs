//! The client commands: `pspd session`, `pspd cluster`, `pspd node`.
//!
//! They speak the same HTTP as everybody else's client, to any node of the cluster, and try the next one when one
//! cannot be reached. Results go to standard output, as a table or as JSON.

use crate::cli::{ClusterCommand, NodeCommand, SessionCommand, Target};
use crate::exit::Problem;

mod admin;
mod http;
mod session;
mod table;
mod target;

pub(crate) use admin::make_join_token;
pub(crate) use http::{Call, Http};

/// `pspd session ...`
pub(crate) async fn session(target: Target, command: SessionCommand) -> Result<(), Problem> {
    session::run(&target::sessions(&target)?, command).await
}

/// `pspd cluster ...`
pub(crate) async fn cluster(target: Target, command: ClusterCommand) -> Result<(), Problem> {
    let ClusterCommand::Status { output } = command;
    admin::status(&target::admin(&target)?, output).await
}

/// `pspd node ...`
pub(crate) async fn node(target: Target, command: NodeCommand) -> Result<(), Problem> {
    let servers = target::admin(&target)?;
    match command {
        NodeCommand::JoinToken { replaces, minutes } => {
            admin::join_token(&servers, replaces, minutes).await
        }
        NodeCommand::Remove { id } => admin::remove(&servers, id).await,
    }
}
