//! A table of all pushes without an outcome, with indexes by id, ref, deadline and group.
//!
//! ```text
//!   PushId ──▶ by_id ──┐
//!   Ref ─────▶ by_ref ─┼──▶ Place ──▶ entries: the push, its neighbours in its group
//!   Time ────▶ deadlines
//!   a topic, or an instance that is being left ──▶ Group: first, last
//! ```
//!
//! For pushes that are accepted, written and answered in the same order, no operation searches a
//! tree or a hash table. When the tables have grown to the number of outstanding pushes, a push
//! does not allocate: it reuses the entry of an ended push and the memory of that push's event
//! name. Operations that end many pushes iterate over the group of the pushes.

use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use std::collections::BTreeMap;

use slab::Slab;

use crate::collections::deadlines::Deadlines;
use crate::collections::ordered::Ordered;
use crate::id::{PushId, Ref};
use crate::socket::push::Push;
use crate::socket::push::held::Head;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The key of a push in the slab, valid until the push has its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(NonZeroU32);

/// The id of a group: the pushes of one wanted topic, or of one instance that is being left, in the
/// order of acceptance. The owner of a group passes it on or [disbands](Pushes::disband) it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group(u32);

/// The maximum capacity of an event name that is kept while a reply is awaited, and for reuse by a
/// later push.
pub(crate) const EVENT_KEPT: usize = 256;

/// Totals of the pushes that are accepted and not yet written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) pushes: u32,
    /// The bytes of their payloads and event names. The topic is shared with its channel.
    pub(crate) bytes: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Pushes {
    entries: Slab<Entry>,
    /// The event name of each push. The memory is kept for the next push, unless it is long.
    events: Vec<String>,
    by_id: Ordered<PushId, Place>,
    by_ref: Ordered<Ref, Place>,
    deadlines: Deadlines,
    groups: Vec<Ends>,
    /// The free list of groups.
    free_groups: Vec<u32>,
    queued: Queued,
}

#[derive(Clone, Debug)]
struct Entry {
    push: Push,
    id: PushId,
    deadline: Time,
    group: u32,
    before: Option<Place>,
    behind: Option<Place>,
}

/// The first and the last push of a group, its instance and its totals.
#[derive(Clone, Debug, Default)]
struct Ends {
    first: Option<Place>,
    last: Option<Place>,
    /// The join_ref of the instance on which the group's pushes are written, or were last written;
    /// `None` if the topic was never joined. Refs begin at one.
    instance: Option<NonZeroU64>,
    queued: Queued,
}

/// A push to write.
#[derive(Debug)]
pub(crate) struct Due<'a> {
    pub(crate) join_ref: Option<Ref>,
    pub(crate) topic: &'a Topic,
    pub(crate) event: &'a str,
    pub(crate) payload: Payload,
    pub(crate) cast: bool,
}

impl Place {
    #[inline]
    const fn key(self) -> usize {
        self.0.get() as usize - 1
    }

    #[inline]
    fn of(key: usize) -> Self {
        Self(NonZeroU32::new(index(key + 1)).expect("one more than a key"))
    }
}

impl Queued {
    #[inline]
    const fn add(&mut self, bytes: usize) {
        self.pushes += 1;
        self.bytes += bytes;
    }

    #[inline]
    const fn subtract(&mut self, bytes: usize) {
        self.pushes -= 1;
        self.bytes -= bytes;
    }
}

impl Pushes {
    #[inline]
    pub(crate) const fn queued(&self) -> Queued {
        self.queued
    }

    /// The totals of one group.
    #[inline]
    pub(crate) fn queued_of(&self, group: &Group) -> Queued {
        self.groups[group.0 as usize].queued
    }

