//! The soak: faults and load for hours, with trends.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | which faults, when, of a seed |
//! | `trend.rs` | whether memory, descriptors, disk or latency grow |

pub mod plan;
pub mod trend;
