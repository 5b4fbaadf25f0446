//! A stream of every signal of a connection, and its bounded queue.
//!
//! The queue is bounded in signals and in bytes. A full queue first drops the frequent signals
//! (messages, push outcomes, heartbeats, protocol errors), oldest first. Of the state signals it
//! drops only those that a later signal about the same connection or topic has replaced, and those
//! of topics that have ended. So even a slow consumer always gets the latest state of the
//! connection and of each wanted topic. The one exception: if the responses and causes in these
//! signals exceed the bound in bytes, these signals are dropped too, oldest first.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::state::Shared;
use super::waiters::WaiterId;
use crate::event::description::{About, Description};
use crate::event::signal::Signal;
use crate::topic::Topic;
use crate::wire::weight::{Account, ENTRY, Load, ReadBuffer, weight};

/// One item of [`Signals`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A signal of the connection.
    Signal(Signal),
    /// The number of signals that were dropped since the last item, because the consumer was too
    /// slow.
    Lagged(u64),
}

/// A stream of every signal of a connection, from [`Client::signals`](super::Client::signals).
///
/// It ends when the driver ends. It does not keep the connection open.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct Signals {
    shared: Arc<Shared>,
    id: WaiterId,
}

impl Signals {
    pub(super) const fn new(shared: Arc<Shared>, id: WaiterId) -> Self {
        Self { shared, id }
    }

    /// The next signal; `None` once the driver has ended.
    ///
    /// Cancel safe: a signal is taken only when it is returned.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    pub(crate) fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<ClientEvent>> {
        self.shared.poll_waiter(cx, |state| state.next_signal(self.id))
    }
}

impl Stream for Signals {
    type Item = ClientEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        self.poll_event(cx)
    }
}

impl FusedStream for Signals {
    fn is_terminated(&self) -> bool {
        self.shared.with_state(|state| state.signals_ended(self.id))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        drop(self.shared.with_state(|state| state.waiters.remove(self.id)));
    }
}

/// The queue of signals for one consumer.
///
/// Signals are numbered in order of arrival. Frequent signals are in a ring buffer; state signals
/// are in a map, with indexes of those that may be dropped. So no operation scans the queue,
/// however many topics there are.
pub(super) struct SignalQueue {
    many: VecDeque<Numbered>,
    states: BTreeMap<u64, (Signal, usize)>,
    /// The number of the latest queued state of the connection (`None`) and of each topic.
    latest: BTreeMap<Option<Topic>, u64>,
    /// States that a later state of the same connection or topic has replaced.
    replaced: BTreeSet<u64>,
    /// States of topics that have ended.
    ended: BTreeSet<u64>,
    /// States with a payload or a cause.
    large: BTreeSet<u64>,
    next: u64,
    /// The bytes of `many`.
    account: Account,
    /// The bytes of `states`.
    state_bytes: usize,
    lagged: u64,
    max: usize,
}

/// A frequent signal, with its number and its load.
struct Numbered {
    number: u64,
    signal: Signal,
    load: Load,
}

impl SignalQueue {
    pub(super) const fn new(max: usize, bytes_max: usize) -> Self {
        Self {
            many: VecDeque::new(),
            states: BTreeMap::new(),
            latest: BTreeMap::new(),
            replaced: BTreeSet::new(),
            ended: BTreeSet::new(),
            large: BTreeSet::new(),
            next: 0,
            account: Account::new(bytes_max),
            state_bytes: 0,
            lagged: 0,
            max,
        }
    }

    pub(super) fn next(&mut self) -> Option<ClientEvent> {
        if self.lagged > 0 {
            return Some(ClientEvent::Lagged(core::mem::take(&mut self.lagged)));
        }
        let state = self.states.first_key_value().map(|(number, _)| *number);
        let first = self.many.front().map(|first| first.number);
        let signal = match (first, state) {
            (Some(first), Some(state)) if first > state => self.remove_state(state),
            (None, Some(state)) => self.remove_state(state),
            _ => self.pop_many(),
        };
        signal.map(ClientEvent::Signal)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lagged == 0 && self.many.is_empty() && self.states.is_empty()
    }

