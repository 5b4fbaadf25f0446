//! The lane: a queue of the channel frames that can be written, in the order of acceptance.
//!
//! ```text
//!   push of a joined channel, leave ──▶ lane ──▶ next frame
//!                                        │ ▲
//!                  a call, and pushes_in_flight_max are in flight
//!                                        ▼ │ fewer are in flight, or a cast's turn
//!                                       held
//! ```
//!
//! A leave is behind the pushes accepted before it. Pushes that must wait until fewer calls are in
//! flight are moved to [`held`](crate::socket::push::held), so they do not block other frames.
//!
//! The lane belongs to one connection.

use crate::collections::ordered::Ordered;
use crate::id::Ref;
use crate::socket::push::held::Held;
use crate::socket::push::slab::{Group, Place, Pushes};
use crate::topic::Topic;

/// A frame that can be written now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneItem {
    Push(Place),
    /// The leave of the instance with this join_ref. It is written even if the leave has timed out.
    Leave(Topic, Ref),
}

/// A queue of channel frames, keyed by the order of acceptance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    items: Ordered<u64, LaneItem>,
    /// Pushes that wait until fewer calls are in flight, and the pushes behind them.
    held: Held,
    /// Leaves that timed out before they were written, at most one of each topic.
    late: Vec<(Topic, u64)>,
}

impl Lane {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The number of held groups.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether [`pop`](Self::pop) has something to return. With `may_call`, one more call may be in
    /// flight.
    #[inline]
    pub(crate) fn is_ready(&self, may_call: bool) -> bool {
        self.items.len() > 0 || !self.held.is_empty() && self.held.next(may_call).is_some()
    }

    /// Adds a push or a leave that can be written.
    #[inline]
    pub(crate) fn insert(&mut self, order: u64, item: LaneItem) {
        self.items.insert(order, item);
    }

