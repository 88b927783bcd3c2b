//! The soak: faults and load for hours, with trends.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | which faults, when, of a seed |
//! | `faults.rs` | each of them, for a rig |
//! | `trend.rs` | whether memory, descriptors, disk or latency grow |
//! | `drive.rs` | both, on a rig |

pub mod drive;
mod faults;
pub mod plan;
pub mod trend;
