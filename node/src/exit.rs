//! How the process ends: the table of exit codes, and [`Problem`], an error on its way to a person.
//!
//! A problem has one sentence that says what failed, the causes below it, and, where there is one, a hint what to do.
//! None of them holds a secret or a session's content.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes of `pspd`. Numbers do not change between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no number of its own.
    Failed = 1,
    /// The arguments are wrong (also clap's number).
    Usage = 2,
    /// Configuration, secrets or a data folder are not as they should be: starting again does not help.
    Config = 3,
    /// The cluster, or the part that was asked for, cannot be reached or does not serve now.
    Unavailable = 4,
    /// A write may or may not have been applied.
    Unknown = 5,
    /// There is no such session or node.
    NotFound = 6,
    /// The request was refused: credentials, content or version.
    Refused = 7,
    /// A node ended because its disk or log failed: starting again may help.
    Fatal = 70,
    /// A node's log is damaged, or the cluster refuses its disk: it must be rebuilt under a new id. With
    /// `cluster.rebuild = "auto"`, starting again does that.
    Rebuild = 71,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error for a person at a terminal.
#[derive(Debug)]
pub struct Problem {
    exit: Exit,
    text: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// What failed, in one sentence without its cause.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
            hint: None,
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code that it leads to.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do about it, if that is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

/// Turns any error into a [`Problem`] where it is handled.
pub trait OrProblem<T> {
    /// The value, or a problem with this exit code and text, caused by the error.
    ///
    /// # Errors
    /// The problem.
    fn or_problem(self, exit: Exit, text: impl FnOnce() -> String) -> Result<T, Problem>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrProblem<T> for Result<T, E> {
    fn or_problem(self, exit: Exit, text: impl FnOnce() -> String) -> Result<T, Problem> {
        self.map_err(|error| Problem::new(exit, text()).because(error))
    }
}

/// An error and all its causes in one line, each said once.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_every_cause_once() {
        let io = std::io::Error::other("no space left");
        let problem = Problem::new(Exit::Failed, "cannot write dev.json").because(io);
        assert_eq!(chain(&problem), "cannot write dev.json: no space left");
    }
}
