//! Presence: who is there, kept equal to the server's list.
//!
//! ```text
//!              joined                       state                    diff
//!   (new) ─▶ Waiting{held diffs} ───────────────────────▶ Synced ◀────────┐
//!              ▲   │ diff: held back          ▲  │ joined    └──────────┘
//!              │   │ too many                 │  └──────▶ Waiting
//!       joined │   ▼                          │ state: the list is replaced, changes told
//!              └─ Lost: nothing counts until the channel is joined anew
//! ```
//!
//! After a join the server sends the whole list once (`presence_state`) and then what changes
//! (`presence_diff`). The diff of the client's own arrival usually comes *before* the state that
//! already holds it (`wire/presence_state_and_own_diff`), so diffs are held back until the first
//! state after each join and applied to it then; an entry is known by its `phx_ref`, so applying
//! one twice changes nothing.
//!
//! The list survives an interruption, as the last thing known. The state that follows the rejoin
//! is compared with it, so whoever left in the gap is told as a leave.

mod entry;
mod merge;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use entry::{PresenceChange, PresenceEntry, PresenceMeta};
use merge::Diff;

use crate::wire::payload::{Payload, PayloadError};

/// Diffs held back while the state is awaited.
const HELD_DIFFS_MAX: usize = 256;
/// Their bytes.
const HELD_BYTES_MAX: usize = 8 << 20;

/// The presences of one channel, as a value: feed it what the channel receives.
///
/// `M` is the application's part of a meta, all of it but `phx_ref` and `phx_ref_prev`; any type
/// that deserialises from that object will do.
///
/// ```
/// use phx_proto::{Payload, Presence, PresenceChange};
/// use serde_json::json;
///
/// let mut presence = Presence::<serde_json::Value>::new();
/// presence.joined();
/// let state = json!({"ann": {"metas": [{"phx_ref": "F1", "typing": false}]}});
/// presence.sync_state(&Payload::from(state))?;
/// let diff = json!({
///     "joins": {"ann": {"metas": [{"phx_ref": "F2", "phx_ref_prev": "F1", "typing": true}]}},
///     "leaves": {"ann": {"metas": [{"phx_ref": "F1", "typing": false}]}},
/// });
/// let changes = presence.sync_diff(&Payload::from(diff))?;
/// assert!(matches!(&changes[..], [PresenceChange::Update { key, .. }] if key == "ann"));
/// assert_eq!(presence.get("ann").unwrap().metas[0].data, json!({"typing": true}));
/// # Ok::<(), phx_proto::PresenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Presence<M = Value> {
    entries: BTreeMap<String, PresenceEntry<M>>,
    progress: Progress<M>,
}

/// How the list stands to the server's.
#[derive(Clone, Debug)]
enum Progress<M> {
    /// The state of the present join has not come.
    Waiting {
        held: Vec<Diff<M>>,
        bytes: usize,
    },
    Synced,
    /// Diffs were lost, so the state of this join would not be enough.
    Lost,
}

impl<M> Progress<M> {
    const fn waiting() -> Self {
        Self::Waiting { held: Vec::new(), bytes: 0 }
    }
}

/// A presence message could not be applied. The list is as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The server's message is no presence message, or its metas are no `M`. The list may differ
    /// from the server's until the next rejoin.
    #[error("not a presence message: {0}")]
    Malformed(#[from] PayloadError),
    /// More than 256 diffs, or 8 MiB of them, came before the state they belong to. Nothing
    /// counts until the channel is joined anew: call [`Socket::rejoin`](crate::Socket::rejoin).
    #[error("the presence is out of sync: too many diffs came before the state")]
    OutOfSync,
}

impl<M> Presence<M> {
    /// Nobody, waiting for the first state.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), progress: Progress::waiting() }
    }

    /// Says that the channel was joined, for the first time or again: a state follows, and diffs
    /// are held back until it comes. The list stays until then.
    pub fn joined(&mut self) {
        self.progress = Progress::waiting();
    }

    /// Says that messages of the channel were lost: nothing counts until the next
    /// [`joined`](Self::joined).
    pub fn lost(&mut self) {
        self.progress = Progress::Lost;
    }

    /// Whether the list follows the server's; not so between a join and its state.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        matches!(self.progress, Progress::Synced)
    }

    /// Every presence, in order of its key.
    pub fn list(&self) -> impl Iterator<Item = (&str, &PresenceEntry<M>)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The presence of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        self.entries.get(key)
    }

    /// How many keys are present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is present, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<M: Clone + DeserializeOwned> Presence<M> {
    /// Applies a `presence_state`: the list becomes this one and then takes the diffs that were
    /// held back. The changes are those against the list before, leaves included.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Malformed`].
    pub fn sync_state(
        &mut self,
        payload: &Payload,
    ) -> Result<Vec<PresenceChange<M>>, PresenceError> {
        let state = payload.deserialize()?;
        let held = match &mut self.progress {
            Progress::Waiting { held, .. } => core::mem::take(held),
            Progress::Synced => Vec::new(),
            Progress::Lost => return Ok(Vec::new()),
        };
        self.progress = Progress::Synced;
        let mut changes = Diff::between(&self.entries, state).apply(&mut self.entries);
        for diff in held {
            changes.append(&mut diff.apply(&mut self.entries));
        }
        Ok(changes)
    }

    /// Applies a `presence_diff`, or holds it back until the state comes; it yields no change
    /// then.
    ///
    /// # Errors
    ///
    /// [`PresenceError`].
    pub fn sync_diff(
        &mut self,
        payload: &Payload,
    ) -> Result<Vec<PresenceChange<M>>, PresenceError> {
        let diff: Diff<M> = payload.deserialize()?;
        match &mut self.progress {
            Progress::Synced => return Ok(diff.apply(&mut self.entries)),
            Progress::Lost => return Ok(Vec::new()),
            Progress::Waiting { held, bytes } => {
                *bytes = bytes.saturating_add(payload.len());
                if held.len() < HELD_DIFFS_MAX && *bytes <= HELD_BYTES_MAX {
                    held.push(diff);
                    return Ok(Vec::new());
                }
            }
        }
        self.progress = Progress::Lost;
        Err(PresenceError::OutOfSync)
    }
}

impl<M> Default for Presence<M> {
    fn default() -> Self {
        Self::new()
    }
}
