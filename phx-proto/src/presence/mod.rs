//! A copy of the server's presence list, kept in sync.
//!
//! ```text
//!              joined                       state                    diff
//!   (new) ─▶ Waiting{held diffs} ───────────────────────▶ Synced ◀────────┐
//!              ▲   │ diff: queued             ▲  │ joined    └──────────┘
//!              │   │ too many                 │  └──────▶ Waiting
//!       joined │   ▼                          │ state: the list is replaced, changes reported
//!              └─ Lost: messages are ignored until the channel is joined again; entered from
//!                 any state when the list would be too large, which clears it
//! ```
//!
//! After a join the server sends the whole list once (`presence_state`) and then its changes
//! (`presence_diff`). The diff with the client's own arrival usually comes *before* the state that
//! already contains it (`wire/presence_state_and_own_diff`). So diffs are queued until the first state
//! after each join, and then applied to it. Metas are identified by their `phx_ref`, so applying a diff
//! twice has no further effect.
//!
//! The list keeps its last content during an interruption. The state that follows the rejoin is compared
//! with it, so a user who left meanwhile is reported as a leave.

mod entry;
mod merge;
mod weight;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use entry::{PresenceChange, PresenceEntry, PresenceMeta};
use merge::{Diff, Entries, List};

use crate::wire::payload::{Payload, PayloadError};

/// The maximum number of diffs that are queued before the state arrives.
const QUEUED_DIFFS_MAX: usize = 256;
/// The maximum memory of queued diffs, in bytes.
const QUEUED_BYTES_MAX: usize = 8 << 20;
/// The default of [`Presence::bytes_max`].
const LIST_BYTES_MAX: usize = 64 << 20;

/// The presence list of one channel, as a value. The caller passes it the presence messages of the
/// channel.
///
/// `M` is the application's part of a meta: any type that deserializes from the meta's object without
/// `phx_ref` and `phx_ref_prev`.
///
/// ```
/// use phx_proto::{Payload, Presence};
/// use phx_proto::presence::PresenceChange;
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
/// # Ok::<(), phx_proto::presence::PresenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Presence<M = Value> {
    list: List<M>,
    progress: SyncState<M>,
    bytes_max: usize,
}

/// Whether the list follows the server's list.
#[derive(Clone, Debug)]
enum SyncState<M> {
    /// The state after the latest join has not arrived yet.
    Waiting {
        queued: Vec<Diff<M>>,
        weight: usize,
    },
    Synced,
    /// Diffs were lost, so the list would be wrong even after the state of this join.
    Lost,
}

impl<M> SyncState<M> {
    const fn waiting() -> Self {
        Self::Waiting { queued: Vec::new(), weight: 0 }
    }
}

/// A presence message could not be applied. The list is unchanged, except after
/// [`TooLarge`](Self::TooLarge), which clears it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The message is not a presence message, or its metas cannot be deserialized as `M`. The list may
    /// differ from the server's until the next rejoin.
    #[error("invalid presence message: {0}")]
    Malformed(PayloadError),
    /// More than 256 diffs, or diffs of more than 8 MiB, arrived before their state. Messages are
    /// ignored until the channel is joined again: call [`Socket::rejoin`](crate::Socket::rejoin).
    #[error("the presence list is out of sync: too many diffs arrived before the state")]
    OutOfSync,
    /// The list would take more memory than [`Presence::bytes_max`] allows. It has been cleared, and
    /// messages are ignored until the channel is joined again. Raise the bound before you join it again.
    #[error("the presence list would exceed {max} bytes: raise `bytes_max`")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
}

impl From<PayloadError> for PresenceError {
    fn from(error: PayloadError) -> Self {
        Self::Malformed(error)
    }
}

