//! The `dev.json` of a running `pspd dev`: where its nodes are, and a key for them.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

/// A region on this machine.
#[derive(Clone, Deserialize)]
pub struct Dev {
    /// A key for it: a secret.
    pub api_key: String,
    /// Its nodes, by position.
    pub nodes: Vec<Node>,
}

impl fmt::Debug for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dev")
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// One of its nodes.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its process.
    pub pid: u32,
    /// Where it takes requests, a whole URL.
    pub http: String,
    /// Where it tells about itself, a whole URL.
    pub admin: String,
}

impl Node {
    /// The same as an address.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn address(&self) -> Result<SocketAddr, String> {
        let address = self.http.strip_prefix("http://").unwrap_or(&self.http);
        address
            .parse()
            .map_err(|error| format!("{}: {error}", self.http))
    }
}

impl Dev {
    /// Of the region that runs in this folder.
    ///
    /// # Errors
    /// In words, when none runs there.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("dev.json");
        let fails = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let bytes = std::fs::read(&path).map_err(|error| fails(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| fails(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_its_key_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Dev::read(folder.path()).is_err());
        let text = r#"{"api_key": "k1", "nodes": [{"id": 0, "pid": 7, "http": "http://127.0.0.1:7300", "admin": "http://127.0.0.1:7400"}]}"#;
        std::fs::write(folder.path().join("dev.json"), text).unwrap();
        let dev = Dev::read(folder.path()).unwrap();
        assert_eq!((dev.nodes[0].pid, &*dev.api_key), (7, "k1"));
        assert_eq!(
            dev.nodes[0].address(),
            Ok("127.0.0.1:7300".parse().unwrap())
        );
        assert!(!format!("{dev:?}").contains("k1"));
    }
}
