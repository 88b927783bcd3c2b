//! The one file of a snapshot of a tablet in memory: a sorted dump of the stored form.
//!
//! Reading one checks every entry as a read of a tablet on disk would: what is not what was written is damage.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::state::Key;

use super::MemoryTablet;
use super::versions::at;
use crate::error::TabletError;
use crate::{format, keys};

/// A tablet's content, all of it durable.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) values: BTreeMap<Key, Bytes>,
    pub(crate) applied: Option<Bytes>,
}

/// One entry of a dump: lengths of key and stored value, then both.
pub(crate) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let stored = format::seal(key, value);
    let lengths = (u16::try_from(key.len()), u32::try_from(stored.len()));
    let (Ok(key_length), Ok(length)) = lengths else {
        unreachable!("keys are short, and values are bounded by the model");
    };
    out.extend_from_slice(&key_length.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&stored);
}

pub(crate) fn load(mut dump: &[u8], group: u32) -> Result<Contents, TabletError> {
    let mut contents = Contents::default();
    let mut identity = None;
    let cut = || TabletError::damaged("the dump is cut");
    while !dump.is_empty() {
        let (head, rest) = dump.split_first_chunk::<2>().ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let key = rest.split_at_checked(usize::from(u16::from_le_bytes(*head)));
        let (key, rest) = key.ok_or_else(cut)?;
        let (stored, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let value =
            format::open(key, stored).map_err(|bad| TabletError::damaged(bad.to_string()))?;
        let value = Bytes::copy_from_slice(value);
        if key == keys::IDENTITY {
            identity = Some(value);
        } else if key == keys::APPLIED {
            contents.applied = Some(value);
        } else {
            let key = keys::decode(key).map_err(|bad| TabletError::damaged(bad.to_string()))?;
            contents.values.insert(key, value);
        }
        dump = rest;
    }
    match identity {
        Some(bytes) if bytes[..] == group.to_be_bytes() => Ok(contents),
        _ => Err(TabletError::refused("it is of another group")),
    }
}

impl MemoryTablet {
    /// The commit that it shows, and all its values.
    pub(super) fn dump(&self) -> (Option<Bytes>, Vec<u8>) {
        let shared = self.shared.read();
        let mut out = Vec::new();
        push(&mut out, &keys::IDENTITY, &self.group.to_be_bytes());
        if let Some(applied) = &shared.applied {
            push(&mut out, &keys::APPLIED, applied);
        }
        for (key, versions) in &shared.values {
            if let Some(value) = at(versions, shared.now) {
                push(&mut out, &keys::encode(key), value);
                if shared.bad.contains(key)
                    && let Some(last) = out.last_mut()
                {
                    *last ^= 1;
                }
            }
        }
        (shared.applied.clone(), out)
    }
}
