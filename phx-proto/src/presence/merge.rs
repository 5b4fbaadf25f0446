//! Computing and applying differences between presence lists.
//!
//! Applying a message takes O(n log n), because refs are looked up in sorted lists. Here n is the number of
//! metas in the message and in the list under the keys that the message names.

use core::cmp::Ordering;
use core::fmt;
use core::marker::PhantomData;
use core::mem::size_of;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::entry::{self, PresenceChange, PresenceEntry, PresenceMeta};
use crate::wire::weight::members_weight;

/// The presences of a message, sorted by key.
#[derive(Clone, Debug)]
pub(super) struct Entries<M>(Vec<(String, PresenceEntry<M>)>);

impl<'de, M: DeserializeOwned> Deserialize<'de> for Entries<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

/// Visits the keys of a list. Each entry is read from a value of serde_json, because it contains data of
/// the application.
struct EntriesVisitor<M>(PhantomData<M>);

impl<'de, M: DeserializeOwned> Visitor<'de> for EntriesVisitor<M> {
    type Value = Entries<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of presences")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<M>, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            entries.push((key, entry::entry(value).map_err(A::Error::custom)?));
        }
        // The server sends each key once, in order. Of duplicate keys the last one counts.
        if !entries.is_sorted_by(|(one, _), (two, _)| one < two) {
            entries.sort_by(|(one, _): &(String, _), (two, _)| one.cmp(two));
            entries.reverse();
            entries.dedup_by(|(one, _), (two, _)| one == two);
            entries.reverse();
        }
        Ok(Entries(entries))
    }
}

impl<M> Default for Entries<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M> Entries<M> {
    fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        let at = self.0.binary_search_by(|(other, _)| other.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// The memory of all presences, in bytes.
    fn weight(&self) -> usize {
        self.0.iter().map(|(key, entry)| weight_of(key, entry)).sum()
    }
}

/// The presence list and its weight.
#[derive(Debug)]
pub(super) struct List<M> {
    pub(super) entries: BTreeMap<String, PresenceEntry<M>>,
    pub(super) weight: usize,
}

impl<M> List<M> {
    pub(super) const fn new() -> Self {
        Self { entries: BTreeMap::new(), weight: 0 }
    }
}

/// Weighs the clone by itself, because its metas have no spare capacity.
impl<M: Clone> Clone for List<M> {
    fn clone(&self) -> Self {
        let entries = self.entries.clone();
        let weight = entries.iter().map(|(key, entry)| weight_of(key, entry)).sum();
        Self { entries, weight }
    }
}

/// A `presence_diff`. The server always sends both members (`wire/presence_two_clients`).
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "M: DeserializeOwned"))]
pub(super) struct Diff<M> {
    #[serde(default)]
    joins: Entries<M>,
    #[serde(default)]
    leaves: Entries<M>,
}

impl<M> Diff<M> {
    /// The memory of the diff, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.joins.weight() + self.leaves.weight()
    }

    /// An upper bound on the memory of the keys in the resulting changes, in bytes. Each update has its
    /// own copy of the key.
    pub(super) fn keys_weight(&self) -> usize {
        let joins = self.joins.0.iter();
        let keys = joins.map(|(key, entry)| key.len().saturating_mul(entry.metas.len()));
        keys.fold(0, usize::saturating_add)
    }
}

impl<M: Clone> Diff<M> {
    /// Computes the diff that changes `now` to `state`.
    pub(super) fn between(now: &List<M>, state: Entries<M>) -> Self {
        let now = &now.entries;
        let mut leaves = Vec::new();
        for (key, before) in now {
            let metas = match state.get(key) {
                None => before.metas.clone(),
                Some(entry) => {
                    let stay = Refs::of(&entry.metas);
                    let left = before.metas.iter().filter(|meta| !stay.has(&meta.phx_ref));
                    let left: Vec<_> = left.cloned().collect();
                    if left.is_empty() {
                        continue;
                    }
                    left
                }
            };
            leaves.push((key.clone(), PresenceEntry { metas, extra: Map::new() }));
        }
        let mut joins = state;
        joins.0.retain_mut(|(key, entry)| {
            let Some(before) = now.get(key) else { return true };
            let known = Refs::of(&before.metas);
            entry.metas.retain(|meta| !known.has(&meta.phx_ref));
            !entry.metas.is_empty()
        });
        Self { joins, leaves: Entries(leaves) }
    }