impl<M> Presence<M> {
    /// An empty list that waits for the first state.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: List::new(), progress: SyncState::waiting(), bytes_max: LIST_BYTES_MAX }
    }

    /// Sets the maximum memory that the list may take, in bytes. The default is 64 MiB, enough for about
    /// 50,000 users with one small meta each.
    ///
    /// A meta counts as the [`Value`] that it was read from, which usually takes more than a type of the
    /// application. A message that would exceed the bound fails with [`TooLarge`](PresenceError::TooLarge).
    /// While a message is applied, its values may take as much memory in addition, and so may the resulting
    /// changes.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Call this when the channel has been joined, for the first time or again. Diffs are then queued
    /// until the state arrives, and the list keeps its content until then.
    pub fn joined(&mut self) {
        // Protocol: PRES-9.
        self.progress = SyncState::waiting();
    }

    /// Call this when messages of the channel were lost. Messages are then ignored until the next
    /// [`joined`](Self::joined).
    pub fn lost(&mut self) {
        self.progress = SyncState::Lost;
    }

    /// Whether the list is in sync with the server's. It is not in sync between a join and the state that
    /// follows.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        matches!(self.progress, SyncState::Synced)
    }

    const fn is_lost(&self) -> bool {
        matches!(self.progress, SyncState::Lost)
    }

    /// Every presence, sorted by key.
    pub fn list(&self) -> impl Iterator<Item = (&str, &PresenceEntry<M>)> {
        self.list.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The presence of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        self.list.entries.get(key)
    }

    /// The number of keys that are present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.entries.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.entries.is_empty()
    }
}

impl<M: Clone + DeserializeOwned> Presence<M> {
    /// Applies a `presence_state`: replaces the list, applies the queued diffs, and returns the changes
    /// from the previous list, including leaves.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Malformed`] and [`PresenceError::TooLarge`].
    pub fn sync_state(
        &mut self,
        payload: &Payload,
    ) -> Result<Vec<PresenceChange<M>>, PresenceError> {
        if self.is_lost() {
            return Ok(Vec::new());
        }
        let state: Entries<M> = self.read(payload)?;
        let queued = match core::mem::replace(&mut self.progress, SyncState::Synced) {
            SyncState::Waiting { queued, .. } => queued,
            SyncState::Synced | SyncState::Lost => Vec::new(),
        };
        // Protocol: PRES-1, PRES-8.
        let mut changes = self.apply(Diff::between(&self.list, state))?;
        // Protocol: PRES-4.
        for diff in queued {
            changes.append(&mut self.apply(diff)?);
        }
        Ok(changes)
    }

    /// Applies a `presence_diff` and returns its changes. Before the state has arrived, the diff is queued
    /// and the result is empty.
    ///
    /// # Errors
    ///
    /// [`PresenceError`].
    pub fn sync_diff(
        &mut self,
        payload: &Payload,
    ) -> Result<Vec<PresenceChange<M>>, PresenceError> {
        if self.is_lost() {
            return Ok(Vec::new());
        }
        let diff: Diff<M> = self.read(payload)?;
        // Protocol: PRES-2, PRES-4.
        let SyncState::Waiting { queued, weight } = &mut self.progress else {
            return self.apply(diff);
        };
        *weight = weight.saturating_add(diff.weight());
        if queued.len() < QUEUED_DIFFS_MAX && *weight <= QUEUED_BYTES_MAX {
            queued.push(diff);
            return Ok(Vec::new());
        }
        self.progress = SyncState::Lost;
        Err(PresenceError::OutOfSync)
    }

    /// Parses a message, unless its values alone would exceed the bound of the list.
    fn read<T: DeserializeOwned>(&mut self, payload: &Payload) -> Result<T, PresenceError> {
        if weight::text_exceeds(payload.as_bytes(), self.bytes_max) {
            return Err(self.too_large());
        }
        Ok(payload.deserialize_text()?)
    }

    fn apply(&mut self, diff: Diff<M>) -> Result<Vec<PresenceChange<M>>, PresenceError> {
        if diff.keys_weight() > self.bytes_max {
            return Err(self.too_large());
        }
        let changes = diff.apply(&mut self.list);
        if self.list.weight > self.bytes_max { Err(self.too_large()) } else { Ok(changes) }
    }

    fn too_large(&mut self) -> PresenceError {
        (self.list, self.progress) = (List::new(), SyncState::Lost);
        PresenceError::TooLarge { max: self.bytes_max }
    }
}

impl<M> Default for Presence<M> {
    fn default() -> Self {
        Self::new()
    }
}
