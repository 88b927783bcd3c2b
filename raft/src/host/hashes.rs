//! Hashes of the replicas here, to compare with those of other nodes: on demand only, one request at a time.
//!
//! Each is of a consistent view, with the applied index that belongs to it; writes go on meanwhile. All of it is read, on a
//! thread that may block, for at most [`LIMIT`].

use std::sync::Arc;
use std::time::Duration;

use crate::blocking::blocking;
use model::id::GroupId;
use model::status::{StateHash, StateHashes};
use storage::state::TabletStore;
use storage::state::digest::{digest, marked_view};
use tokio::time::Instant;

use super::inner::Inner;
use crate::message;

/// How long reading may take, for all groups together.
const LIMIT: Duration = Duration::from_secs(20);

/// The hashes of all replicas here; `None` while another request for them is served.
pub(crate) async fn hashes(inner: &Arc<Inner>) -> Option<StateHashes> {
    let permit = Arc::clone(&inner.hashing).try_acquire_owned().ok()?;
    let node = inner.me.0;
    let stores: Vec<(GroupId, TabletStore)> = inner
        .all_opened()
        .iter()
        .map(|opened| {
            (
                opened.replica.parts.group,
                opened.replica.parts.store.clone(),
            )
        })
        .collect();
    let until = Instant::now() + LIMIT;
    let reading = blocking(move || {
        // Held until the thread has ended, also when nobody waits any more.
        let _one_at_a_time = permit;
        let one = |(group, store): (GroupId, TabletStore)| hash(group, &store, until);
        stores.into_iter().map(one).collect()
    });
    let groups = reading.await.ok()?;
    Some(StateHashes { node, groups })
}

fn hash(group: GroupId, store: &TabletStore, until: Instant) -> StateHash {
    let mut found = StateHash {
        group: group.to_string(),
        ..StateHash::default()
    };
    let Some((view, mark)) = marked_view(&*store.current()) else {
        found.error = Some("too many commits".to_owned());
        return found;
    };
    let mark = mark.map(message::decode_mark).transpose();
    match mark {
        Ok(mark) => {
            found.applied_index = mark.and_then(|it| it.last_log_id).map_or(0, |id| id.index);
        }
        Err(bad) => {
            found.error = Some(format!("mark: {bad}"));
            return found;
        }
    }
    match digest(&*view, until) {
        Ok(Some(digest)) => {
            found.hash = Some(hex::encode(digest.hash));
            found.keys = digest.keys;
        }
        Ok(None) => found.error = Some("not within the time".to_owned()),
        Err(error) => found.error = Some(error.to_string()),
    }
    found
}
