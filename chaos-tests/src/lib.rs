//! `chaos-tests`.
