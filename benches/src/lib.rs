//! Measurements: a load generator for PSP Edge and for those it is compared with, and benches of its hot parts.
//!
//! | file | what |
//! |---|---|
//! | `data.rs` | storage states as browsers have them |
//! | `load.rs` | clients, open and closed; latencies |
//! | `store/` | what is measured, each in its own protocol |
//! | `peers/` | each of them, started on this machine |
//! | `turns/` | the same load on all of them in turns; ratios, and what they must be |
//! | `alone/` | ours over clients and over size; a table and pictures |
//! | `growth/` | ours over the number of sessions and of shards; tables, exponents and pictures |
//! | `dev.rs` | where a region of `pspd dev` is |
//! | `procs.rs` | what servers cost |
//! | `bin/pspd-load.rs` | a load on a running region |
//! | `bin/bench-peers.rs` | the turns, from the command line |
//! | `bin/bench-ours.rs` | ours alone, from the command line |
//! | `bin/bench-growth.rs` | cost as it grows, from the command line |
//! | `../benches` | Criterion |
//!
//! A figure from here says something beside another one of the same run only: machines differ, and so do their hours.

pub mod alone;
pub mod data;
pub mod dev;
pub mod growth;
pub mod load;
pub mod peers;
pub mod procs;
pub mod store;
pub mod turns;
