//! `dev.json`: where the nodes of a running `pspd dev` are, for scripts and for the client commands.
//!
//! There when the cluster is ready, written in one step, mode 0600 because it holds the API key; removed when the
//! cluster starts and ends; rewritten when a node was restarted. A node that ended keeps its line, with the process
//! that it had.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::secrets::write_private;

/// Its name in the folder of `pspd dev`.
pub(super) const FILE: &str = "dev.json";

/// What `dev.json` holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key that clients show.
    pub api_key: String,
    /// The nodes, by position.
    pub nodes: Vec<RecordedNode>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// One node in `dev.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedNode {
    /// Its position, from 0. Stays the same when the node comes back under a new id.
    pub id: u16,
    /// Its process.
    pub pid: u32,
    /// Its gateway, a whole URL.
    pub http: String,
    /// Its admin listener, a whole URL.
    pub admin: String,
}

impl Record {
    /// The record in this folder, if a cluster runs there.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Puts the record into its place.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_private(
            path,
            &serde_json::to_vec_pretty(self).map_err(io::Error::from)?,
        )
    }
}
