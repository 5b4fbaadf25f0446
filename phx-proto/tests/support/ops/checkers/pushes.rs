//! Invariants of pushes.

use std::collections::{BTreeMap, BTreeSet};

use phx_proto::event::{ChannelEnd, Interruption, NotSentCause};
use phx_proto::{Action, ChannelStatus, ConnectionId, PushId, PushOutcome, Signal, Status, Time};

use super::{Checker, Moment};
use crate::ops::peer::Sent;
use crate::ops::setup::{QUEUED_BYTES_MAX, QUEUED_PUSHES_MAX};
use crate::ops::world::Called;

/// Every accepted push gets exactly one outcome, which fits the frames that were written and their
/// times.
#[derive(Clone, Debug, Default)]
pub struct OneOutcome {
    open: BTreeMap<PushId, Accepted>,
    by_number: BTreeMap<u64, PushId>,
    /// The ref of the push that the last call replied to, until that push ends. The next two fields are
    /// for a cancellation and a timeout.
    replied: Option<u64>,
    cancelled: Option<PushId>,
    timeout: bool,
    /// Topics that ended in the last call: none of their pushes may end after them, except casts that
    /// are written before the leave.
    ended: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Accepted {
    topic: String,
    cast: bool,
    bytes: usize,
    deadline: Time,
    written: Option<u64>,
}

impl OneOutcome {
    /// The number of pushes without an outcome.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The number of queued pushes, and their bytes, for one topic or for all.
    pub fn queued(&self, topic: Option<&str>) -> (usize, usize) {
        let queued = self
            .open
            .values()
            .filter(|push| push.written.is_none() && topic.is_none_or(|topic| push.topic == topic));
        queued.fold((0, 0), |(pushes, bytes), push| (pushes + 1, bytes + push.bytes))
    }
}

impl Checker for OneOutcome {
    fn called(&mut self, called: &Called, at: &Moment<'_>) {
        (self.replied, self.cancelled) = (None, None);
        self.timeout = *called == Called::Timeout;
        self.ended.clear();
        match called {
            Called::Push { number, id: Some(id), topic, cast, bytes, timeout } => {
                let accepted = Accepted {
                    topic: topic.clone(),
                    cast: *cast,
                    bytes: *bytes,
                    deadline: at.now + *timeout,
                    written: None,
                };
                assert!(self.open.insert(*id, accepted).is_none(), "{id:?} is taken");
                assert!(self.by_number.values().all(|known| known < id), "ids grow");
                self.by_number.insert(*number, *id);
            }
            Called::Cancel { id, taken } => {
                assert_eq!(*taken, self.open.contains_key(id), "cancelling {id:?}");
                self.cancelled = Some(*id);
            }
            Called::Reply { topic, msg_ref, .. } => {
                let answers =
                    |push: &Accepted| push.written == Some(*msg_ref) && push.topic == *topic;
                self.replied = self.open.values().any(answers).then_some(*msg_ref);
            }
            _ => {}
        }
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        if let Action::Signal(Signal::ChannelClosed { topic, .. }) = action {
            self.ended.insert(topic.to_string());
        }
        let Action::Signal(Signal::PushEnded { id, topic, outcome }) = action else { return };
        // A cast that can be written is written before the leave, which comes later.
        let later = *outcome == PushOutcome::Written;
        assert!(later || !self.ended.contains(topic.as_str()), "{id:?} ends behind {topic}");
        let push = self.open.remove(id).unwrap_or_else(|| panic!("{id:?} ended: {outcome:?}"));
        assert_eq!(*topic, *push.topic);
        let (written, late) = (push.written.is_some(), at.now >= push.deadline);
        let fits = match outcome {
            PushOutcome::Reply(_) => {
                let asked = push.written.is_some() && self.replied == push.written;
                self.replied = None;
                asked && !push.cast
            }
            PushOutcome::Written => written && push.cast,
            PushOutcome::TimedOut => written && late && self.timeout,
            PushOutcome::Unknown(_) => written && !push.cast,
            PushOutcome::NotSent(NotSentCause::TimedOut) => !written && late && self.timeout,
            PushOutcome::NotSent(NotSentCause::Encoding) => false,
            PushOutcome::NotSent(_) => !written,
            PushOutcome::Cancelled => self.cancelled == Some(*id),
            _ => false,
        };
        assert!(fits, "{outcome:?} of {push:?} at {}", at.now);
    }

    fn written(&mut self, sent: &Sent, _: &Moment<'_>) {
        let Some(number) = sent.number.filter(|_| sent.event.starts_with('e')) else { return };
        let id = self.by_number.get(&number).expect("an accepted push");
        let push = self.open.get_mut(id).unwrap_or_else(|| panic!("{id:?} ended and is written"));
        assert_eq!(push.written, None, "{id:?} is written twice");
        assert_eq!(push.topic, sent.topic);
        push.written = Some(sent.msg_ref);
    }