    /// Applies the joins and then the leaves. A join of a known meta replaces it, and a leave of an
    /// unknown one is ignored.
    pub(super) fn apply(self, list: &mut List<M>) -> Vec<PresenceChange<M>> {
        let mut changes = Vec::with_capacity(self.joins.0.len() + self.leaves.0.len());
        // For each key, the indices of the metas that left as part of an update.
        let mut replaced = BTreeMap::<String, BTreeSet<usize>>::new();
        for (key, joined) in self.joins.0 {
            // Protocol: PRES-5.
            let first = list.join(&key, &joined.metas, joined.extra);
            let left = self.leaves.get(&key).map_or(&[][..], |entry| &entry.metas);
            let mut before = predecessors(&joined.metas, left, first).into_iter();
            let mut taken = BTreeSet::new();
            let mut came = Vec::new();
            for after in joined.metas {
                if let Some(at) = before.next().flatten() {
                    taken.insert(at);
                    let before = left[at].clone();
                    // Protocol: PRES-6.
                    changes.push(PresenceChange::Update { key: key.clone(), before, after });
                } else {
                    came.push(after);
                }
            }
            if !taken.is_empty() {
                replaced.insert(key.clone(), taken);
                if came.is_empty() {
                    continue;
                }
            }
            changes.push(PresenceChange::Join { key, metas: came, first });
        }
        for (key, left) in self.leaves.0 {
            let Some(last) = list.leave(&key, &left.metas) else { continue };
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

/// For each meta that joined a key, the index of the meta in `left` that it replaced, if any. The result
/// is empty if no meta was replaced.
///
/// A join and a leave become an update only if no other change is lost by that. These are not updates:
/// metas of a new key, metas that also leave, metas whose predecessor also joins, and a second meta with
/// the same predecessor.
fn predecessors<'a, M>(
    joined: &'a [PresenceMeta<M>],
    left: &'a [PresenceMeta<M>],
    first: bool,
) -> Vec<Option<usize>> {
    if first || left.is_empty() || joined.iter().all(|meta| meta.phx_ref_prev.is_none()) {
        return Vec::new();
    }
    let (comes, goes) = (Refs::of(joined), Refs::of(left));
    let free = left.iter().enumerate().filter(|(_, meta)| !comes.has(&meta.phx_ref));
    let mut free: BTreeSet<(Ref<'a>, usize)> =
        free.map(|(at, meta)| (Ref(&meta.phx_ref), at)).collect();
    let find = |after: &'a PresenceMeta<M>| {
        let prev = Ref(after.phx_ref_prev.as_ref().filter(|_| !goes.has(&after.phx_ref))?);
        let found = *free.range((prev, 0)..=(prev, left.len())).next()?;
        free.remove(&found);
        Some(found.1)
    };
    joined.iter().map(find).collect()
}

impl<M: Clone> List<M> {
    /// Adds metas to a key. Returns whether the key is new.
    fn join(&mut self, key: &str, metas: &[PresenceMeta<M>], extra: Map<String, Value>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            let entry = PresenceEntry { metas: metas.to_vec(), extra };
            self.weight += weight_of(key, &entry);
            self.entries.insert(key.to_owned(), entry);
            return true;
        };
        self.weight -= of_entry(key, entry);
        // Protocol: PRES-3.
        self.weight -= remove(&mut entry.metas, metas);
        entry.metas.extend_from_slice(metas);
        entry.extra = extra;
        self.weight += of_entry(key, entry) + of_metas(metas);
        false
    }

    /// Removes metas from a key. Returns whether it has none left, or `None` if the key is unknown.
    fn leave(&mut self, key: &str, metas: &[PresenceMeta<M>]) -> Option<bool> {
        let entry = self.entries.get_mut(key)?;
        self.weight -= of_entry(key, entry);
        self.weight -= remove(&mut entry.metas, metas);
        // Protocol: PRES-7.
        if entry.metas.is_empty() {
            self.entries.remove(key);
            return Some(true);
        }
        if entry.metas.capacity() > 4 * entry.metas.len() {
            entry.metas.shrink_to_fit();
        }
        self.weight += of_entry(key, entry);
        Some(false)
    }
}

/// Removes the metas with the refs of `others`. Returns the weight of the removed ones.
fn remove<M>(metas: &mut Vec<PresenceMeta<M>>, others: &[PresenceMeta<M>]) -> usize {
    let others = Refs::of(others);
    let mut removed = 0;
    metas.retain(|meta| {
        let stays = !others.has(&meta.phx_ref);
        if !stays {
            removed += meta.weight;
        }
        stays
    });
    removed
}

/// The memory of a presence, in bytes.
fn weight_of<M>(key: &str, entry: &PresenceEntry<M>) -> usize {
    of_entry(key, entry) + of_metas(&entry.metas)
}

/// The memory of a presence without the values of its metas. Its slot in the list counts twice, because a
/// node of the list may be half full.
fn of_entry<M>(key: &str, entry: &PresenceEntry<M>) -> usize {
    2 * size_of::<(String, PresenceEntry<M>)>()
        + key.len()
        + entry.metas.capacity() * size_of::<PresenceMeta<M>>()
        + members_weight(&entry.extra)
}

fn of_metas<M>(metas: &[PresenceMeta<M>]) -> usize {
    metas.iter().map(|meta| meta.weight).sum()
}

/// A set of the refs of metas.
enum Refs<'a, M> {
    Few(&'a [PresenceMeta<M>]),
    Many(Vec<Ref<'a>>),
}

/// Up to this number of refs, a linear search is used.
const FEW: usize = 4;

impl<'a, M> Refs<'a, M> {
    fn of(metas: &'a [PresenceMeta<M>]) -> Self {
        if metas.len() <= FEW {
            return Self::Few(metas);
        }
        let mut refs: Vec<Ref<'a>> = metas.iter().map(|meta| Ref(&meta.phx_ref)).collect();
        refs.sort_unstable();
        Self::Many(refs)
    }

    fn has(&self, phx_ref: &str) -> bool {
        match self {
            Self::Few(metas) => metas.iter().any(|meta| Ref(&meta.phx_ref) == Ref(phx_ref)),
            Self::Many(refs) => refs.binary_search(&Ref(phx_ref)).is_ok(),
        }
    }
}

/// A ref. Tests count its comparisons as steps.
#[derive(Clone, Copy)]
struct Ref<'a>(&'a str);

impl Ord for Ref<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::step();
        self.0.cmp(other.0)
    }
}

