//! Invariants of channels.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phx_proto::event::{ChannelEnd, Released};
use phx_proto::socket::PendingReason;
use phx_proto::{Action, Cause, ChannelStatus, InterestId, Signal, Status, Time};

use super::{Checker, Moment};
use crate::ops::peer::Sent;
use crate::ops::world::Called;

/// The default of `Config::join_timeout`.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// At most `join_concurrency` joins are unanswered.
#[derive(Clone, Debug, Default)]
pub struct JoinSlots {
    unanswered: BTreeMap<u64, String>,
}

impl Checker for JoinSlots {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        if let Called::Reply { topic, msg_ref, .. } = called {
            self.unanswered.remove(msg_ref);
            if topic == "phoenix" {
                // A heartbeat that was written later was answered, so the core may consider earlier
                // joins lost.
                self.unanswered.retain(|join_ref, _| join_ref > msg_ref);
            }
        }
    }

    fn decided(&mut self, action: &Action, _: &Moment<'_>) {
        match action {
            Action::Connect { .. } => self.unanswered.clear(),
            // A channel that ended while it was joining no longer waits for the answer to its join.
            Action::Signal(
                Signal::Errored { topic, .. }
                | Signal::ChannelClosed { topic, cause: ChannelEnd::ClosedByServer },
            ) => {
                let newest = self.unanswered.iter().rfind(|(_, of)| *of == topic.as_str());
                if let Some(join_ref) = newest.map(|(join_ref, _)| *join_ref) {
                    self.unanswered.remove(&join_ref);
                }
            }
            _ => {}
        }
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        if sent.is_join() {
            self.unanswered.insert(sent.msg_ref, sent.topic.clone());
            assert!(self.unanswered.len() <= at.setup.join_concurrency, "{self:?}");
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        let joining = |(_, status): &(_, _)| *status == ChannelStatus::Joining;
        assert!(at.socket.channels().filter(joining).count() <= at.setup.join_concurrency);
    }
}

/// A join is reported as late no earlier than `join_timeout` after it was written. An answer to the
/// newest join, or to a leave, decides at once.
#[derive(Clone, Debug, Default)]
pub struct JoinClock {
    /// The newest join of this connection for each topic, and when it was written.
    newest: BTreeMap<String, (u64, Time)>,
    /// Joins to which a reply still counts as an answer.
    unanswered: BTreeSet<u64>,
    leaves: BTreeMap<String, u64>,
}

impl Checker for JoinClock {
    fn called(&mut self, called: &Called, at: &Moment<'_>) {
        let Called::Reply { topic, msg_ref, ok } = called else { return };
        if topic == "phoenix" {
            self.unanswered.retain(|join_ref| join_ref > msg_ref);
        }
        let status = at.socket.channel_status(topic);
        let newest = self.newest.get(topic).is_some_and(|(newest, _)| newest == msg_ref);
        if self.unanswered.remove(msg_ref) && newest {
            assert_ne!(status, ChannelStatus::Joining, "{topic}: the join was answered");
            let joined = status == ChannelStatus::Joined;
            assert!(!joined || *ok, "{topic}: the join was refused");
        }
        if self.leaves.get(topic) == Some(msg_ref) {
            let leaving =
                [ChannelStatus::Leaving, ChannelStatus::Pending(PendingReason::LeaveEnding)];
            assert!(!leaving.contains(&status), "{topic}: the leave was answered");
        }
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        match action {
            Action::Connect { .. } => *self = Self::default(),
            Action::Signal(Signal::JoinTimedOut { topic }) => {
                let (_, written) = self.newest.get(topic.as_str()).expect("a join was written");
                assert!(at.now >= *written + JOIN_TIMEOUT, "{topic} at {}: {self:?}", at.now);
            }
            Action::Signal(Signal::Left { topic, .. }) => {
                self.leaves.remove(topic.as_str());
            }
            _ => {}
        }
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        if sent.is_join() {
            self.newest.insert(sent.topic.clone(), (sent.msg_ref, at.now));
            self.unanswered.insert(sent.msg_ref);
        } else if sent.is_leave() {
            // A join of an earlier instance was too late to have an outcome.
            let newest = self.newest.get(&sent.topic).map(|(newest, _)| *newest);
            if sent.join_ref == newest {
                self.leaves.insert(sent.topic.clone(), sent.msg_ref);
            }
        }
    }
}

/// While the transport accepts frames and every action was polled, a join waits only for a slot or
/// for the end of a leave. Joins are written before the frames of other channels.
#[derive(Clone, Debug, Default)]
pub struct Prompt;

impl Checker for Prompt {
    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        if !sent.is_join() && !sent.is_heartbeat() {
            let waits = ChannelStatus::Pending(PendingReason::NotWritable);
            let waiting = at.socket.channels().find(|(_, status)| *status == waits);
            assert_eq!(waiting, None, "overtaken by {sent:?}");
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        if at.socket.status() != Status::Open || !at.dry || !at.writable {
            return;
        }
        let waits = ChannelStatus::Pending(PendingReason::NotWritable);
        assert_eq!(at.socket.channels().find(|(_, status)| *status == waits), None);
    }
}

/// The signals of a topic are consistent: every gap is reported, and messages are delivered only
/// while the channel is joined.
#[derive(Clone, Debug, Default)]
pub struct Story {
    topics: BTreeMap<String, Reported>,
}

#[derive(Clone, Debug, Default)]
struct Reported {
    joined: bool,
    ever_joined: bool,
    leaving: bool,
}

