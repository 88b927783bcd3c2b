//! `raft`.
