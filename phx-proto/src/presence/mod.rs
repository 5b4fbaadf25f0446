//! Presence: who is there, kept equal to the server's list.
//!
//! ```text
//!              joined                       state                    diff
//!   (new) ─▶ Waiting{held diffs} ───────────────────────▶ Synced ◀────────┐
//!              ▲   │ diff: held back          ▲  │ joined    └──────────┘
//!              │   │ too many                 │  └──────▶ Waiting
//!       joined │   ▼                          │ state: the list is replaced, changes reported
//!              └─ Lost: nothing counts until the channel is joined again; from any state when
//!                 the list would be too large, which empties it
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
mod weight;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use entry::{PresenceChange, PresenceEntry, PresenceMeta};
use merge::{Diff, Entries, List};

use crate::wire::payload::{Payload, PayloadError};

/// Diffs held back while the state is awaited.
const HELD_DIFFS_MAX: usize = 256;
/// The memory they take.
const HELD_BYTES_MAX: usize = 8 << 20;
/// The memory of a list, unless the application sets another bound.
const LIST_BYTES_MAX: usize = 64 << 20;

/// The presences of one channel, as a value: feed it what the channel receives.
///
/// `M` is the application's part of a meta, all of it but `phx_ref` and `phx_ref_prev`; any type
/// that deserialises from that object will do.
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

/// How the list stands to the server's.
#[derive(Clone, Debug)]
enum SyncState<M> {
    /// The state of the present join has not come.
    Waiting {
        held: Vec<Diff<M>>,
        weight: usize,
    },
    Synced,
    /// Diffs were lost, so the state of this join would not be enough.
    Lost,
}

impl<M> SyncState<M> {
    const fn waiting() -> Self {
        Self::Waiting { held: Vec::new(), weight: 0 }
    }
}

/// A presence message could not be applied. The list is as it was, unless it is too large.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The server's message is no presence message, or its metas are no `M`. The list may differ
    /// from the server's until the next rejoin.
    #[error("not a presence message: {0}")]
    Malformed(PayloadError),
    /// More than 256 diffs, or 8 MiB of memory for them, came before the state they belong to.
    /// Messages are ignored until the channel is joined again: call
    /// [`Socket::rejoin`](crate::Socket::rejoin).
    #[error("the presence is out of sync: too many diffs came before the state")]
    OutOfSync,
    /// The list would take more memory than [`Presence::bytes_max`] allows. It is empty now, and
    /// nothing counts until the channel is joined again, which makes sense with a larger bound.
    #[error("the presence list is too large: it may take {max} bytes; raise `bytes_max`")]
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
    /// Nobody, waiting for the first state.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: List::new(), progress: SyncState::waiting(), bytes_max: LIST_BYTES_MAX }
    }

    /// How many bytes of memory the list may take, 64 MiB by default: some 50,000 users with one
    /// small meta each.
    ///
    /// Metas count as the [`Value`] that they are read from, which is more than a type of the
    /// application usually takes. A list that would take more is
    /// [`TooLarge`](PresenceError::TooLarge). While a message is applied, its own values and the
    /// changes take memory too, up to as much again each.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Says that the channel was joined, for the first time or again: a state follows, and diffs
    /// are held back until it comes. The list stays until then.
    pub fn joined(&mut self) {
        // Protocol: PRES-9.
        self.progress = SyncState::waiting();
    }

    /// Says that messages of the channel were lost: nothing counts until the next
    /// [`joined`](Self::joined).
    pub fn lost(&mut self) {
        self.progress = SyncState::Lost;
    }

    /// Whether the list follows the server's; not so between a join and its state.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        matches!(self.progress, SyncState::Synced)
    }

    const fn is_lost(&self) -> bool {
        matches!(self.progress, SyncState::Lost)
    }

    /// Every presence, in order of its key.
    pub fn list(&self) -> impl Iterator<Item = (&str, &PresenceEntry<M>)> {
        self.list.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The presence of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        self.list.entries.get(key)
    }

    /// How many keys are present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.entries.len()
    }

    /// Whether nobody is present, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.entries.is_empty()
    }
}

impl<M: Clone + DeserializeOwned> Presence<M> {
    /// Applies a `presence_state`: the list becomes this one and then takes the diffs that were
    /// held back. The changes are those against the list before, leaves included.
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
        let held = match core::mem::replace(&mut self.progress, SyncState::Synced) {
            SyncState::Waiting { held, .. } => held,
            SyncState::Synced | SyncState::Lost => Vec::new(),
        };
        // Protocol: PRES-1, PRES-8.
        let mut changes = self.apply(Diff::between(&self.list, state))?;
        // Protocol: PRES-4.
        for diff in held {
            changes.append(&mut self.apply(diff)?);
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
        if self.is_lost() {
            return Ok(Vec::new());
        }
        let diff: Diff<M> = self.read(payload)?;
        // Protocol: PRES-2, PRES-4.
        let SyncState::Waiting { held, weight } = &mut self.progress else {
            return self.apply(diff);
        };
        *weight = weight.saturating_add(diff.weight());
        if held.len() < HELD_DIFFS_MAX && *weight <= HELD_BYTES_MAX {
            held.push(diff);
            return Ok(Vec::new());
        }
        self.progress = SyncState::Lost;
        Err(PresenceError::OutOfSync)
    }

    /// Reads a message, unless its values alone take more memory than the list may.
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