    fn settled(&mut self, at: &Moment<'_>) {
        assert_eq!(self.replied, None, "a reply to a push is its outcome");
        let in_flight = self.open.values().filter(|push| push.written.is_some()).count();
        let stats = at.socket.stats();
        assert_eq!(stats.pushes_in_flight, in_flight);
        assert_eq!((stats.queued_pushes, stats.queued_bytes), self.queued(None));
        assert!(!self.open.values().any(|push| push.cast && push.written.is_some()), "{self:?}");
        if at.dry && at.writable {
            // Every frame that can be written is written. In a joined channel, a push waits only
            // behind a call, and only while `pushes_in_flight_max` calls are in flight. A leave waits
            // for nothing.
            let full = in_flight >= at.setup.pushes_in_flight_max;
            let mut first: BTreeSet<&str> = BTreeSet::new();
            for push in self.open.values().filter(|push| push.written.is_none()) {
                let is_first = first.insert(&push.topic);
                match at.socket.channel_status(&push.topic) {
                    ChannelStatus::Joined if is_first => assert!(full && !push.cast, "{self:?}"),
                    ChannelStatus::Leaving => panic!("the leave waits: {self:?}"),
                    _ => {}
                }
            }
        }
        if self.timeout {
            assert!(self.open.values().all(|push| push.deadline > at.now), "{self:?}");
        }
        if matches!(at.socket.status(), Status::Closed | Status::GaveUp { .. } | Status::Closing) {
            let wanted = at.socket.channels().next().is_some();
            assert!(wanted || self.open.is_empty(), "left behind: {self:?}");
        }
        if matches!(at.socket.status(), Status::Closed | Status::GaveUp { .. }) {
            assert!(self.open.is_empty(), "left behind: {self:?}");
        }
    }
}

/// Refs increase. The frames of a channel are written for an instance that the server confirmed, in
/// the order in which they were accepted, and the leave is the last one.
#[derive(Clone, Debug, Default)]
pub struct Order {
    last_ref: u64,
    last_number: BTreeMap<String, u64>,
    joins: BTreeMap<u64, (ConnectionId, String)>,
    confirmed: BTreeSet<u64>,
    /// The confirmed instance of each topic.
    current: BTreeMap<String, u64>,
    dead: BTreeSet<u64>,
    surviving: BTreeSet<u64>,
}

impl Checker for Order {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        if let Called::Reply { msg_ref, ok: true, .. } = called {
            if self.joins.contains_key(msg_ref) {
                self.confirmed.insert(*msg_ref);
            }
        }
    }

    fn decided(&mut self, action: &Action, _: &Moment<'_>) {
        let Action::Signal(signal) = action else { return };
        match signal {
            Signal::Joined { topic, .. } | Signal::Resumed { topic, .. } => {
                let newest = self.joins.iter().rfind(|(_, (_, of))| *topic == **of);
                let newest = *newest.expect("a join was written").0;
                assert!(self.confirmed.contains(&newest), "joined without the server's ok");
                self.current.insert(topic.to_string(), newest);
            }
            // The server holds the instance until the next join replaces it, so it can be left.
            Signal::Interrupted { topic, cause: Interruption::Resync } => {
                self.surviving.extend(self.current.remove(topic.as_str()));
            }
            Signal::Interrupted { topic, .. } => {
                self.dead.extend(self.current.remove(topic.as_str()));
            }
            Signal::ChannelClosed { topic, cause } => {
                let current = self.current.remove(topic.as_str());
                // Frames that can be written before a leave are written before it.
                if *cause != ChannelEnd::Left {
                    self.dead.extend(current);
                }
            }
            _ => {}
        }
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        assert!(sent.msg_ref > self.last_ref, "refs grow");
        self.last_ref = sent.msg_ref;
        assert_eq!(at.socket.status(), Status::Open, "{sent:?}");
        assert_eq!(at.socket.connection_id(), Some(sent.conn), "{sent:?}");
        if sent.is_heartbeat() {
            assert_eq!(sent.join_ref, None);
            return;
        }
        let join_ref = sent.join_ref.expect("a join_ref on every frame of a channel");
        if sent.is_join() {
            assert_eq!(join_ref, sent.msg_ref, "a join's ref is its join_ref");
            self.joins.insert(join_ref, (sent.conn, sent.topic.clone()));
            return;
        }
        let instance = (sent.conn, sent.topic.clone());
        assert_eq!(self.joins.get(&join_ref), Some(&instance), "{sent:?}");
        assert!(!self.dead.contains(&join_ref), "the instance is over: {sent:?}");
        if sent.is_leave() {
            self.dead.insert(join_ref);
            return;
        }
        assert!(!self.surviving.contains(&join_ref), "the instance is being replaced: {sent:?}");
        assert!(self.confirmed.contains(&join_ref), "before the join's ok: {sent:?}");
        let number = sent.number.expect("a push");
        let last = self.last_number.insert(sent.topic.clone(), number);
        assert!(last.is_none_or(|last| last < number), "out of order: {sent:?}");
    }
}

/// Queued pushes are bounded by count and by bytes, and calls in flight by count.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// The largest number of channels with a call that waited for the reply to another call.
    pub most_held: usize,
}

impl Checker for Bounds {
    fn settled(&mut self, at: &Moment<'_>) {
        let stats = at.socket.stats();
        assert!(stats.queued_pushes <= QUEUED_PUSHES_MAX, "{stats:?}");
        assert!(stats.queued_bytes <= QUEUED_BYTES_MAX, "{stats:?}");
        assert_eq!(stats.queued_pushes == 0, stats.queued_bytes == 0, "{stats:?}");
        let in_flight_max = at.setup.pushes_in_flight_max;
        assert!(stats.pushes_in_flight <= in_flight_max, "{stats:?}");
        let sizes = at.socket.sizes();
        self.most_held = self.most_held.max(sizes.held_topics);
        if at.dry && at.writable {
            assert_eq!(sizes.due_frames, 0, "every frame in the lane can be written: {sizes:?}");
            let full = stats.pushes_in_flight == in_flight_max;
            assert!(full || sizes.held_topics == 0, "{sizes:?}");
        }
    }
}
