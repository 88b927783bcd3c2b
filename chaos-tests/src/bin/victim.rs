//! The node as the tests start it: `pspd` under a name that this package's tests can find.

fn main() -> std::process::ExitCode {
    node::main()
}
