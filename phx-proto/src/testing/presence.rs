//! The presence tracker: the entries of each topic, and the diffs of their changes.
//!
//! An entry belongs to a channel instance and ends with it. Entries keep the order in which they
//! were tracked, so metas are listed oldest first. Every change gives one diff with the members
//! `joins` and `leaves`, even if one is empty (`wire/presence_two_clients`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// All entries of a server.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    topics: BTreeMap<String, Vec<Entry>>,
    seed: u64,
    drawn: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    owner: u64,
    key: String,
    phx_ref: String,
    replaced: Option<String>,
    meta: Map<String, Value>,
}

impl Presence {
    pub(super) fn new(seed: u64) -> Self {
        Self { topics: BTreeMap::new(), seed, drawn: 0 }
    }

    /// Tracks `key` for a channel instance; `None` if it tracks that key already.
    pub(super) fn track(
        &mut self,
        topic: &str,
        owner: u64,
        key: &str,
        meta: Map<String, Value>,
    ) -> Option<Value> {
        let phx_ref = self.draw_ref();
        let entries = self.topics.entry(topic.to_owned()).or_default();
        if entries.iter().any(|entry| entry.owner == owner && entry.key == key) {
            return None;
        }
        let entry = Entry { owner, key: key.to_owned(), phx_ref, replaced: None, meta };
        let diff = diff(core::slice::from_ref(&entry), &[]);
        entries.push(entry);
        Some(diff)
    }

    /// Replaces the meta: returns one diff with the new and the old one (`wire/presence_update`),
    /// or `None` if the key is not tracked.
    pub(super) fn update(
        &mut self,
        topic: &str,
        owner: u64,
        key: &str,
        meta: Map<String, Value>,
    ) -> Option<Value> {
        let phx_ref = self.draw_ref();
        let entries = self.topics.get_mut(topic)?;
        let entry = entries.iter_mut().find(|entry| entry.owner == owner && entry.key == key)?;
        let old = entry.clone();
        entry.replaced = Some(core::mem::replace(&mut entry.phx_ref, phx_ref));
        entry.meta = meta;
        Some(diff(core::slice::from_ref(entry), &[old]))
    }

    /// Stops tracking one key of a channel instance, or with `None` all of them in one diff.
    pub(super) fn untrack(&mut self, topic: &str, owner: u64, key: Option<&str>) -> Option<Value> {
        let entries = self.topics.get_mut(topic)?;
        let (gone, kept) = core::mem::take(entries)
            .into_iter()
            .partition(|entry| entry.owner == owner && key.is_none_or(|key| key == entry.key));
        *entries = kept;
        if entries.is_empty() {
            self.topics.remove(topic);
        }
        let gone: Vec<Entry> = gone;
        (!gone.is_empty()).then(|| diff(&[], &gone))
    }

    /// The state of a topic: `{key: {"metas": [...]}}`.
    pub(super) fn state(&self, topic: &str) -> Value {
        self.topics.get(topic).map_or_else(|| json!({}), |entries| grouped(entries))
    }

    /// Draws a unique `phx_ref` in the server's format: 16 characters of base64url.
    fn draw_ref(&mut self) -> String {
        self.drawn = self.drawn.wrapping_add(1);
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&mix(self.seed, self.drawn).to_be_bytes());
        bytes[8..].copy_from_slice(&self.drawn.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn diff(joins: &[Entry], leaves: &[Entry]) -> Value {
    json!({ "joins": grouped(joins), "leaves": grouped(leaves) })
}

fn grouped(entries: &[Entry]) -> Value {
    let mut keys: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for entry in entries {
        let mut meta = entry.meta.clone();
        meta.insert("phx_ref".into(), entry.phx_ref.clone().into());
        if let Some(replaced) = &entry.replaced {
            meta.insert("phx_ref_prev".into(), replaced.clone().into());
        }
        keys.entry(&entry.key).or_default().push(Value::Object(meta));
    }
    keys.into_iter().map(|(key, metas)| (key.to_owned(), json!({ "metas": metas }))).collect()
}

/// The number at an index of a SplitMix64 sequence.
fn mix(seed: u64, index: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
