//! Cost as it grows: with the number of sessions, and with the number of shards.
//!
//! | file | what |
//! |---|---|
//! | `region.rs` | a region that can be started again on its data |
//! | `stage.rs` | what is measured at one size |
//! | `report.rs` | tables, exponents and pictures |

pub mod region;
pub mod report;
pub mod stage;
