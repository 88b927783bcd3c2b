//! Faults for a [`Rig`], as small parts that can be combined.
//!
//! Each says whether it is *installed*, was *skipped*, or is *indeterminate*: asked for, but nothing shows that it took hold. What a
//! fault did is asked apart from whether it was installed: a link that loses packets has done nothing while none come. Every fault
//! can be taken back, and a fault that was never injected can be taken back too.
//!
//! | module | what |
//! |---|---|
//! | [`network`] | cut, deaf, mute, partial, ring, lossy: any link in any direction |
//! | [`process`] | killed, power cut, paused, frozen |
//! | [`disk`] | syncs that fail, wait or lie; full, flipped, wiped, old |
//! | [`log`] | a log that is flipped, gone or torn |
//! | [`pressure`] | little processor time, few writes a second |
//! | [`clock`] | a wall clock that jumps |

use std::fmt::Debug;

use crate::rig::Rig;

pub mod clock;
pub mod disk;
mod group;
pub mod log;
pub mod network;
pub mod pressure;
pub mod process;

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

    /// Installed if nothing failed.
    #[must_use]
    pub fn of(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Installed,
            Err(why) => Self::Indeterminate(why),
        }
    }

    /// Installed if a condition holds, which the text says otherwise.
    #[must_use]
    pub fn when(holds: bool, otherwise: impl FnOnce() -> String) -> Self {
        if holds {
            Self::Installed
        } else {
            Self::Indeterminate(otherwise())
        }
    }

    /// The worse of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.is_installed() { other } else { self }
    }
}

/// One fault.
pub trait Fault: Debug + Send {
    /// What it is and to whom, for a timeline.
    fn label(&self) -> String;

    /// Makes it happen.
    fn inject(&mut self, rig: &Rig) -> Injected;

    /// Whether it did something since it was injected: packets were dropped, calls failed, the process stands still.
    fn met(&mut self, rig: &Rig) -> Injected;

    /// Takes it back: afterwards the nodes run and nothing is in their way, as far as this fault goes.
    fn heal(&mut self, rig: &Rig) -> Injected;
}