    /// The number of pushes that are written and have no outcome.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.by_ref.len()
    }

    /// The number of groups that have an owner.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len() - self.free_groups.len()
    }

    /// The number of deadlines.
    pub(crate) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// Makes an empty group, whose pushes are written on this instance.
    pub(crate) fn group(&mut self, instance: Option<Ref>) -> Group {
        let instance = instance.and_then(|it| NonZeroU64::new(it.0));
        let ends = Ends { instance, ..Ends::default() };
        Group(match self.free_groups.pop() {
            Some(group) => {
                self.groups[group as usize] = ends;
                group
            }
            None => {
                self.groups.push(ends);
                index(self.groups.len() - 1)
            }
        })
    }

    /// Sets the instance that the pushes of a group are written on.
    pub(crate) fn written_on(&mut self, group: &Group, instance: Ref) {
        self.groups[group.0 as usize].instance = NonZeroU64::new(instance.0);
    }

    /// Adds a push at the end of a group. `bytes` is its size in the queue.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        id: PushId,
        push: Push,
        (event, bytes): (&str, usize),
        deadline: Time,
        group: &Group,
    ) -> Place {
        debug_assert_eq!(bytes, push.queued_len() + event.len(), "the size in the queue");
        let ends = &mut self.groups[group.0 as usize];
        self.queued.add(bytes);
        ends.queued.add(bytes);
        let entry = Entry { push, id, deadline, group: group.0, before: ends.last, behind: None };
        let place = Place::of(self.entries.insert(entry));
        match self.events.get_mut(place.key()) {
            Some(kept) => kept.push_str(event),
            None => self.events.push(event.to_owned()),
        }
        match ends.last.replace(place) {
            Some(last) => self.entries[last.key()].behind = Some(place),
            None => ends.first = Some(place),
        }
        self.by_id.insert(id, place);
        self.deadlines.insert(deadline, id);
        place
    }

    pub(crate) fn place(&self, id: PushId) -> Option<Place> {
        self.by_id.get(id).copied()
    }

    #[inline]
    pub(crate) fn by_ref(&self, msg_ref: Ref) -> Option<Place> {
        self.by_ref.get(msg_ref).copied()
    }

    /// The push at a place, while it has no outcome.
    #[inline]
    pub(crate) fn get(&self, place: Place) -> Option<(PushId, &Push)> {
        let entry = self.entries.get(place.key())?;
        Some((entry.id, &entry.push))
    }

    /// Marks a queued push as written under `msg_ref`, and returns the parts of its frame.
    #[inline]
    pub(crate) fn write(&mut self, place: Place, msg_ref: Ref) -> Option<Due<'_>> {
        let Entry { push, group, .. } = self.entries.get_mut(place.key())?;
        let event = &self.events[place.key()];
        let payload = push.write(msg_ref)?;
        let bytes = payload.len() + event.len();
        let ends = &mut self.groups[*group as usize];
        self.queued.subtract(bytes);
        ends.queued.subtract(bytes);
        self.by_ref.insert(msg_ref, place);
        let join_ref = ends.instance.map(|it| Ref(it.get()));
        Some(Due { join_ref, topic: &push.topic, event, payload, cast: push.cast })
    }

    /// Frees the event name, if it is long, after the frame of the push was built.
    #[cold]
    pub(crate) fn framed(&mut self, place: Place) {
        drop_long(&mut self.events[place.key()]);
    }

    /// The group of a push.
    pub(crate) fn group_of(&self, place: Place) -> Group {
        Group(self.entries[place.key()].group)
    }

    /// The push behind this one in its group.
    pub(crate) fn behind(&self, place: Place) -> Option<Head> {
        let behind = self.entries[place.key()].behind?;
        let (id, push) = self.get(behind)?;
        Some((id.0, behind, push.cast))
    }

    /// Removes a push from the table, its group and every index.
    #[inline]
    pub(crate) fn remove(&mut self, place: Place) -> Option<(PushId, Push)> {
        let Entry { push, id, deadline, group, before, behind } =
            self.entries.try_remove(place.key())?;
        let event = &mut self.events[place.key()];
        let event_len = event.len();
        event.clear();
        drop_long(event);
        let ends = &mut self.groups[group as usize];
        match before {
            Some(before) => self.entries[before.key()].behind = behind,
            None => ends.first = behind,
        }
        match behind {
            Some(behind) => self.entries[behind.key()].before = before,
            None => ends.last = before,
        }
        match push.written() {
            Some(msg_ref) => drop(self.by_ref.remove(msg_ref)),
            None => {
                let bytes = push.queued_len() + event_len;
                self.queued.subtract(bytes);
                ends.queued.subtract(bytes);
            }
        }
        self.by_id.remove(id);
        self.deadlines.remove(deadline, id);
        Some((id, push))
    }

    /// The pushes of a group, in the order they were accepted.
    pub(crate) fn members(&self, group: &Group) -> impl Iterator<Item = (Place, PushId, &Push)> {
        let first = self.groups[group.0 as usize].first;
        core::iter::successors(first, |place| self.entries[place.key()].behind).filter_map(
            |place| {
                let (id, push) = self.get(place)?;
                Some((place, id, push))
            },
        )
    }

    /// Frees the memory of the tables, if there are no pushes.
    pub(crate) fn shrink(&mut self) {
        if self.by_id.len() == 0 {
            (self.entries, self.events) = (Slab::new(), Vec::new());
            self.by_id.shrink_if_empty();
            self.by_ref.shrink_if_empty();
            self.deadlines = Deadlines::default();
        }
        if self.groups() == 0 {
            (self.groups, self.free_groups) = (Vec::new(), Vec::new());
        }
    }

    /// Frees an empty group.
    pub(crate) fn disband(&mut self, group: Group) {
        debug_assert!(self.groups[group.0 as usize].first.is_none(), "{group:?} is not empty");
        self.free_groups.push(group.0);
    }

    /// The earliest deadline of a push.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first()
    }

    /// The pushes whose deadline has passed, in the order of their deadlines.
    pub(crate) fn overdue(&self, now: Time) -> Vec<(Time, PushId)> {
        self.deadlines.expired(now)
    }
}

