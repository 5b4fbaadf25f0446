//! The table of channels by topic, with an index of their deadlines and of due joins.
//!
//! Only [`Channels::change`] changes a channel. It compares the indexed values before and after the
//! change, so the index always agrees with the states, and no other code arms or disarms a
//! deadline. Debug builds check small tables after every change.

use std::collections::BTreeSet;

use crate::collections::table::{Name, Table};
use crate::socket::channel::{Channel, ToPush};
use crate::socket::timer::TimerKey;
use crate::time::Time;
use crate::topic::Topic;

/// Every topic that is wanted or being left.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    /// The channels are boxed, because a hash table has more capacity than entries, and an empty
    /// slot is then small.
    table: Table<Box<Channel>>,
    index: Index,
}

/// Sorted sets of the values that must be found without a scan of every channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Index {
    /// The deadlines of rejoins and leaves, earliest first.
    deadlines: BTreeSet<(Time, TimerKey)>,
    /// The joins that can be written, in the order of their requests.
    due: BTreeSet<(u64, Topic)>,
}

/// The indexed values of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    rejoin: Option<Time>,
    leave: Option<Time>,
    due: Option<u64>,
}

impl Marks {
    fn of(channel: &Channel) -> Self {
        let never = |at: &Time| *at < Time::MAX;
        Self {
            rejoin: channel.rejoin_at().filter(never),
            leave: channel.leave_until().filter(never),
            due: channel.due(),
        }
    }
}

impl Index {
    fn remove(&mut self, topic: &Topic, marks: Marks) {
        for (at, key) in Self::keys(topic, marks) {
            self.deadlines.remove(&(at, key));
        }
        if let Some(order) = marks.due {
            self.due.remove(&(order, topic.clone()));
            // An empty tree keeps a node. Most connections never join again.
            if self.due.is_empty() {
                self.due = BTreeSet::new();
            }
        }
    }

    fn insert(&mut self, topic: &Topic, marks: Marks) {
        self.deadlines.extend(Self::keys(topic, marks));
        // Protocol: RETRY-1.
        self.due.extend(marks.due.map(|order| (order, topic.clone())));
    }

    fn keys(topic: &Topic, marks: Marks) -> impl Iterator<Item = (Time, TimerKey)> {
        let rejoin = marks.rejoin.map(|at| (at, TimerKey::Rejoin(topic.clone())));
        let leave = marks.leave.map(|at| (at, TimerKey::Leave(topic.clone())));
        rejoin.into_iter().chain(leave)
    }
}

impl Channels {
    /// Creates an empty table. `seed` makes its hashes unpredictable for the server.
    pub(crate) const fn seeded(seed: u64) -> Self {
        let index = Index { deadlines: BTreeSet::new(), due: BTreeSet::new() };
        Self { table: Table::seeded(seed), index }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(crate) fn get<N: Name + ?Sized>(&self, topic: &N) -> Option<&Channel> {
        self.table.get(topic).map(|channel| &**channel)
    }

    #[inline]
    pub(crate) fn get_key_value<N: Name + ?Sized>(&self, topic: &N) -> Option<(&Topic, &Channel)> {
        self.table.get_key_value(topic).map(|(topic, channel)| (topic, &**channel))
    }

    /// Every channel, sorted by topic.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&Topic, &Channel)> {
        self.table.sorted().map(|(topic, channel)| (topic, &**channel))
    }

    /// Changes a channel, if it exists, and updates the index. Afterwards a channel that is neither
    /// wanted nor being left is removed.
    pub(crate) fn change<R>(
        &mut self,
        topic: &str,
        change: impl FnOnce(&mut Channel) -> R,
    ) -> Option<R> {
        let channel = self.table.get_mut(topic)?;
        let before = Marks::of(channel);
        let result = change(channel);
        let (after, is_empty) = (Marks::of(channel), channel.is_empty());
        self.changed(topic, before, after);
        if is_empty {
            self.table.remove(topic);
        }
        debug_assert!(self.len() > 8 || self.agrees(), "the index of {topic} is stale: {self:?}");
        Some(result)
    }

