//! The same load on several systems in turns, and what ours comes to beside each of the others.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | the systems, the loads, and which of them carries out which |
//! | `turn.rs` | one system: started, loaded, killed, stopped |
//! | `table.rs` | medians, ratios, and what those must be |

pub mod plan;
pub mod table;
pub mod turn;

pub use plan::{CASES, Case, Plan, System};
pub use table::Measured;
