//! Presence states and diffs in any order. Some of them are messages that no server sends.

use std::collections::{BTreeMap, BTreeSet};

use phx_proto::presence::{PresenceChange, PresenceError};
use phx_proto::{Payload, Presence};
use serde_json::{Map, Value, json};

use super::reader::Reader;

/// The refs under each key.
type Refs = BTreeMap<String, BTreeSet<String>>;

/// The list equals the sum of its changes. If the only message is a state, the list equals that
/// state. A message that cannot be read changes nothing. A list that is too large becomes empty.
pub fn presence(data: &[u8]) {
    let mut presence = Presence::<Value>::new();
    if data.first().is_some_and(|first| first & 0x80 != 0) {
        presence = presence.bytes_max(20_000);
    }
    let mut folded = Refs::new();
    let mut held = 0;
    let mut reader = Reader(data);
    while step(&mut presence, &mut folded, &mut held, &mut reader).is_some() {
        assert_eq!(refs(&presence), folded);
        assert_eq!((presence.len(), presence.is_empty()), (folded.len(), folded.is_empty()));
        assert!(folded.keys().all(|key| presence.get(key).is_some()));
    }
}

fn step(
    presence: &mut Presence<Value>,
    folded: &mut Refs,
    held: &mut usize,
    reader: &mut Reader<'_>,
) -> Option<()> {
    match reader.below(8)? {
        0 => {
            presence.joined();
            *held = 0;
            assert!(!presence.is_synced());
        }
        1 => {
            presence.lost();
            assert!(!presence.is_synced());
        }
        2 => {
            // The rest is the text of one message.
            let payload = Payload::binary(reader.0);
            reader.0 = &[];
            for payload in [payload.clone(), text(&payload)] {
                for result in [presence.sync_diff(&payload), presence.sync_state(&payload)] {
                    let _ = taken(folded, result);
                }
            }
        }
        3 | 4 => {
            let state = entries(reader)?;
            let synced = presence.is_synced();
            taken(folded, presence.sync_state(&Payload::from(state.clone()))).expect("a state");
            if presence.is_synced() && (synced || *held == 0) {
                assert_eq!(with_metas(folded), with_metas(&wanted(&state)));
            }
            *held = 0;
        }
        _ => {
            let (joins, leaves) = (entries(reader)?, entries(reader)?);
            let synced = presence.is_synced();
            let payload = Payload::from(json!({"joins": joins, "leaves": leaves}));
            let changes =
                taken(folded, presence.sync_diff(&payload)).expect("a diff, and not too many");
            assert!(synced || changes == 0);
            *held += usize::from(!synced);
        }
    }
    Some(())
}

/// Checks the result of a message, and returns how many changes it made. A list that is too large is
/// empty.
fn taken(
    folded: &mut Refs,
    result: Result<Vec<PresenceChange>, PresenceError>,
) -> Result<usize, PresenceError> {
    match result {
        Ok(changes) => {
            let count = changes.len();
            fold(folded, changes);
            Ok(count)
        }
        Err(PresenceError::TooLarge { .. }) => {
            folded.clear();
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn text(payload: &Payload) -> Payload {
    serde_json::from_slice::<Value>(payload.as_bytes())
        .map_or_else(|_| payload.clone(), Payload::from)
}

/// Some keys, each with some metas.
fn entries(reader: &mut Reader<'_>) -> Option<Value> {
    let mut entries = Map::new();
    for _ in 0..reader.below(4)? {
        let key = ["ann", "bob", "cy"][usize::from(reader.below(3)?)];
        let mut metas = Vec::new();
        let count = reader.byte()?;
        for at in 0..if count & 0xe0 == 0xe0 { count & 0x1f } else { count & 3 } {
            // If there are many metas under one key, some have a ref of their own.
            let own = at & 0x18;
            let refs = reader.byte()?;
            let mut meta = json!({"phx_ref": format!("F{}", refs & 7 | own), "n": refs});
            if refs & 8 != 0 {
                meta["phx_ref_prev"] = json!(format!("F{}", refs >> 4 & 7 | own));
            }
            metas.push(meta);
        }
        entries.insert(key.to_owned(), json!({ "metas": metas }));
    }
    Some(Value::from(entries))
}

fn fold(folded: &mut Refs, changes: Vec<PresenceChange>) {
    for change in changes {
        match change {
            PresenceChange::Join { key, metas, first } => {
                assert_eq!(first, !folded.contains_key(&key), "first: {key}");
                let refs = folded.entry(key).or_default();
                refs.extend(metas.into_iter().map(|meta| meta.phx_ref));
            }
            PresenceChange::Leave { key, metas, last } => {
                let refs = folded.get_mut(&key).expect("a key that leaves was present");
                for meta in metas {
                    refs.remove(&meta.phx_ref);
                }
                // The other part of an update is a change too, so every meta that left is reported.
                assert_eq!(last, refs.is_empty(), "last: {key}");
                if last {
                    folded.remove(&key);
                }
            }
            PresenceChange::Update { key, before, after } => {
                assert_eq!(after.phx_ref_prev.as_ref(), Some(&before.phx_ref));
                let refs = folded.get_mut(&key).expect("a key that is updated was present");
                refs.remove(&before.phx_ref);
                refs.insert(after.phx_ref);
            }
            other => panic!("unknown: {other:?}"),
        }
    }
}

fn refs(presence: &Presence<Value>) -> Refs {
    let entry = |entry: &phx_proto::presence::PresenceEntry<Value>| {
        entry.metas.iter().map(|meta| meta.phx_ref.clone()).collect()
    };
    presence.list().map(|(key, it)| (key.to_owned(), entry(it))).collect()
}

fn wanted(state: &Value) -> Refs {
    let metas = |entry: &Value| -> BTreeSet<String> {
        let metas = entry["metas"].as_array().expect("metas");
        metas.iter().map(|meta| meta["phx_ref"].as_str().expect("a ref").to_owned()).collect()
    };
    let state = state.as_object().expect("an object");
    state.iter().map(|(key, entry)| (key.clone(), metas(entry))).collect()
}

/// The list without keys that have no metas. No server sends such keys.
fn with_metas(refs: &Refs) -> Refs {
    refs.iter()
        .filter(|(_, refs)| !refs.is_empty())
        .map(|(key, refs)| (key.clone(), refs.clone()))
        .collect()
}
