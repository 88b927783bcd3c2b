//! What befalls the disks of a test's machines.

use model::id::NodeId;
use storage::disk::{SimDisk, SimImage};
use storage::memory::MemoryDisk;

use super::Cluster;

/// All that a machine's disks held for good at one moment, as an old backup of them would.
#[derive(Debug)]
pub struct Image {
    log: SimImage,
    own: SimImage,
    state: MemoryDisk,
}

impl Cluster {
    /// The disk of a node's log, to make it fail.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn log_disk(&self, node: NodeId) -> &SimDisk {
        let machine = self.machines.get(&node).expect("the machine was added");
        &machine.log
    }

    /// Starts all nodes that do not run, but this one.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start_all_but(&mut self, but: NodeId) {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes.into_iter().filter(|node| *node != but) {
            self.start(node).await.expect("the node starts");
        }
    }

    /// What a node's disks hold for good now.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    pub fn image(&self, node: NodeId) -> Image {
        let machine = self.machines.get(&node).expect("the machine was added");
        Image {
            log: machine.log.image(),
            own: machine.own.image(),
            state: machine.state.image(),
        }
    }

    /// Puts an old image on the disks of a node that does not run.
    ///
    /// # Panics
    /// When there is no such machine, or it runs.
    pub fn restore(&mut self, node: NodeId, image: &Image) {
        let machine = self.machines.get_mut(&node).expect("the machine was added");
        assert!(machine.host.is_none(), "{node} runs");
        machine.log = machine.log.restore(&image.log);
        machine.own = machine.own.restore(&image.own);
        machine.state = image.state.image();
    }
}
