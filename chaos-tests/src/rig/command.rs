//! Runs the system's own tools, and waits for things without a clock of its own.
//!
//! A tool that fails is an error with its command line and what it said. Nothing here is retried.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// Runs a command to its end; what it printed.
///
/// # Errors
/// With a sentence that has the command line and its error output, when it cannot be started or does not succeed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}", line()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{}` ended with {}: {}",
        line(),
        output.status,
        said.trim()
    ))
}

/// A path as an argument.
///
/// # Panics
/// When it is not text: all of the rig's own are.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are text")
}

/// Waits for a condition on the calling thread; whether it came within `limit`.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
