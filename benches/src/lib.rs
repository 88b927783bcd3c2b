//! `benches`.
