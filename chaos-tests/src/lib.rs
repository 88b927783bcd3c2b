//! Faults against real clusters, and checkers for what the clients saw.
//!
//! A run is: a cluster of real processes (`pspd dev`), a seeded load over HTTP with a recorded history, a fault, and
//! then the checks. A run also checks that the fault really happened and that enough operations met it: without that
//! it is not a pass. Every run prints its seed and the path of its history.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | starts, kills, restarts and asks real processes |
//! | [`workload`] | open-loop writers, one session each, over the gateways that they are given |
//! | [`run`] | writers over a cluster, and the final checks |
//! | [`history`] | what was asked, when, and how it ended, as JSON Lines |
//! | [`checker`] | what a history must show |
//! | [`soak`] | faults for hours: the plan, and what may not grow |
//! | [`sim`] | a whole cluster in one thread, on virtual time, by a seed |
//! | [`invariants`] | what must hold of its replicas at every moment |

pub mod checker;
pub mod cluster;
pub mod history;
pub mod invariants;
pub mod resources;
pub mod run;
pub mod sim;
pub mod soak;
pub mod workload;
