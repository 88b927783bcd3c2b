//! Whether a fault is there.
//!
//! A fault that was not installed proves nothing: the run's coverage verdict says so.

/// Whether a fault is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It took hold.
    Installed,
    /// It was not tried, and why.
    Skipped(String),
    /// It was tried, and nothing shows that it took hold.
    Indeterminate(String),
}

impl Injected {
    /// Whether it took hold.
    #[must_use]
    pub const fn is_installed(&self) -> bool {
        matches!(self, Self::Installed)
    }
}