    /// Adds a signal. Returns the number of signals that were lost to make room for it, and the
    /// signals to drop after the lock is released. One signal always fits, however large.
    pub(super) fn push(&mut self, signal: &Signal, read_buffer: &ReadBuffer) -> (u64, Vec<Signal>) {
        let mut dropped = Vec::new();
        let number = self.next;
        self.next += 1;
        let lost = match subject(signal) {
            Some(subject) => {
                // State signals are few and may be kept for long, so they are copied at once.
                let (signal, topic) = (signal.clone().into_compact(), subject.cloned());
                let bytes = signal.describe().held_bytes();
                self.replaced.extend(self.latest.remove(&topic));
                self.make_room(Load::own(bytes), true, &mut dropped);
                self.add_state(number, topic, signal, bytes);
                dropped.len()
            }
            None => {
                let load = load(signal, read_buffer);
                self.make_room(load, false, &mut dropped);
                // The remaining states have priority over a frequent signal.
                let fits = self.state_bytes == 0 || self.account.fits(load, self.state_bytes);
                if fits {
                    self.account.add(load);
                    self.many.push_back(Numbered { number, signal: signal.clone(), load });
                }
                dropped.len() + usize::from(!fits)
            }
        };
        self.lagged += lost as u64;
        let copy = |one: &mut Numbered| {
            let copy = one.signal.clone().into_compact();
            one.load = Load::own(load(&copy, &ReadBuffer::new(0)).own);
            dropped.push(core::mem::replace(&mut one.signal, copy));
            one.load
        };
        self.account.settle(&mut self.many, self.state_bytes, |one| one.load, copy);
        (lost as u64, dropped)
    }

    /// Drops signals until the new one fits: the oldest frequent ones, then replaced states, then
    /// states of topics that have ended, and, for a new state only, states with a payload or a
    /// cause.
    fn make_room(&mut self, load: Load, is_state: bool, dropped: &mut Vec<Signal>) {
        loop {
            let full = self.many.len() + self.states.len() >= self.max;
            let fits = self.account.fits(load, self.state_bytes);
            if fits && !full {
                return;
            }
            let gone = if self.many.is_empty() {
                let small = self.replaced.first().or_else(|| self.ended.first());
                let large = if is_state && !fits { self.large.first() } else { None };
                // If none can be dropped, the queue grows, by at most one signal for each topic.
                let Some(number) = small.or(large).copied() else { return };
                self.remove_state(number)
            } else {
                self.pop_many()
            };
            dropped.extend(gone);
        }
    }

    fn pop_many(&mut self) -> Option<Signal> {
        let first = self.many.pop_front()?;
        self.account.remove(0, first.load);
        Some(first.signal)
    }

    fn add_state(&mut self, number: u64, topic: Option<Topic>, signal: Signal, bytes: usize) {
        self.latest.insert(topic, number);
        if matches!(signal, Signal::ChannelClosed { .. } | Signal::Left { .. }) {
            self.ended.insert(number);
        }
        if bytes > 0 {
            self.large.insert(number);
        }
        self.state_bytes = self.state_bytes.saturating_add(bytes);
        self.states.insert(number, (signal, bytes));
    }

    fn remove_state(&mut self, number: u64) -> Option<Signal> {
        let (signal, bytes) = self.states.remove(&number)?;
        self.state_bytes = self.state_bytes.saturating_sub(bytes);
        for index in [&mut self.replaced, &mut self.ended, &mut self.large] {
            index.remove(&number);
        }
        let topic = subject(&signal).flatten().cloned();
        if self.latest.get(&topic) == Some(&number) {
            self.latest.remove(&topic);
        }
        if self.states.is_empty() {
            // An empty tree keeps a node allocated, which would cost every idle consumer memory.
            self.states.clear();
            self.latest.clear();
            for index in [&mut self.replaced, &mut self.ended, &mut self.large] {
                index.clear();
            }
        }
        Some(signal)
    }
}

/// The subject of a state signal: the connection (`Some(None)`) or a topic. `None` for frequent
/// signals.
const fn subject(signal: &Signal) -> Option<Option<&Topic>> {
    let Description { about, topic, .. } = signal.describe();
    match about {
        About::Connection => Some(None),
        About::Channel => Some(topic),
        About::Message | About::Push | About::Trouble | About::Measure => None,
    }
}

