//! The scenarios: what a cluster must survive, each with a seed, on real disks and a real network.
//!
//! They need root, and take both processors: `make chaos` runs them one after the other. `SEED=n` runs one with a given
//! seed. Each file is one scenario; its name says the fault, its tests say what holds.

#![expect(clippy::print_stdout, reason = "the figures of a run are its result")]

mod own;
mod play;
mod rig_itself;
mod s01_power_cut_of_all_nodes_under_load;
mod s02_leader_killed_every_two_seconds;
mod s03_leader_paused_beyond_its_lease;
mod s04_minority_and_majority;
mod s05_deaf_mute_partial_ring;
mod s06_log_flipped_deleted_torn;
mod s07_state_flipped;
mod s08_sync_fails_or_lies;
mod s09_disk_full;
mod s10_slow_disk_or_processor;
mod s12_wiped_or_old_disk;
mod s13_wall_clocks_jump;
mod s14_all_links_lossy;
mod s15_snapshot_interrupted;

/// The nodes' program: the one that `PSPD` names (an absolute path), or as this package builds it.
fn pspd() -> String {
    let given = std::env::vars().find(|(name, _)| name == "PSPD");
    given.map_or_else(|| env!("CARGO_BIN_EXE_victim").to_owned(), |(_, path)| path)
}

/// The seed of a run: given, or drawn. Printed, so that it can be given.
fn seed(scenario: &str) -> u64 {
    let given = std::env::vars().find(|(name, _)| name == "SEED");
    let seed = given.and_then(|(_, value)| value.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("SEED={seed} scenario {scenario}");
    seed
}
