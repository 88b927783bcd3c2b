//! The client commands: `pspd session`, `pspd cluster`, `pspd node`.
//!
//! They speak the same HTTP as everybody else's client, to any node of the cluster, and try the next one when one
//! cannot be reached. Results go to standard output, as a table or as JSON.

use model::id::NodeId;

use crate::authority;
use crate::cli::{ClusterCommand, NodeCommand, SessionCommand, Target};
use crate::exit::Problem;

mod admin;
mod http;
mod report;
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
    match command {
        NodeCommand::InitCa { cluster, out } => authority::create(&cluster, &out),
        NodeCommand::Issue {
            cluster,
            ca,
            id,
            days,
            out,
            may_admit,
        } => {
            let certificate = authority::Certificate {
                node: NodeId(id),
                days,
                may_admit,
            };
            authority::issue(&cluster, &ca, certificate, &out)
        }
        NodeCommand::JoinToken { minutes } => {
            admin::join_token(&target::admin(&target)?, minutes).await
        }
        NodeCommand::Scrub => admin::scrub(&target::admin(&target)?).await,
        NodeCommand::Compact => admin::compact(&target::admin(&target)?).await,
        NodeCommand::Remove { id } => admin::remove(&target::admin(&target)?, id).await,
    }
}