impl Checker for Story {
    fn called(&mut self, called: &Called, at: &Moment<'_>) {
        if *called == Called::Disconnect {
            assert_eq!(at.socket.channels().count(), 0, "disconnect ends every channel at once");
        }
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        let Action::Signal(signal) = action else { return };
        let topic = match signal {
            Signal::Joined { topic, .. }
            | Signal::Resumed { topic, .. }
            | Signal::JoinRejected { topic, .. }
            | Signal::JoinTimedOut { topic }
            | Signal::Interrupted { topic, .. }
            | Signal::Left { topic, .. }
            | Signal::ChannelClosed { topic, .. }
            | Signal::Message { topic, .. } => topic,
            _ => return,
        };
        let reported = self.topics.entry(topic.to_string()).or_default();
        let (fits, next) = match signal {
            Signal::Joined { .. } => (!reported.joined && !reported.ever_joined, true),
            Signal::Resumed { .. } => (!reported.joined && reported.ever_joined, true),
            Signal::JoinRejected { .. } | Signal::JoinTimedOut { .. } => (!reported.joined, false),
            Signal::Interrupted { .. } => (reported.joined, false),
            Signal::Message { .. } => (reported.joined, true),
            Signal::Left { .. } => (std::mem::take(&mut reported.leaving), reported.joined),
            Signal::ChannelClosed { cause, .. } => {
                // A channel whose parameters cannot be sent leaves the instance that the server still
                // holds.
                let left = matches!(cause, ChannelEnd::InvalidParams { .. })
                    && at.socket.channels().any(|(other, _)| other == topic);
                reported.leaving |= *cause == ChannelEnd::Left || left;
                reported.ever_joined = false;
                (true, false)
            }
            _ => return,
        };
        assert!(fits, "{signal:?} after {reported:?}");
        reported.joined = next;
        reported.ever_joined |= next;
    }

    fn settled(&mut self, at: &Moment<'_>) {
        for (topic, reported) in &self.topics {
            let status = at.socket.channel_status(topic);
            assert_eq!(
                reported.joined,
                status == ChannelStatus::Joined,
                "{topic}: {reported:?} {status:?}"
            );
            assert_eq!(reported.joined, at.socket.join_response(topic).is_some());
        }
        if matches!(at.socket.status(), Status::Closed | Status::GaveUp { .. }) {
            assert_eq!(at.socket.channels().count(), 0, "every channel has ended");
        }
        if at.socket.status() != Status::Open {
            let live = |(_, status): &(_, _)| {
                use ChannelStatus::{Errored, Joined, Joining, Leaving};
                matches!(status, Joining | Joined | Leaving | Errored { .. })
            };
            assert_eq!(at.socket.channels().find(live), None, "without a connection");
        }
    }
}

/// An interest lasts until it is released or its channel ends, and nothing else ends it.
#[derive(Clone, Debug, Default)]
pub struct Interests {
    held: BTreeMap<InterestId, String>,
    gone: Vec<InterestId>,
}

impl Checker for Interests {
    fn called(&mut self, called: &Called, at: &Moment<'_>) {
        match called {
            Called::Join { topic, interest: Some(interest) } => {
                assert!(self.held.insert(*interest, topic.clone()).is_none(), "ids are new");
            }
            Called::Released { interest, released } => {
                let held = self.held.remove(interest);
                assert_eq!(held.is_none(), *released == Released::Gone);
                let shared = held.as_ref().is_some_and(|of| self.held.values().any(|it| it == of));
                if shared {
                    assert_eq!(*released, Released::Detached, "others want {held:?}");
                } else if held.is_some() && !at.setup.auto_join {
                    assert_eq!(
                        *released,
                        Released::Leaving,
                        "there is no other interest than {held:?}"
                    );
                }
                self.gone.extend(held.map(|_| *interest));
            }
            _ => {}
        }
    }

    fn decided(&mut self, action: &Action, _: &Moment<'_>) {
        if let Action::Signal(Signal::ChannelClosed { topic, .. }) = action {
            let ended = self.held.iter().filter(|(_, of)| *topic == ***of);
            let ended: Vec<InterestId> = ended.map(|(interest, _)| *interest).collect();
            for interest in ended {
                self.held.remove(&interest);
                self.gone.push(interest);
            }
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (interest, topic) in &self.held {
            assert!(at.socket.is_interested(*interest), "{interest:?} in {topic}");
            *counts.entry(topic).or_default() += 1;
        }
        for (topic, count) in counts {
            assert_eq!(at.socket.interests(topic), count, "{topic}");
        }
        for gone in &self.gone {
            assert!(!at.socket.is_interested(*gone), "{gone:?}");
        }
    }
}

/// Joins are paced only after the server ended two connections in a row soon after a join.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    cuts: u32,
    last_join: Option<Time>,
    /// Whether joins were paced, and the pace was not reset since.
    paced: bool,
}

impl Checker for Pace {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        if *called == Called::Disconnect {
            *self = Self::default();
        }
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        let Action::Signal(Signal::Disconnected { cause, .. }) = action else { return };
        let Some(last) = self.last_join.take() else { return };
        let by_peer = matches!(cause, Cause::RemoteClose { .. });
        if by_peer && at.now.since(last) <= Duration::from_secs(2) {
            self.cuts += 1;
        } else {
            self.cuts = 0;
        }
        self.paced |= self.cuts >= 2;
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        if sent.is_join() {
            self.last_join = Some(at.now);
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        let waits = ChannelStatus::Pending(PendingReason::Paced);
        let waiting = at.socket.channels().find(|(_, status)| *status == waits);
        assert!(self.paced || waiting.is_none(), "{waiting:?} waits: {self:?}");
    }
}
