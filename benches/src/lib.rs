//! Measurements: a load generator for PSP Edge and for those it is compared with, and benches of its hot parts.
//!
//! | file | what |
//! |---|---|
//! | `data.rs` | storage states as browsers have them |
//! | `load.rs` | clients, open and closed; latencies |
//! | `store/` | what is measured, each in its own protocol |
//! | `dev.rs` | where a region of `pspd dev` is |
//! | `procs.rs` | what servers cost |
//! | `bin/pspd-load.rs` | a load on a running region |
//! | `../benches` | Criterion |
//!
//! A figure from here says something beside another one of the same run only: machines differ, and so do their hours.

pub mod data;
pub mod dev;
pub mod load;
pub mod procs;
pub mod store;
