//! The points that are measured, one after the other, on one region that runs all the time.

use std::time::Duration;

use serde::Serialize;

use crate::data::Text;
use crate::load::{self, Load, Pace};
use crate::peers::Peer;
use crate::store::Fresh;

const KIB: usize = 1024;
/// Clients, at [`BYTES`] bytes.
const CLIENTS: [usize; 5] = [1, 4, 16, 64, 256];
const BYTES: usize = 4 * KIB;
/// Bytes of a session, at [`ASKING`] clients.
const SIZES: [usize; 7] = [
    2 * KIB,
    4 * KIB,
    16 * KIB,
    64 * KIB,
    256 * KIB,
    1024 * KIB,
    4096 * KIB,
];
const ASKING: usize = 16;
/// Sessions; fewer of large ones.
const KEYS: usize = 1000;
const FEWEST_KEYS: usize = 16;
/// Bytes of all sessions of one size together, if that leaves [`FEWEST_KEYS`].
const ALL_BYTES: usize = 64 * KIB * KIB;
/// After so long a request has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A session is replaced.
    Writes,
    /// A session is read, with every write that was acknowledged before.
    Reads,
    /// A session is read as the node that is asked has it.
    LocalReads,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Writes, Self::Reads, Self::LocalReads];

    /// For tables and pictures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Reads => "linearizable reads",
            Self::LocalReads => "local reads",
        }
    }
}

/// Along which line of the grid a point lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Along {
    /// More and more clients, 4 KiB.
    Clients,
    /// Larger and larger sessions, 16 clients.
    Size,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// On which line.
    pub along: Along,
    /// What is asked.
    pub kind: Kind,
    /// How many ask at a time.
    pub clients: usize,
    /// Bytes of a session.
    pub bytes: usize,
}

/// What came of a point.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// On which line.
    pub along: Along,
    /// What was asked.
    pub kind: Kind,
    /// How many asked at a time.
    pub clients: usize,
    /// Bytes of a session.
    pub bytes: usize,
    /// Requests a second that were answered as wanted.
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Seconds of processor time of all nodes for 1,000 requests.
    pub cpu: f64,
    /// Requests that failed.
    pub failed: u64,
}

/// All points, those of one size together.
#[must_use]
pub fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for kind in Kind::ALL {
        points.extend(CLIENTS.map(|clients| Point {
            along: Along::Clients,
            kind,
            clients,
            bytes: BYTES,
        }));
    }
    for bytes in SIZES {
        points.extend([Kind::Writes, Kind::Reads].map(|kind| Point {
            along: Along::Size,
            kind,
            clients: ASKING,
            bytes,
        }));
    }
    points
}

fn keys(bytes: usize) -> usize {
    (ALL_BYTES / bytes).clamp(FEWEST_KEYS, KEYS)
}

/// Measures all points; each is shown when it is there.
///
/// # Errors
/// In words; what was measured before was shown.
pub async fn measure<P: Peer>(
    peer: &P,
    (time, warm_up): (Duration, Duration),
    each: &mut dyn FnMut(Measured),
) -> Result<(), String> {
    let (store, nodes) = (peer.store(LIMIT).await?, peer.nodes());
    let mut filled = None;
    for point in points() {
        let load = Load {
            clients: point.clients,
            pace: Pace::Closed,
            reads: if point.kind == Kind::Writes { 0 } else { 1000 },
            fresh: if point.kind == Kind::LocalReads {
                Fresh::Local
            } else {
                Fresh::Linearizable
            },
            keys: keys(point.bytes),
            bytes: point.bytes,
            text: Text::Real,
            warm_up,
            time,
            seed: 1,
        };
        if filled != Some(point.bytes) {
            load::fill(&store, &load, 0..load.keys).await?;
            filled = Some(point.bytes);
        }
        let outcome = load::run(&store, &load, &nodes).await?;
        let tally = if point.kind == Kind::Writes {
            &outcome.writes
        } else {
            &outcome.reads
        };
        each(Measured {
            along: point.along,
            kind: point.kind,
            clients: point.clients,
            bytes: point.bytes,
            per_second: outcome.per_second(),
            p50: tally.millis(0.5),
            p99: tally.millis(0.99),
            cpu: outcome.cpu_per_thousand(),
            failed: tally.failed,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_filled_once_and_fit_in_memory() {
        let sizes: Vec<usize> = points().iter().map(|point| point.bytes).collect();
        let changes = sizes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= SIZES.len(), "{changes}");
        assert_eq!(keys(4 * KIB), KEYS);
        assert_eq!(keys(4096 * KIB), FEWEST_KEYS);
        assert_eq!(keys(64 * KIB), 1000);
    }
}
