//! The crate's own tests of groups: openraft's suite on our stores, and clusters on simulated machines.

mod conformance;
mod damage;
mod disks;
mod groups;
mod hashes;
mod messages;
mod pipeline;
mod snapshots;
