//! The systems, the loads, and which of them carries out which.

use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::data::Text;
use crate::load::{Load, Pace};
use crate::store::Fresh;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// PSP Edge.
    Psp,
    /// etcd.
    Etcd,
    /// NATS JetStream.
    Nats,
    /// Redis.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// nginx.
    Nginx,
    /// The stand-in of the PSP reference server.
    Reference,
}

/// All of them, ours first.
pub const SYSTEMS: [System; 7] = [
    System::Psp,
    System::Etcd,
    System::Nats,
    System::Redis,
    System::Postgres,
    System::Nginx,
    System::Reference,
];

impl System {
    /// Its name in arguments and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Psp => "psp",
            Self::Etcd => "etcd",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Nginx => "nginx",
            Self::Reference => "reference",
        }
    }

    /// Whether it carries out this load.
    #[must_use]
    pub fn takes(self, case: &Case) -> bool {
        match self {
            Self::Psp | Self::Etcd | Self::Nats => true,
            // Here nobody takes over from a primary that was lost.
            Self::Redis | Self::Postgres => case.rate.is_none(),
            // It serves files.
            Self::Nginx => case.name == "reads-c64",
            // It has one node.
            Self::Reference => case.rate.is_none() && case.fresh == Fresh::Linearizable,
        }
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = SYSTEMS.into_iter().find(|system| system.name() == name);
        let names = SYSTEMS.map(Self::name).join(", ");
        found.ok_or_else(|| format!("{name}: a system is one of {names}"))
    }
}

impl Serialize for System {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name in arguments and results.
    pub name: &'static str,
    /// How many clients.
    pub clients: usize,
    /// All requests read, or all write.
    pub reads: bool,
    /// What reads must show.
    pub fresh: Fresh,
    /// Bytes of a value.
    pub bytes: usize,
    /// Requests a second; then the leader is killed meanwhile. Otherwise as fast as they are answered.
    pub rate: Option<f64>,
}

const KIB: usize = 1024;

const fn case(name: &'static str, clients: usize, reads: bool, bytes: usize) -> Case {
    Case {
        name,
        clients,
        reads,
        fresh: Fresh::Linearizable,
        bytes,
        rate: None,
    }
}

/// All of them, in their order: memory is that after all loads of 4 KiB, and a cluster that lost a node has no further turn.
pub const CASES: [Case; 7] = [
    case("writes-c1", 1, false, 4 * KIB),
    case("writes-c16", 16, false, 4 * KIB),
    case("writes-c64", 64, false, 4 * KIB),
    case("reads-c64", 64, true, 4 * KIB),
    Case {
        fresh: Fresh::Local,
        ..case("local-c64", 64, true, 4 * KIB)
    },
    case("writes-c64-64k", 64, false, 64 * KIB),
    Case {
        rate: Some(400.0),
        ..case("kill", 8, false, 4 * KIB)
    },
];

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Counted time of a load.
    pub time: Duration,
    /// Before it.
    pub warm_up: Duration,
    /// Keys.
    pub keys: usize,
    /// How often a load is repeated in which something else took more than a tenth of a processor.
    pub repeats: u32,
    /// The loads that are carried out.
    pub cases: Vec<Case>,
}

impl Plan {
    /// A load of it.
    #[must_use]
    pub fn load(&self, case: &Case, round: u32) -> Load {
        Load {
            clients: case.clients,
            pace: case.rate.map_or(Pace::Closed, Pace::Open),
            reads: if case.reads { 1000 } else { 0 },
            fresh: case.fresh,
            keys: self.keys,
            bytes: case.bytes,
            text: Text::Real,
            warm_up: self.warm_up,
            // Some need seconds to elect a new leader.
            time: self
                .time
                .mul_f64(if case.rate.is_some() { 1.5 } else { 1.0 }),
            seed: u64::from(round),
        }
    }

    /// When a request has failed.
    #[must_use]
    pub const fn limit(case: &Case) -> Duration {
        Duration::from_secs(if case.rate.is_some() { 1 } else { 10 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for system in SYSTEMS {
            assert_eq!(system.name().parse(), Ok(system));
        }
        assert!("mysql".parse::<System>().is_err());
    }

    #[test]
    fn what_is_compared_is_carried_out_by_both() {
        for target in &super::super::table::TARGETS {
            let case = CASES.iter().find(|case| case.name == target.case);
            let case = case.expect("a load");
            assert!(target.peer.takes(case) && System::Psp.takes(case));
        }
    }
}
