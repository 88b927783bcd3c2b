//! `recheck HISTORY [MILLISECONDS]`: what the checkers say of a history that a run left; clocks are allowed to be off by so much.

#![expect(clippy::print_stdout, reason = "the lines are its result")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::{checker, history};
use tokio::time::Instant;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        println!("usage: recheck HISTORY [MILLISECONDS]");
        return ExitCode::from(2);
    };
    let tolerance = arguments.next().and_then(|text| text.parse().ok());
    let tolerance = Duration::from_millis(tolerance.unwrap_or(1500));
    let operations = match history::load(Path::new(&path)) {
        Ok(operations) => operations,
        Err(error) => {
            println!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    let from = Instant::now();
    let (findings, undecided) = checker::check(&operations, tolerance);
    for finding in &findings {
        println!("VIOLATION {finding}");
    }
    for session in &undecided {
        println!("not decided: session {session}");
    }
    println!(
        "{} operations, {} violations, {} sessions not decided; {:?}",
        operations.len(),
        findings.len(),
        undecided.len(),
        from.elapsed()
    );
    ExitCode::from(u8::from(!findings.is_empty() || !undecided.is_empty()))
}