impl PartialOrd for Ref<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ref<'_> {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(test)]
        tests::step();
        self.0 == other.0
    }
}

impl Eq for Ref<'_> {}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use serde_json::json;

    use super::*;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn step() {
        STEPS.set(STEPS.get() + 1);
    }

    /// Data of an application. Its clones count as steps too.
    #[derive(Debug, Deserialize)]
    struct Counted {}

    impl Clone for Counted {
        fn clone(&self) -> Self {
            step();
            Self {}
        }
    }

    /// The metas of one generation. Each replaces one of the generation before.
    fn metas(count: usize, generation: usize) -> Value {
        let meta = |at| {
            let phx_ref = format!("{generation}-{at}");
            let prev = generation.checked_sub(1).map(|before| format!("{before}-{at}"));
            json!({"phx_ref": phx_ref, "phx_ref_prev": prev})
        };
        json!({"metas": (0..count).map(meta).collect::<Vec<_>>()})
    }

    fn entries(value: Value) -> Entries<Counted> {
        serde_json::from_value(value).expect("presences")
    }

    /// The number of steps to apply a diff to a list.
    fn steps(
        list: &mut List<Counted>,
        diff: impl FnOnce(&List<Counted>) -> Diff<Counted>,
    ) -> usize {
        STEPS.set(0);
        diff(list).apply(list);
        STEPS.get()
    }

    /// The number of steps for every shape of change with `count` metas.
    fn shapes(count: usize) -> [(&'static str, usize); 7] {
        let one_key = |generation| entries(json!({"ann": metas(count, generation)}));
        let many_keys = |generation| {
            let keys = (0..count).map(|at| (format!("user{at}"), metas(1, generation)));
            entries(Value::Object(keys.collect()))
        };
        let diff = |joins, leaves| move |_: &List<Counted>| Diff { joins, leaves };
        let state = |state| move |now: &List<Counted>| Diff::between(now, state);
        let filled = |of: Entries<Counted>| {
            let mut list = List::new();
            Diff { joins: of, leaves: Entries::default() }.apply(&mut list);
            list
        };
        let same = entries(json!({"ann": {"metas": vec![json!({"phx_ref": "x"}); count]}}));
        let linked = json!({"phx_ref": "y", "phx_ref_prev": "x"});
        let same_prev = entries(json!({"ann": {"metas": vec![linked; count]}}));
        [
            ("first state", steps(&mut List::new(), state(one_key(0)))),
            ("same state", steps(&mut filled(one_key(0)), state(one_key(0)))),
            ("all updated by a state", steps(&mut filled(one_key(0)), state(one_key(1)))),
            ("all updated by a diff", steps(&mut filled(one_key(0)), diff(one_key(1), one_key(0)))),
            ("keys updated by a state", steps(&mut filled(many_keys(0)), state(many_keys(1)))),
            ("all leave", steps(&mut filled(one_key(0)), diff(Entries::default(), one_key(0)))),
            ("one predecessor", steps(&mut filled(same.clone()), diff(same_prev, same))),
        ]
    }

    /// Eight times as many metas take at most twelve times as many steps: eight times for the metas, and
    /// half of that in addition for sorting.
    #[test]
    fn merge_steps_are_linear_in_metas() {
        for ((shape, few), (_, many)) in shapes(500).into_iter().zip(shapes(4_000)) {
            assert!(many <= 8 * few * 3 / 2, "{shape}: {few} steps and {many}");
            assert!(many <= 4_000 * 250, "{shape}: {many} steps");
        }
    }

    /// The weight of the list is the sum of its entries' weights after any joins and leaves. A clone has
    /// less spare capacity than its original.
    #[test]
    fn list_weight_is_sum_of_entries() {
        let mut list = List::<Value>::new();
        for round in 0..40_usize {
            if round % 2 == 0 {
                list = list.clone();
            }
            let key = ["ann", "bob", "cy"][round % 3];
            let entries = |count, generation| -> Entries<Value> {
                let mut entry = metas(count, generation);
                entry["user"] = json!({"name": "x".repeat(round)});
                serde_json::from_value(json!({key: entry})).expect("presences")
            };
            // Some metas that join are known already, and some that leave are not.
            let (came, went) = (entries(round % 7 + 1, round % 4), entries(round % 5, round % 3));
            Diff { joins: came, leaves: went }.apply(&mut list);
            let entries = list.entries.iter().map(|(key, entry)| weight_of(key, entry));
            assert_eq!(list.weight, entries.sum::<usize>(), "round {round}");
        }
        assert_ne!(list.weight, 0);
        Diff::between(&list, Entries::default()).apply(&mut list);
        assert_eq!((list.entries.len(), list.weight), (0, 0));
    }
}