/// The load of a frequent signal, whose payload may keep a read buffer alive.
fn load(signal: &Signal, read_buffer: &ReadBuffer) -> Load {
    let description = signal.describe();
    let Some(payload) = description.payload else {
        return Load::own(ENTRY.saturating_add(description.held_bytes()));
    };
    let names = [description.event, description.status].into_iter().flatten();
    let names: usize = names.map(|name| name.as_bytes().len()).sum();
    // No channel shares the topic of an unrouted message.
    let topic = match signal {
        Signal::Unrouted { topic, .. } => topic.len(),
        _ => 0,
    };
    read_buffer.load(weight(names + topic, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::cause::{ChannelEnd, LeaveOutcome, PushOutcome, Reply};
    use crate::id::{ConnectionId, PushId};
    use crate::wire::payload::Payload;

    fn message(text: &str) -> Signal {
        let payload = Payload::from(serde_json::json!(text));
        Signal::Message { topic: "room:a".into(), event: "msg".into(), payload }
    }

    fn joined(topic: &str) -> Signal {
        Signal::Joined { topic: topic.into(), response: Payload::empty() }
    }

    fn push(queue: &mut SignalQueue, signal: &Signal) -> u64 {
        queue.push(signal, &ReadBuffer::new(0)).0
    }

    fn all(queue: &mut SignalQueue) -> Vec<ClientEvent> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn messages_are_dropped_before_states() {
        let mut queue = SignalQueue::new(3, 10_000);
        push(&mut queue, &joined("room:a"));
        assert_eq!((0..5).map(|_| push(&mut queue, &message("x"))).sum::<u64>(), 3);
        let left = all(&mut queue);
        assert_eq!(left[0], ClientEvent::Lagged(3));
        assert_eq!(left[1], ClientEvent::Signal(joined("room:a")));
        assert_eq!(left.len(), 4);
    }

    #[test]
    fn only_replaced_states_are_dropped() {
        let mut queue = SignalQueue::new(2, 10_000);
        push(&mut queue, &joined("room:a"));
        push(&mut queue, &joined("room:b"));
        for id in 1..=50 {
            push(&mut queue, &Signal::Connected { id: ConnectionId::from_u64(id) });
        }
        let left = all(&mut queue);
        let newest = Signal::Connected { id: ConnectionId::from_u64(50) };
        assert_eq!(
            left[1..],
            [
                ClientEvent::Signal(joined("room:a")),
                ClientEvent::Signal(joined("room:b")),
                ClientEvent::Signal(newest),
            ]
        );
    }

    #[test]
    fn reply_load_is_memory_kept_alive() {
        let large = format!(r#"1,"x":"{}""#, "x".repeat(1_000));
        let kept = large.len();
        let response = Payload::member(large.into());
        let outcome = PushOutcome::Reply(Reply { status: "ok".into(), response });
        let (id, topic) = (PushId::from_u64(1), "room:a".into());
        let signal = Signal::PushEnded { id, topic, outcome };
        let load = load(&signal, &ReadBuffer::new(10_000));
        assert_eq!(load, Load { own: ENTRY + "ok".len() + kept, kept: 20_000 });
    }

    /// The server chooses the topic of an unrouted message, and no channel shares it.
    #[test]
    fn unrouted_load_includes_topic() {
        let topic = "t".repeat(1_000);
        let payload = Payload::from(serde_json::json!(1)).into_compact();
        let held = payload.held_len();
        let signal = Signal::Unrouted { topic: topic.into(), event: "msg".into(), payload };
        assert_eq!(load(&signal, &ReadBuffer::new(0)).own, ENTRY + 1_000 + "msg".len() + held);
    }

    #[test]
    fn queue_bytes_are_bounded_except_one_signal() {
        let mut queue = SignalQueue::new(100, 10);
        for _ in 0..20 {
            push(&mut queue, &message(&"x".repeat(50)));
        }
        assert_eq!(
            all(&mut queue),
            [ClientEvent::Lagged(19), ClientEvent::Signal(message(&"x".repeat(50)))]
        );
        assert_eq!((queue.account.kept(), queue.state_bytes), (0, 0));
    }

    fn joined_with(topic: &str, response: usize) -> Signal {
        let response = Payload::from(serde_json::json!("x".repeat(response)));
        Signal::Joined { topic: topic.into(), response: response.into_compact() }
    }

    fn closed(topic: &str) -> Signal {
        Signal::ChannelClosed { topic: topic.into(), cause: ChannelEnd::ClosedByServer }
    }

    #[test]
    fn replaced_states_are_dropped_first() {
        let mut queue = SignalQueue::new(3, 10_000);
        for topic in ["room:a", "room:a", "room:b", "room:c"] {
            push(&mut queue, &joined(topic));
        }
        let left = all(&mut queue);
        let rest = ["room:a", "room:b", "room:c"].map(|topic| ClientEvent::Signal(joined(topic)));
        assert_eq!(left, [&[ClientEvent::Lagged(1)][..], &rest].concat());
        assert!(queue.latest.is_empty() && queue.replaced.is_empty() && queue.large.is_empty());
    }

    #[test]
    fn ended_topics_do_not_accumulate() {
        let mut queue = SignalQueue::new(3, 10_000);
        push(&mut queue, &joined("room:kept"));
        for n in 0..1_000 {
            push(&mut queue, &joined(&format!("room:{n}")));
            push(&mut queue, &closed(&format!("room:{n}")));
        }
        let left = all(&mut queue);
        assert_eq!(
            left[..2],
            [ClientEvent::Lagged(1_998), ClientEvent::Signal(joined("room:kept"))]
        );
        assert_eq!(left[3], ClientEvent::Signal(closed("room:999")));
        assert!(queue.latest.is_empty() && queue.ended.is_empty(), "{:?}", queue.latest);
    }

    /// The outcome of a leave follows the end of its channel.
    #[test]
    fn left_topics_do_not_accumulate() {
        let mut queue = SignalQueue::new(3, 10_000);
        for n in 0..1_000 {
            let topic: Topic = format!("room:{n}").as_str().into();
            push(&mut queue, &joined(&topic));
            let cause = ChannelEnd::Left;
            push(&mut queue, &Signal::ChannelClosed { topic: topic.clone(), cause });
            push(&mut queue, &Signal::Left { topic, outcome: LeaveOutcome::Acked });
        }
        assert_eq!(queue.states.len(), 3);
        drop(all(&mut queue));
        assert!(queue.latest.is_empty() && queue.ended.is_empty(), "{:?}", queue.latest);
    }

    /// Every idle connection with a stream of signals has such a queue.
    #[test]
    fn drained_queue_keeps_no_memory() {
        let mut queue = SignalQueue::new(3, 10_000);
        let info = allocation_counter::measure(|| {
            push(&mut queue, &Signal::Connected { id: ConnectionId::from_u64(1) });
            for _ in 0..2 {
                push(&mut queue, &joined_with("room:a", 100));
            }
            push(&mut queue, &closed("room:a"));
            drop(all(&mut queue));
        });
        assert_eq!(info.bytes_current, 0);
    }

    /// The state of a topic is dropped only when the responses exceed the bound in bytes.
    #[test]
    fn large_states_stay_within_byte_bound() {
        let mut queue = SignalQueue::new(3, 10_000);
        push(&mut queue, &Signal::Connected { id: ConnectionId::from_u64(1) });
        let lost: u64 =
            (0..20).map(|n| push(&mut queue, &joined_with(&format!("room:{n}"), 3_000))).sum();
        assert_eq!((lost, queue.states.len()), (17, 4), "the small state stays");
        assert!((9_000..10_000).contains(&queue.state_bytes), "{}", queue.state_bytes);
        push(&mut queue, &message(&"x".repeat(5_000)));
        assert_eq!(queue.many.len(), 0, "a message is dropped before the state of a topic");
        assert_eq!(queue.lagged, 18);
        push(&mut queue, &joined_with("room:x", 50_000));
        assert_eq!(queue.states.len(), 2, "one signal always fits");
    }

    /// Messages are copied out of the read buffer before any is dropped.
    #[test]
    fn slices_are_copied_before_drops() {
        let read_buffer = ReadBuffer::new(2_000);
        let mut queue = SignalQueue::new(100, 10_000);
        let replaced: usize =
            (0..20).map(|n| queue.push(&message(&n.to_string()), &read_buffer).1.len()).sum();
        assert!(queue.lagged == 0 && (15..=20).contains(&replaced), "{replaced}");
        assert!(queue.account.kept() <= 10_000);
        let signals = all(&mut queue);
        assert_eq!(signals.len(), 20);
        assert_eq!(signals[19], ClientEvent::Signal(message("19")));
    }
}
