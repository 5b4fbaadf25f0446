//! The arithmetic of presence: what differs between two lists, and a list after a diff.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::entry::{PresenceChange, PresenceEntry, PresenceMeta};

type Entries<M> = BTreeMap<String, PresenceEntry<M>>;

/// A `presence_diff`. The server always sends both members (`wire/presence_two_clients`).
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "M: DeserializeOwned"))]
pub(super) struct Diff<M> {
    #[serde(default = "BTreeMap::new")]
    joins: Entries<M>,
    #[serde(default = "BTreeMap::new")]
    leaves: Entries<M>,
}

impl<M: Clone> Diff<M> {
    /// What leads from `now` to `state`, meta by meta.
    pub(super) fn between(now: &Entries<M>, state: Entries<M>) -> Self {
        let mut leaves: Entries<M> = now
            .iter()
            .filter(|(key, _)| !state.contains_key(*key))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let mut joins = Entries::new();
        for (key, mut entry) in state {
            if let Some(before) = now.get(&key) {
                let mut left = before.clone();
                left.metas.retain(not_in(&entry.metas));
                entry.metas.retain(not_in(&before.metas));
                if !left.metas.is_empty() {
                    leaves.insert(key.clone(), left);
                }
                if entry.metas.is_empty() {
                    continue;
                }
            }
            joins.insert(key, entry);
        }
        Self { joins, leaves }
    }

    /// Applies the joins and then the leaves. A meta that is there already keeps its content up
    /// to date and is not doubled; one that is not there cannot leave.
    pub(super) fn apply(self, entries: &mut Entries<M>) -> Vec<PresenceChange<M>> {
        let mut changes = Vec::new();
        // Where the metas are, among those that left, that are told as part of an update.
        let mut replaced = BTreeMap::<String, BTreeSet<usize>>::new();
        for (key, joined) in self.joins {
            let before = entries.remove(&key);
            let first = before.is_none();
            let mut metas = before.map(|entry| entry.metas).unwrap_or_default();
            metas.retain(not_in(&joined.metas));
            metas.extend(joined.metas.iter().cloned());
            entries.insert(key.clone(), PresenceEntry { metas, extra: joined.extra });

            let left = self.leaves.get(&key).map_or(&[][..], |entry| &entry.metas);
            let stays = not_in(left);
            let known: Vec<bool> = left.iter().map(not_in(&joined.metas)).collect();
            let told = changes.len();
            let mut came = Vec::new();
            for after in joined.metas {
                // Nothing else may hide in an update: not that the key came, nor that it went,
                // nor that the predecessor came too, nor a second meta with the same predecessor.
                let before = left.iter().enumerate().find(|(at, meta)| {
                    !first
                        && after.phx_ref_prev.as_ref() == Some(&meta.phx_ref)
                        && stays(&after)
                        && known[*at]
                        && !replaced.get(&key).is_some_and(|taken| taken.contains(at))
                });
                if let Some((at, before)) = before {
                    replaced.entry(key.clone()).or_default().insert(at);
                    let before = before.clone();
                    changes.push(PresenceChange::Update { key: key.clone(), before, after });
                } else {
                    came.push(after);
                }
            }
            if !came.is_empty() || changes.len() == told {
                changes.push(PresenceChange::Join { key, metas: came, first });
            }
        }
        for (key, left) in self.leaves {
            let Some(entry) = entries.get_mut(&key) else { continue };
            entry.metas.retain(not_in(&left.metas));
            let last = entry.metas.is_empty();
            if last {
                entries.remove(&key);
            }
            let taken = replaced.remove(&key).unwrap_or_default();
            if taken.is_empty() || taken.len() < left.metas.len() {
                let metas = left.metas.into_iter().enumerate();
                let metas = metas.filter(|(at, _)| !taken.contains(at)).map(|(_, meta)| meta);
                changes.push(PresenceChange::Leave { key, metas: metas.collect(), last });
            }
        }
        changes
    }
}

/// Whether a meta is none of these, by its ref.
fn not_in<M>(metas: &[PresenceMeta<M>]) -> impl Fn(&PresenceMeta<M>) -> bool {
    let refs: BTreeSet<&str> = metas.iter().map(|meta| meta.phx_ref.as_str()).collect();
    move |meta| !refs.contains(meta.phx_ref.as_str())
}
