//! Ours alone: throughput, latency and processor time over the number of clients and over the size of sessions.
//!
//! | file | what |
//! |---|---|
//! | `grid.rs` | what is measured, and how |
//! | `picture.rs` | lines over logarithmic axes, as SVG |
//! | `report.rs` | the table and the pictures |

pub mod grid;
pub mod picture;
pub mod report;
