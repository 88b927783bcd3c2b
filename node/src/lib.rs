//! The process around the store: `pspd serve` is a node, `pspd dev` a whole region on one machine, and the other
//! commands are its client.
//!
//! This crate alone reads the environment: arguments, configuration files, variables, the wall clock, signals; and it
//! alone decides how the process ends ([`exit::Exit`]). What a node does is elsewhere: `gateway` speaks HTTP, `raft`
//! replicates, `storage` keeps; [`serve`] joins them.

use std::process::ExitCode;

mod admin;
mod authority;
pub mod cli;
mod client;
pub mod clock;
pub mod config;
mod console;
pub mod dev;
pub mod exit;
mod join;
pub mod metrics;
mod process;
mod rebuild;
pub mod secrets;
pub mod serve;
mod signals;
mod store;
mod tasks;
mod telemetry;
mod units;

/// Runs the command of the process's arguments and says how the process ends.
#[must_use]
pub fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            console::error(&problem);
            problem.exit().into()
        }
    }
}
