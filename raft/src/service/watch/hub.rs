//! The recent changes of each group, and the watchers that wait for the next.
//!
//! Fed from inside `apply`, so nothing here waits: a bounded history and bounded queues, and what does not fit is
//! dropped and said to be. Bodies in it are sealed, as the state machine has them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use model::id::{GroupId, SessionId, TenantId, Version};
use model::shard::{Body, Event, EventKind};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

type Who = (TenantId, SessionId);

/// Most changes in a group's history: what a resuming watcher searches.
const MAX_HISTORY: usize = 4096;
/// What a change costs beside its body, about.
const EVENT_BYTES: usize = 256;

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// The group's state was replaced.
    replaced: bool,
}

/// One watcher's queue.
struct Subscriber {
    queue: Mutex<Queue>,
    wake: Notify,
    limit: usize,
}

impl Subscriber {
    fn push(&self, event: &Arc<Event>) {
        let mut queue = self.queue.lock();
        // The newest is enough: who takes it sees by its version that others are missing.
        if queue.events.len() >= self.limit {
            queue.events.clear();
        }
        queue.events.push_back(Arc::clone(event));
        drop(queue);
        self.wake.notify_one();
    }

    fn replace(&self) {
        *self.queue.lock() = Queue {
            events: VecDeque::new(),
            replaced: true,
        };
        self.wake.notify_one();
    }
}

/// What a watcher's queue gives.
pub(super) enum Heard {
    Event(Arc<Event>),
    /// The group's state was replaced: what happened before is not known.
    Replaced,
}

#[derive(Default)]
struct GroupHub {
    history: VecDeque<Arc<Event>>,
    bytes: usize,
    subscribers: BTreeMap<Who, Vec<Arc<Subscriber>>>,
}

fn weight(event: &Event) -> usize {
    let EventKind::Updated(live, body) = &event.kind else {
        return EVENT_BYTES;
    };
    let body = match body {
        Body::Inline(blob) => blob.0.len(),
        Body::Chunked { manifest, chunks } => manifest.0.len() + chunks.len() * 16,
    };
    EVENT_BYTES + live.summary.0.len() + live.remembered.weight() + body
}

/// The changes and watchers of all groups on this node.
pub(in crate::service) struct Hub {
    groups: RwLock<HashMap<GroupId, Arc<Mutex<GroupHub>>>>,
    history_bytes: usize,
    queue_limit: usize,
}

impl Hub {
    pub(in crate::service) fn new(history_bytes: usize, queue_limit: usize) -> Self {
        Self {
            groups: RwLock::default(),
            history_bytes,
            queue_limit: queue_limit.max(1),
        }
    }

    fn group(&self, group: GroupId) -> Arc<Mutex<GroupHub>> {
        if let Some(hub) = self.groups.read().get(&group) {
            return Arc::clone(hub);
        }
        Arc::clone(self.groups.write().entry(group).or_default())
    }

    /// See [`crate::shard::EventSink::committed`].
    pub(in crate::service) fn committed(&self, group: GroupId, events: Vec<Event>) {
        let hub = self.group(group);
        let mut hub = hub.lock();
        for mut event in events {
            // Nobody who watches asks for these.
            if let EventKind::Updated(live, _) = &mut event.kind {
                live.remembered.clear();
            }
            let event = Arc::new(event);
            for subscriber in hub
                .subscribers
                .get(&(event.tenant, event.session))
                .into_iter()
                .flatten()
            {
                subscriber.push(&event);
            }
            hub.bytes += weight(&event);
            hub.history.push_back(event);
        }
        while hub.bytes > self.history_bytes || hub.history.len() > MAX_HISTORY {
            let Some(oldest) = hub.history.pop_front() else {
                break;
            };
            hub.bytes -= weight(&oldest);
        }
    }

    /// See [`crate::shard::EventSink::replaced`].
    pub(in crate::service) fn replaced(&self, group: GroupId) {
        let hub = self.group(group);
        let mut hub = hub.lock();
        hub.history.clear();
        hub.bytes = 0;
        for subscriber in hub.subscribers.values().flatten() {
            subscriber.replace();
        }
    }

