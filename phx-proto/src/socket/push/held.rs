//! The groups of pushes that are held because `pushes_in_flight_max` calls are in flight.
//!
//! ```text
//!   lane ── a call reaches the front at `pushes_in_flight_max` ──▶ held, as the head of its group
//!   lane ── a push of a held group reaches the front ──▶ dropped from the lane: it follows its head
//!
//!   head, a call ── fewer are in flight ──┬─▶ written in the order of acceptance; the next push of the
//!   head, a cast ─────────────────────────┘   group is its head from then on, and without one the group
//!                                             is not held any more
//! ```
//!
//! Each held group is represented by its head, its first unwritten push; the others follow it in
//! the group. So the frames of a channel keep their order, casts of other channels are not blocked,
//! and each reply costs one search among the held groups. Heartbeats, joins and leaves are never
//! held. (A leave ends the pushes of its channel that might have to wait.)
//!
//! The held groups belong to one connection.

use std::collections::BTreeMap;

use crate::socket::push::slab::{Group, Place};

/// The head of a group: its order of acceptance, its place, and whether it is a cast.
pub(crate) type Head = (u64, Place, bool);

/// The heads of all held groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    heads: BTreeMap<Group, Head>,
    /// The heads that are calls, in the order of acceptance. They wait until fewer calls are in
    /// flight.
    calls: BTreeMap<u64, Place>,
    /// The heads that are casts, in the order of acceptance. They need not wait for answers: a cast is
    /// written when it is the oldest of the heads that may be written.
    casts: BTreeMap<u64, Place>,
}

impl Held {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The number of held groups.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn contains(&self, group: &Group) -> bool {
        self.heads.contains_key(group)
    }

    /// The head to write next. `may_call` means that one more call may be in flight; without it, only
    /// casts are considered.
    #[inline]
    pub(crate) fn next(&self, may_call: bool) -> Option<(u64, Place)> {
        if self.is_empty() { None } else { self.first(may_call) }
    }

    fn first(&self, may_call: bool) -> Option<(u64, Place)> {
        let call = self.calls.first_key_value().filter(|_| may_call);
        let heads = call.into_iter().chain(self.casts.first_key_value());
        heads.map(|(order, place)| (*order, *place)).min_by_key(|(order, _)| *order)
    }

    /// Holds a group, whose head is this push.
    pub(crate) fn hold(&mut self, group: Group, head: Head) {
        let (order, place, cast) = head;
        self.of(cast).insert(order, place);
        self.heads.insert(group, head);
    }

    /// Replaces the head `order` of a group, which is no longer queued, by `next`, the push behind
    /// it.
    pub(crate) fn follow(&mut self, group: Group, order: u64, next: Option<Head>) {
        if self.heads.get(&group).is_none_or(|(head, ..)| *head != order) {
            return;
        }
        self.release(&group);
        if let Some(head) = next {
            self.hold(group, head);
        }
    }

    /// Releases a group.
    pub(crate) fn release(&mut self, group: &Group) {
        let Some((order, _, cast)) = self.heads.remove(group) else { return };
        self.of(cast).remove(&order);
    }

    const fn of(&mut self, cast: bool) -> &mut BTreeMap<u64, Place> {
        if cast { &mut self.casts } else { &mut self.calls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::input::PushOptions;
    use crate::id::PushId;
    use crate::socket::push::Push;
    use crate::socket::push::slab::Pushes;
    use crate::time::Time;
    use crate::topic::Topic;
    use crate::wire::payload::Payload;

    /// Heads are written in the order of acceptance, a call only when one more may be in flight.
    #[test]
    fn next_head_is_first_writable() {
        let mut pushes = Pushes::default();
        let (mut held, mut places) = (Held::default(), Vec::new());
        let groups = [1, 2, 3].map(|id| {
            let group = pushes.group(None);
            let push = Push::queued(Topic::from("t"), Payload::empty(), PushOptions::call());
            places.push(pushes.insert(PushId(id), push, ("e", 3), Time::MAX, &group));
            group
        });
        held.hold(groups[0].clone(), (1, places[0], false));
        held.hold(groups[1].clone(), (2, places[1], true));
        assert_eq!((held.len(), held.contains(&groups[0])), (2, true));
        assert_eq!(held.next(false), Some((2, places[1])), "a cast");
        assert_eq!(held.next(true), Some((1, places[0])));
        held.follow(groups[0].clone(), 9, None);
        assert_eq!(held.len(), 2, "9 is not its head");
        held.follow(groups[0].clone(), 1, Some((3, places[2], false)));
        assert_eq!(held.next(true), Some((2, places[1])), "the next head has a later order");
        held.follow(groups[1].clone(), 2, None);
        assert_eq!((held.next(false), held.next(true)), (None, Some((3, places[2]))));
        held.release(&groups[0]);
        assert_eq!((held.is_empty(), held.next(true)), (true, None));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Held {
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { heads, calls, casts } = self;
            form.number(heads.len() as u64);
            let mut all: Vec<&Head> = heads.values().collect();
            all.sort_unstable_by_key(|(order, ..)| *order);
            for (order, place, cast) in all {
                form.order(*order);
                form.flag(*cast);
                let others = if *cast { casts } else { calls };
                assert_eq!(others.get(order), Some(place), "{self:?}");
            }
            assert_eq!(calls.len() + casts.len(), heads.len(), "{self:?}");
        }
    }
}
