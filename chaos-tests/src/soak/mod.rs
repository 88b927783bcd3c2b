//! The soak: faults and load for hours, with trends.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | which faults, when, of a seed |
//! | `trend.rs` | whether memory, descriptors, disk or latency grow |
//! | `drive.rs` | both, on a rig |

pub mod drive;
pub mod plan;
pub mod trend;