    /// Begins to hear of a session.
    pub(super) fn subscribe(&self, group: GroupId, who: Who) -> Subscription {
        let subscriber = Arc::new(Subscriber {
            queue: Mutex::default(),
            wake: Notify::new(),
            limit: self.queue_limit,
        });
        let hub = self.group(group);
        hub.lock()
            .subscribers
            .entry(who)
            .or_default()
            .push(Arc::clone(&subscriber));
        Subscription {
            hub,
            who,
            subscriber,
        }
    }

    /// The writes of a session after a version, oldest first; `None` if the history does not have them all up to `last`.
    pub(super) fn since(
        &self,
        group: GroupId,
        who: Who,
        (from, last): (Version, Version),
    ) -> Option<VecDeque<Arc<Event>>> {
        let hub = self.group(group);
        let events: VecDeque<Arc<Event>> = hub
            .lock()
            .history
            .iter()
            .filter(|event| (event.tenant, event.session) == who && event.version > from)
            .cloned()
            .collect();
        let mut known = from;
        for event in &events {
            if event.version == known.next() {
                known = event.version;
            } else if event.version != known {
                return None;
            }
        }
        (known >= last).then_some(events)
    }
}

/// One watcher's place; ends when dropped.
pub(super) struct Subscription {
    hub: Arc<Mutex<GroupHub>>,
    who: Who,
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// Waits for the next thing to hear. May be dropped while waiting: nothing is lost.
    pub(super) async fn heard(&self) -> Heard {
        loop {
            {
                let mut queue = self.subscriber.queue.lock();
                if std::mem::take(&mut queue.replaced) {
                    return Heard::Replaced;
                }
                if let Some(event) = queue.events.pop_front() {
                    return Heard::Event(event);
                }
            }
            self.subscriber.wake.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = self.hub.lock();
        if let Some(list) = hub.subscribers.get_mut(&self.who) {
            list.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
            if list.is_empty() {
                hub.subscribers.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::{RegionId, ShardId};

    const WHO: Who = (TenantId(1), SessionId::from_bytes([1; 16]));

    fn group() -> GroupId {
        GroupId::Shard(RegionId::new(1).unwrap(), ShardId(0))
    }

    fn event(revision: u64) -> Event {
        Event {
            tenant: WHO.0,
            session: WHO.1,
            version: version(revision),
            kind: EventKind::Expired,
        }
    }

    fn version(revision: u64) -> Version {
        Version { epoch: 1, revision }
    }

    async fn revision(subscription: &Subscription) -> u64 {
        match subscription.heard().await {
            Heard::Event(event) => event.version.revision,
            Heard::Replaced => 0,
        }
    }

    #[tokio::test]
    async fn a_full_queue_keeps_the_newest_and_a_replaced_group_is_told() {
        let hub = Hub::new(1 << 20, 2);
        let subscription = hub.subscribe(group(), WHO);
        hub.committed(group(), vec![event(1), event(2), event(3)]);
        assert_eq!(revision(&subscription).await, 3);
        hub.committed(group(), vec![event(4)]);
        hub.replaced(group());
        hub.committed(group(), vec![event(9)]);
        assert_eq!(revision(&subscription).await, 0);
        assert_eq!(revision(&subscription).await, 9);
        drop(subscription);
        assert!(hub.group(group()).lock().subscribers.is_empty());
    }

    #[test]
    fn history_is_given_only_when_whole_and_is_bounded() {
        let hub = Hub::new(EVENT_BYTES * 3, 8);
        hub.committed(group(), (1..=5).map(event).collect());
        let since = |from: u64| {
            hub.since(group(), WHO, (version(from), version(5)))
                .map(|events| events.len())
        };
        assert_eq!(since(5), Some(0));
        assert_eq!(since(2), Some(3));
        assert_eq!(since(1), None);
        assert_eq!(hub.group(group()).lock().history.len(), 3);
    }
}