    /// Adds many items, which are sorted.
    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = (u64, LaneItem)>) {
        self.items.extend(items);
    }

    /// Removes the item with this order.
    #[inline]
    pub(crate) fn remove(&mut self, order: u64) {
        self.items.remove(order);
    }

    /// Remembers that the leave accepted as `order` timed out before it was written.
    pub(crate) fn leave_is_late(&mut self, topic: Topic, order: u64) {
        self.late.push((topic, order));
    }

    /// Forgets the late leave of a topic whose leave or join is being written. The server replaces the
    /// old instance at the join, so the lane does not keep a leave for it.
    pub(crate) fn settle_late_leave(&mut self, topic: &str) {
        if let Some(at) = self.late.iter().position(|(late, _)| **late == *topic) {
            let (_, order) = self.late.swap_remove(at);
            self.items.remove(order);
        }
    }

    /// Removes the pushes of a group.
    pub(crate) fn remove_group(&mut self, group: &Group, pushes: &Pushes) {
        for (_, id, _) in pushes.members(group) {
            self.items.remove(id.0);
        }
        self.held.release(group);
    }

    /// Takes the next frame; `None` if there is none, or if the next frame must be held.
    #[inline]
    pub(crate) fn pop(&mut self, pushes: &Pushes, may_call: bool) -> Option<LaneItem> {
        if may_call && self.held.is_empty() {
            return self.items.pop_first().map(|(_, item)| item);
        }
        self.pop_beside_held(pushes, may_call)
    }

    #[cold]
    fn pop_beside_held(&mut self, pushes: &Pushes, may_call: bool) -> Option<LaneItem> {
        if let Some((order, place)) = self.held.next(may_call) {
            if self.items.first().is_none_or(|(first, _)| order <= first) {
                // The head may still be in the lane, if it has not reached the front.
                self.items.remove(order);
                self.held.follow(pushes.group_of(place), order, pushes.behind(place));
                return Some(LaneItem::Push(place));
            }
        }
        let (order, item) = self.items.pop_first()?;
        match item {
            LaneItem::Push(place) if self.hold_back(pushes, order, place, may_call) => None,
            item => Some(item),
        }
    }

    /// Holds a push that has reached the front, if it may not be written now: its group is held, or
    /// it is a call and no more may be in flight. Returns whether it is held.
    fn hold_back(&mut self, pushes: &Pushes, order: u64, place: Place, may_call: bool) -> bool {
        let group = pushes.group_of(place);
        let Some((_, push)) = pushes.get(place) else { return false };
        if self.held.contains(&group) {
            return true;
        }
        if push.cast || may_call {
            return false;
        }
        self.held.hold(group, (order, place, false));
        true
    }

    /// Called before a push ends. If it is the head of a held group, the push behind it becomes the
    /// head.
    #[inline]
    pub(crate) fn ending(&mut self, pushes: &Pushes, place: Place) {
        if !self.held.is_empty() {
            self.follow_held(pushes, place);
        }
    }

    #[cold]
    fn follow_held(&mut self, pushes: &Pushes, place: Place) {
        if let Some((id, _)) = pushes.get(place) {
            self.held.follow(pushes.group_of(place), id.0, pushes.behind(place));
        }
    }

    /// Frees the memory of an empty lane.
    pub(crate) fn shrink(&mut self) {
        self.items.shrink_if_empty();
        if self.late.is_empty() {
            self.late = Vec::new();
        }
        if self.held.is_empty() {
            self.held = Held::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::input::PushOptions;
    use crate::id::PushId;
    use crate::socket::push::Push;
    use crate::time::Time;
    use crate::wire::payload::Payload;

    #[derive(Default)]
    struct Bench {
        pushes: Pushes,
        lane: Lane,
    }

    impl Bench {
        fn push(&mut self, id: u64, group: &Group, options: PushOptions) -> Place {
            let push = Push::queued(Topic::from("room:a"), Payload::empty(), options);
            let place = self.pushes.insert(PushId(id), push, ("e", 3), Time::MAX, group);
            self.lane.insert(id, LaneItem::Push(place));
            place
        }

        fn pop(&mut self, may_call: bool) -> Option<Place> {
            match self.lane.pop(&self.pushes, may_call) {
                Some(LaneItem::Push(place)) => Some(place),
                Some(LaneItem::Leave(..)) => panic!("a leave"),
                None => None,
            }
        }
    }

    #[test]
    fn lane_keeps_the_order_of_acceptance() {
        let mut bench = Bench::default();
        let group = bench.pushes.group(None);
        let leave = LaneItem::Leave("room:b".into(), Ref(1));
        bench.lane.insert(2, leave.clone());
        let first = bench.push(1, &group, PushOptions::call());
        bench.lane.extend([(5, leave.clone()), (6, leave.clone())]);
        bench.lane.remove(5);
        let Bench { pushes, lane } = &mut bench;
        assert_eq!((lane.len(), lane.is_ready(false)), (3, true));
        assert_eq!(lane.pop(pushes, true), Some(LaneItem::Push(first)));
        assert_eq!(
            [lane.pop(pushes, true), lane.pop(pushes, false)],
            [Some(leave.clone()), Some(leave)]
        );
        assert_eq!((lane.pop(pushes, true), lane.is_ready(true)), (None, false));
    }

    /// At the limit of calls in flight, a call holds its group; other groups are not blocked.
    #[test]
    fn call_over_limit_holds_its_group() {
        let mut bench = Bench::default();
        let (one, other) = (bench.pushes.group(None), bench.pushes.group(None));
        let call = bench.push(1, &one, PushOptions::call());
        let behind = bench.push(2, &one, PushOptions::cast());
        let passes = bench.push(3, &other, PushOptions::cast());
        assert_eq!(
            [bench.pop(false), bench.pop(false), bench.pop(false)],
            [None, None, Some(passes)]
        );
        assert_eq!((bench.lane.held(), bench.lane.is_ready(false)), (1, false));
        assert!(bench.lane.is_ready(true));
        assert_eq!([bench.pop(true), bench.pop(false)], [Some(call), Some(behind)]);
        assert_eq!((bench.lane.held(), bench.pop(true)), (0, None));
    }

    #[test]
    fn end_of_held_push_frees_next() {
        let mut bench = Bench::default();
        let group = bench.pushes.group(None);
        let call = bench.push(1, &group, PushOptions::call());
        let behind = bench.push(2, &group, PushOptions::cast());
        assert_eq!(bench.pop(false), None);
        bench.lane.ending(&bench.pushes, call);
        assert_eq!(bench.pop(false), Some(behind));
    }

    /// A push that was accepted earlier is written first, even if it became writable later.
    #[test]
    fn held_push_does_not_overtake() {
        let mut bench = Bench::default();
        let (one, other) = (bench.pushes.group(None), bench.pushes.group(None));
        let held = bench.push(2, &one, PushOptions::call());
        assert_eq!(bench.pop(false), None);
        let before = bench.push(1, &other, PushOptions::call());
        assert_eq!([bench.pop(true), bench.pop(true)], [Some(before), Some(held)]);
    }

    #[test]
    fn removed_group_is_not_held() {
        let mut bench = Bench::default();
        let group = bench.pushes.group(None);
        for id in 1..=3 {
            bench.push(id, &group, PushOptions::call());
        }
        assert_eq!(bench.pop(false), None);
        bench.lane.remove_group(&group, &bench.pushes);
        assert_eq!((bench.lane.len(), bench.lane.held(), bench.lane.is_ready(true)), (0, 0, false));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Lane {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self { items, held, late } = self;
            form.number(items.len() as u64);
            for (order, item) in items.entries() {
                form.order(order);
                match item {
                    LaneItem::Push(place) => {
                        form.number(0);
                        let (id, _) = pushes.get(*place).expect("it ends with its push");
                        assert_eq!(id.0, order);
                    }
                    LaneItem::Leave(topic, join_ref) => {
                        form.number(1);
                        form.text(topic);
                        form.msg_ref(*join_ref);
                    }
                }
            }
            held.canonical(form);
            form.number(late.len() as u64);
            late.iter().for_each(|(_, order)| form.order(*order));
        }

        /// The join_refs of the instances whose leaves are in the lane.
        pub(crate) fn leaves(&self) -> impl Iterator<Item = Ref> {
            self.items.entries().filter_map(|(_, item)| match item {
                LaneItem::Leave(_, join_ref) => Some(*join_ref),
                LaneItem::Push(_) => None,
            })
        }
    }
}
