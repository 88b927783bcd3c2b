//! The `pspd` binary: everything is in the library, so that tests can reach it.

/// Returns memory to the system sooner than the C library's allocator, and does not fragment under a mix of sizes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    node::main()
}
