//! Faults against real clusters, and checkers for what the clients saw.
//!
//! A run is: a cluster of real processes (`pspd dev`), a seeded load over HTTP with a recorded history, a fault, and
//! then the checks. A run also checks that the fault really happened and that enough operations met it: without that
//! it is not a pass. Every run prints its seed and the path of its history.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | starts, kills, restarts and asks real processes |
//! | [`rig`] | the same on real disks and a real network, all of it to be broken |
//! | [`faults`] | what is done to a rig, in parts that can be combined |
//! | [`target`] | what checks need to know of any cluster |
//! | [`workload`] | open-loop clients: careful ones over many sessions, careless writers with one each |
//! | [`run`] | writers over a cluster, and the final checks |
//! | [`scenario`] | one run from its beginning to its two verdicts |
//! | [`history`] | what was asked, when, and how it ended, as JSON Lines |
//! | [`checker`] | what a history must show |
//! | [`soak`] | faults for hours: the plan, and what may not grow |
//! | [`report`] | a run as a page for a person, and as a line for a table |
//! | [`sim`] | a whole cluster in one thread, on virtual time, by a seed |
//! | [`invariants`] | what must hold of its replicas at every moment |

pub mod checker;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod report;
pub mod resources;
pub mod rig;
pub mod run;
pub mod scenario;
pub mod sim;
pub mod soak;
pub mod target;
pub mod workload;