/// Omits vacant entries.
impl fmt::Debug for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: BTreeMap<PushId, &Push> =
            self.by_id.iter().filter_map(|(_, place)| self.get(*place)).collect();
        f.debug_struct("Pushes")
            .field("all", &all)
            .field("by_ref", &self.by_ref)
            .field("deadlines", &self.deadlines)
            .field("groups", &self.groups())
            .field("queued", &self.queued)
            .finish()
    }
}

#[inline]
fn drop_long(event: &mut String) {
    if event.capacity() > EVENT_KEPT {
        *event = String::new();
    }
}

/// Converts a key. It cannot fail, because 2³² pushes do not fit into memory.
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer pushes than memory could hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::input::PushOptions;

    fn accept(pushes: &mut Pushes, id: u64, group: &Group) -> Place {
        let (at, topic) = (Time::from_millis(id * 10), Topic::from("room:a"));
        let options = PushOptions::call();
        let push = Push::queued(topic, Payload::empty(), options);
        pushes.insert(PushId(id), push, ("e", 3), at, group)
    }

    fn ids(pushes: &Pushes, group: &Group) -> Vec<u64> {
        pushes.members(group).map(|(_, id, _)| id.0).collect()
    }

    #[test]
    fn push_is_found_until_it_is_removed() {
        let mut pushes = Pushes::default();
        let (one, other) = (pushes.group(Some(Ref(5))), pushes.group(None));
        let places: Vec<Place> = (1..=4)
            .map(|id| accept(&mut pushes, id, if id == 2 { &other } else { &one }))
            .collect();
        assert_eq!((ids(&pushes, &one), ids(&pushes, &other)), (vec![1, 3, 4], vec![2]));
        let due = pushes.write(places[2], Ref(7)).expect("it is queued");
        assert_eq!((due.join_ref, due.event, due.topic.as_str()), (Some(Ref(5)), "e", "room:a"));
        assert!(pushes.write(places[2], Ref(8)).is_none(), "written once");
        assert_eq!((pushes.by_ref(Ref(7)), pushes.by_ref(Ref(8))), (Some(places[2]), None));
        assert_eq!((pushes.in_flight(), pushes.queued()), (1, Queued { pushes: 3, bytes: 9 }));
        let queued = (pushes.queued_of(&one), pushes.queued_of(&other));
        assert_eq!(queued, (Queued { pushes: 2, bytes: 6 }, Queued { pushes: 1, bytes: 3 }));
        assert_eq!(pushes.behind(places[0]), Some((3, places[2], false)));
        assert_eq!(pushes.behind(places[3]), None);
        assert!(pushes.group_of(places[2]) == one && pushes.group_of(places[1]) == other);
        for (at, left) in [(2, vec![1, 4]), (0, vec![4]), (3, vec![])] {
            assert!(pushes.remove(places[at]).is_some());
            assert!(pushes.remove(places[at]).is_none());
            assert_eq!(ids(&pushes, &one), left);
        }
        assert_eq!(pushes.queued_of(&one), Queued::default());
        assert_eq!((pushes.by_ref(Ref(7)), pushes.place(PushId(2))), (None, Some(places[1])));
        pushes.written_on(&other, Ref(6));
        assert_eq!(pushes.write(places[1], Ref(9)).and_then(|due| due.join_ref), Some(Ref(6)));
        assert_eq!(pushes.next_deadline(), Some(Time::from_millis(20)));
        pushes.disband(one);
        assert_eq!((pushes.groups(), pushes.deadlines()), (1, 1));
    }

    #[test]
    fn memory_of_burst_is_freed() {
        let mut pushes = Pushes::default();
        let group = pushes.group(None);
        let places: Vec<Place> = (1..=1_000).map(|id| accept(&mut pushes, id, &group)).collect();
        for place in places {
            pushes.shrink();
            assert!(pushes.remove(place).is_some());
        }
        pushes.shrink();
        assert_eq!((pushes.entries.capacity(), pushes.events.capacity()), (0, 0));
        assert_eq!(pushes.queued(), Queued::default());
        assert_eq!(pushes.groups(), 1, "the group is still held");
        let place = accept(&mut pushes, 1_001, &group);
        assert_eq!(pushes.place(PushId(1_001)), Some(place));
        assert!(pushes.remove(place).is_some());
        pushes.disband(group);
        pushes.shrink();
        assert_eq!((pushes.groups.capacity(), pushes.free_groups.capacity()), (0, 0));
    }

    #[test]
    fn free_entry_keeps_no_long_event() {
        let mut pushes = Pushes::default();
        let group = pushes.group(None);
        for (id, event) in [(1, "new_msg".to_owned()), (2, "e".repeat(100_000))] {
            let push = Push::queued(Topic::from("t"), Payload::empty(), PushOptions::call());
            let place =
                pushes.insert(PushId(id), push, (&event, event.len() + 2), Time::ZERO, &group);
            assert!(pushes.remove(place).is_some());
            assert_eq!(pushes.events.len(), 1, "the entry is reused");
            let kept = pushes.events[place.key()].capacity();
            assert!(kept <= EVENT_KEPT && (id == 2 || kept > 0), "{kept} bytes");
        }
    }

    #[test]
    fn written_push_keeps_no_long_event() {
        let mut pushes = Pushes::default();
        let group = pushes.group(None);
        for (id, event) in [(1, "new_msg".to_owned()), (2, "e".repeat(100_000))] {
            let push = Push::queued(Topic::from("t"), Payload::empty(), PushOptions::call());
            let place =
                pushes.insert(PushId(id), push, (&event, event.len() + 2), Time::ZERO, &group);
            assert_eq!(pushes.queued(), Queued { pushes: 1, bytes: event.len() + 2 });
            assert_eq!(pushes.write(place, Ref(id)).map(|due| due.event.len()), Some(event.len()));
            pushes.framed(place);
            let kept = pushes.events[place.key()].capacity();
            assert!(kept <= EVENT_KEPT && (id == 2 || kept > 0), "{kept} bytes");
            assert_eq!(pushes.queued(), Queued::default());
        }
        assert_eq!(pushes.in_flight(), 2);
    }

    #[test]
    fn size_of_a_push_does_not_grow() {
        let (push, group) = (size_of::<Entry>(), size_of::<Ends>());
        assert!(push <= 144 && group <= 32, "{push} and {group} bytes");
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Pushes {
        /// The form omits the places of entries and the numbers of groups, because they make no
        /// difference.
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { entries, events, by_id, by_ref, deadlines, groups, free_groups, queued } =
                self;
            assert_eq!(entries.len(), by_id.len());
            assert!(free_groups.len() <= groups.len());
            form.number(by_id.len() as u64);
            let (mut written, mut waiting, mut armed) = (0, Queued::default(), Vec::new());
            for (key, place) in by_id.entries() {
                let Entry { push, id, deadline, group: _, before: _, behind: _ } =
                    &entries[place.key()];
                assert_eq!(key, *id);
                form.order(id.0);
                push.canonical(form);
                form.deadline(*deadline);
                armed.push((*deadline, *id));
                match push.written() {
                    Some(msg_ref) => {
                        assert_eq!(by_ref.get(msg_ref), Some(place));
                        written += 1;
                    }
                    None => waiting.add(push.queued_len() + events[place.key()].len()),
                }
            }
            armed.sort_unstable();
            assert_eq!(deadlines.entries(), armed);
            assert_eq!((by_ref.len(), *queued), (written, waiting));
        }

        /// The members of a group, and whether they are written on the instance that is joined or being
        /// left. Any earlier instance makes no difference, because it is replaced before a push of the
        /// group is written.
        pub(crate) fn canonical_group(
            &self,
            form: &mut Form<'_>,
            group: &Group,
            current: Option<Ref>,
        ) {
            let Ends { first: _, last, instance, queued } = &self.groups[group.0 as usize];
            form.flag(instance.map(|it| Ref(it.get())) == current);
            let (mut waiting, mut before) = (Queued::default(), None);
            for (place, id, push) in self.members(group) {
                form.order(id.0);
                let entry = &self.entries[place.key()];
                assert_eq!((entry.before, entry.group), (before, group.0));
                before = Some(place);
                if !push.is_written() {
                    waiting.add(push.queued_len() + self.events[place.key()].len());
                }
            }
            assert_eq!((*last, *queued), (before, waiting));
        }
    }
}
