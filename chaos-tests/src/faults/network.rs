//! Faults of the network: any [`LinkSpec`] on any links, and the usual shapes by name.
//!
//! Only links between nodes, unless said otherwise: clients still reach every node. Several can be on one link at once.

use std::time::Duration;

use super::{Fault, Injected};
use crate::rig::Rig;
use crate::rig::link::{Counts, LinkSpec};
use crate::rig::switch::Layer;

/// The same done to some links.
#[derive(Clone, Debug)]
pub struct Links {
    label: String,
    /// From, to.
    links: Vec<(usize, usize)>,
    spec: LinkSpec,
    layer: Option<Layer>,
    before: Counts,
}

impl Links {
    /// Any spec on any links.
    #[must_use]
    pub fn new(label: impl Into<String>, links: Vec<(usize, usize)>, spec: LinkSpec) -> Self {
        Self {
            label: label.into(),
            links,
            spec,
            layer: None,
            before: Counts::default(),
        }
    }

    /// A node that hears no other node, and is heard.
    #[must_use]
    pub fn deaf(node: usize, nodes: usize) -> Self {
        let links = others(node, nodes).map(|other| (other, node)).collect();
        Self::new(format!("node {node} is deaf"), links, LinkSpec::cut())
    }

    /// A node that no other node hears, and that hears them.
    #[must_use]
    pub fn mute(node: usize, nodes: usize) -> Self {
        let links = others(node, nodes).map(|other| (node, other)).collect();
        Self::new(format!("node {node} is mute"), links, LinkSpec::cut())
    }

    /// Two nodes that do not reach each other, while both reach all others.
    #[must_use]
    pub fn partial(a: usize, b: usize) -> Self {
        let label = format!("nodes {a} and {b} do not reach each other");
        Self::new(label, vec![(a, b), (b, a)], LinkSpec::cut())
    }

    /// Each node reaches only the next and the one before, in a circle.
    #[must_use]
    pub fn ring(nodes: usize) -> Self {
        let near = |a: usize, b: usize| (a + 1) % nodes == b || (b + 1) % nodes == a;
        let links = all(nodes).filter(|(a, b)| !near(*a, *b)).collect();
        Self::new("the nodes are a ring", links, LinkSpec::cut())
    }

    /// Each node hears only the one before it, in a circle: no two nodes hear each other.
    #[must_use]
    pub fn one_way_ring(nodes: usize) -> Self {
        let links = all(nodes).filter(|(a, b)| (a + 1) % nodes != *b).collect();
        Self::new("each node hears one other only", links, LinkSpec::cut())
    }

    /// These nodes on one side, all others on the other.
    #[must_use]
    pub fn split(side: &[usize], nodes: usize) -> Self {
        let here = |node: &usize| side.contains(node);
        let links = all(nodes).filter(|(a, b)| here(a) != here(b)).collect();
        Self::new(
            format!("nodes {side:?} are on their own"),
            links,
            LinkSpec::cut(),
        )
    }

    /// Every link, also those of the clients.
    #[must_use]
    pub fn everywhere(label: &str, nodes: usize, spec: LinkSpec) -> Self {
        // The clients are the port after the last node.
        Self::new(label, all(nodes + 1).collect(), spec)
    }

    /// Every link between nodes.
    #[must_use]
    pub fn between_nodes(label: &str, nodes: usize, spec: LinkSpec) -> Self {
        Self::new(label, all(nodes).collect(), spec)
    }

    /// A node that is slow to reach, from everywhere.
    #[must_use]
    pub fn far(node: usize, nodes: usize, delay: Duration) -> Self {
        let there = others(node, nodes + 1).map(|other| (other, node));
        let back = others(node, nodes + 1).map(|other| (node, other));
        let spec = LinkSpec {
            delay,
            ..LinkSpec::default()
        };
        let label = format!("node {node} is {delay:?} away");
        Self::new(label, there.chain(back).collect(), spec)
    }

    /// What happened on its links since it was injected.
    #[must_use]
    pub fn counts(&self, rig: &Rig) -> Counts {
        self.now(rig).since(&self.before)
    }

    fn now(&self, rig: &Rig) -> Counts {
        let counts = self
            .links
            .iter()
            .map(|(from, to)| rig.switch().counts(*from, *to));
        counts.fold(Counts::default(), |all, one| all.plus(&one))
    }

    fn remove(&mut self, rig: &Rig) {
        if let Some(layer) = self.layer.take() {
            rig.switch().remove(layer);
        }
    }
}

fn all(ports: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..ports).flat_map(move |a| others(a, ports).map(move |b| (a, b)))
}

fn others(node: usize, ports: usize) -> impl Iterator<Item = usize> {
    (0..ports).filter(move |other| *other != node)
}

impl Fault for Links {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn inject(&mut self, rig: &Rig) -> Injected {
        if self.links.is_empty() {
            return Injected::Skipped(format!("{}: no such links", self.label));
        }
        self.remove(rig);
        self.before = self.now(rig);
        self.layer = Some(rig.switch().add(&self.links, &self.spec));
        Injected::Installed
    }

    fn met(&mut self, rig: &Rig) -> Injected {
        let counts = self.counts(rig);
        // A link that is only slow harms no packet: that there were some is enough.
        let slow = self.spec.delay + self.spec.jitter > Duration::ZERO || self.spec.rate.is_some();
        let met = counts.harmed() > 0 || (slow && counts.offered > 0);
        Injected::when(met, || {
            format!("{}: no packet met it: {counts:?}", self.label)
        })
    }

    fn heal(&mut self, rig: &Rig) -> Injected {
        self.remove(rig);
        Injected::Installed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_cut_what_their_names_say() {
        assert_eq!(Links::deaf(0, 3).links, [(1, 0), (2, 0)]);
        assert_eq!(Links::mute(0, 3).links, [(0, 1), (0, 2)]);
        assert_eq!(
            Links::split(&[1], 3).links,
            [(0, 1), (1, 0), (1, 2), (2, 1)]
        );
        assert_eq!(Links::one_way_ring(3).links, [(0, 2), (1, 0), (2, 1)]);
        assert!(
            Links::ring(3).links.is_empty(),
            "three nodes are a ring already"
        );
        // In a ring of five each node has two neighbors and two it does not reach.
        assert_eq!(Links::ring(5).links.len(), 10);
        assert_eq!(Links::everywhere("", 3, LinkSpec::cut()).links.len(), 12);
    }
}
