//! The `pspd` binary.
fn main() {}