    /// The parts of a wanted topic that a push needs, with one lookup.
    #[inline]
    pub(crate) fn pushing(&mut self, topic: &str) -> Option<ToPush<'_>> {
        self.table.get_mut(topic)?.pushing()
    }

    /// Like [`change`](Self::change), for a topic that may have no channel yet.
    pub(crate) fn change_or_add<R>(
        &mut self,
        topic: &Topic,
        change: impl FnOnce(&mut Channel) -> R,
    ) -> R {
        self.table.get_or_default(topic.clone());
        self.change(topic, change).expect("it was added")
    }

    #[inline]
    fn changed(&mut self, topic: &str, before: Marks, after: Marks) {
        if before != after {
            if let Some((topic, _)) = self.table.get_key_value(topic) {
                self.index.remove(topic, before);
                self.index.insert(topic, after);
            }
        }
    }

    /// The earliest deadline of all channels.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<&(Time, TimerKey)> {
        // The check is a fast path: `first` may search a node even in an empty set.
        if self.index.deadlines.is_empty() { None } else { self.index.deadlines.first() }
    }

    /// The deadlines that have passed, in the order in which they expire.
    pub(crate) fn passed_deadlines(&self, now: Time) -> impl Iterator<Item = &(Time, TimerKey)> {
        self.index.deadlines.iter().take_while(move |(at, _)| *at <= now)
    }

    /// The number of deadlines.
    pub(crate) fn deadlines(&self) -> usize {
        debug_assert!(self.agrees(), "the index is stale: {self:?}");
        self.index.deadlines.len()
    }

    /// The first of the joins that can be written once there is a connection.
    #[inline]
    pub(crate) fn first_due(&self) -> Option<&(u64, Topic)> {
        if self.index.due.is_empty() { None } else { self.index.due.first() }
    }

    /// The number of joins that can be written once there is a connection.
    pub(crate) fn due(&self) -> usize {
        self.index.due.len()
    }

    /// Frees the memory of an empty index.
    pub(crate) fn shrink(&mut self) {
        if self.index.deadlines.is_empty() && self.index.due.is_empty() {
            self.index = Index::default();
        }
    }

    /// Whether the index equals one that is rebuilt from the channels.
    fn agrees(&self) -> bool {
        let mut index = Index::default();
        for (topic, channel) in self.sorted() {
            index.insert(topic, Marks::of(channel));
        }
        index == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::join_params::JoinParams;
    use crate::id::Ref;
    use crate::socket::channel::{State, Want};

    fn wanted(topics: &[(&str, u64)]) -> Channels {
        let mut channels = Channels::seeded(7);
        for (topic, order) in topics {
            let topic = Topic::from(*topic);
            let want = Want::new(topic.clone(), *order, JoinParams::none());
            channels.change_or_add(&topic, |channel| channel.want = Some(want));
        }
        channels
    }

    fn set_state(channels: &mut Channels, topic: &str, state: State) {
        channels.change(topic, |channel| channel.want.as_mut().unwrap().state = state).unwrap();
    }

    fn first_due(channels: &Channels) -> Option<(u64, &str)> {
        channels.first_due().map(|(order, topic)| (*order, topic.as_str()))
    }

    #[test]
    fn index_follows_every_change() {
        let mut channels = wanted(&[("b", 1), ("a", 2)]);
        assert_eq!((first_due(&channels), channels.due()), (Some((1, "b")), 2));
        set_state(&mut channels, "b", State::Joining { join_ref: Ref(1) });
        assert_eq!((first_due(&channels), channels.due()), (Some((2, "a")), 1));
        let at = Time::from_millis;
        set_state(&mut channels, "b", State::Errored { until: at(9) });
        set_state(&mut channels, "a", State::Errored { until: at(9) });
        let key = |topic: &str| (at(9), TimerKey::Rejoin(topic.into()));
        assert_eq!(channels.next_deadline(), Some(&key("a")), "equal times in order of topic");
        assert!(channels.passed_deadlines(at(8)).next().is_none());
        assert!(channels.passed_deadlines(at(9)).eq([&key("a"), &key("b")]));
        set_state(&mut channels, "a", State::Errored { until: Time::MAX });
        assert_eq!((channels.next_deadline(), channels.deadlines()), (Some(&key("b")), 1), "never");
        channels.change("b", |channel| channel.want = None);
        assert_eq!((channels.len(), channels.deadlines(), channels.due()), (1, 0, 0));
        assert!(channels.change("b", |_| ()).is_none());
    }

    #[test]
    #[should_panic(expected = "stale")]
    fn change_past_the_index_is_detected() {
        let mut channels = wanted(&[("a", 1)]);
        channels.table.get_mut("a").unwrap().want = None;
        channels.deadlines();
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;
    use crate::socket::push::slab::Pushes;

    impl Channels {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self { table, index: _ } = self;
            assert!(self.agrees(), "the index is stale: {self:?}");
            form.number(table.len() as u64);
            for (topic, channel) in table.entries() {
                form.text(topic);
                channel.canonical(form, pushes);
            }
        }
    }
}
