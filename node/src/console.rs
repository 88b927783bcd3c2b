//! What a command says to a person or a script: results on standard output, everything else on standard error.
//!
//! A closed pipe ends output in silence: the reader has what it wanted.

use std::io::{self, Write as _};

use crate::exit::{Problem, chain};

/// Writes a result to standard output, as it is.
pub(crate) fn out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    pipe_closed_is_fine(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> io::Result<()> {
    out(format!("{text}\n").as_bytes())
}

/// Tells a person something that is not the result.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr().lock(), "pspd: {text}"));
}

/// Tells why a command failed, and what to do about it.
pub(crate) fn error(problem: &Problem) {
    note(&format!("error: {}", chain(problem)));
    if let Some(hint) = problem.advice() {
        note(&format!("hint: {hint}"));
    }
}

fn pipe_closed_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
