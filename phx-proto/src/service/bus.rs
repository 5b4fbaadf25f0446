//! An in-process event bus with subscriptions by topic pattern.
//!
//! ```text
//!   supervisor ──publish──▶ Bus ──┬─▶ Subscription "jido.protocol.phoenix.backend.**"
//!                                 └─▶ Subscription "jido.signal.phoenix.channel.*"
//! ```
//!
//! Publishing never waits. Each subscription has a bounded queue; a full queue drops its oldest
//! event and reports how many were lost. A subscription gets an event once, even if several topics
//! of the event match.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_core::Stream;

use crate::client::waiters::{Parked, poll_parked};
use crate::service::router::{PatternError, Routed, Router, TopicPattern};
use crate::sync::{Mutex, MutexGuard};

/// The maximum number of queued events of one subscription.
const EVENTS_MAX: usize = 1_024;
/// The maximum bytes of memory of the queued events of one subscription.
const BYTES_MAX: usize = 8 << 20;

/// An event bus. Clones share the bus; it closes when the last clone is dropped.
#[derive(Clone)]
pub struct Bus {
    publisher: Arc<Publisher>,
}

/// One item of a [`Subscription`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BusEvent {
    /// An event and its topics.
    Event(Arc<Routed>),
    /// The number of events that were dropped at this place, because the subscriber was too slow.
    Lagged(u64),
}

/// A stream of the events that match a pattern, from [`Bus::subscribe`]. It ends when the bus is
/// closed.
#[derive(Debug)]
#[must_use = "a subscription does nothing unless it is read"]
pub struct Subscription {
    state: Arc<Locked>,
    id: u64,
}

/// The ids of the subscriptions that an event is delivered to.
pub(super) struct Matched(Vec<u64>);

struct Publisher {
    state: Arc<Locked>,
    /// The router of the supervisor that owns the bus. Only a log event needs it.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code))]
    router: Option<Router>,
}

struct Locked(Mutex<State>);

#[derive(Default)]
struct State {
    queues: BTreeMap<u64, Queue>,
    next_id: u64,
    closed: bool,
}

struct Queue {
    patterns: Vec<TopicPattern>,
    events: VecDeque<Arc<Routed>>,
    bytes: usize,
    lagged: u64,
    parked: Parked,
}

impl Bus {
    /// Makes a bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        let state = Arc::new(Locked(Mutex::default()));
        Self { publisher: Arc::new(Publisher { state, router: None }) }
    }

    /// Makes a bus for the events of this router.
    pub(crate) fn of(router: Router) -> Self {
        let state = Arc::new(Locked(Mutex::default()));
        Self { publisher: Arc::new(Publisher { state, router: Some(router) }) }
    }

    /// Logs each pattern that no event of the router can match.
    #[cfg(feature = "tracing")]
    fn warn_of_silence(&self, patterns: &[TopicPattern]) {
        let Some(router) = &self.publisher.router else { return };
        for pattern in patterns.iter().filter(|pattern| !router.can_match(pattern)) {
            tracing::warn!(target: "phx", %pattern, "pattern never matches");
        }
    }

    /// Subscribes to every event from now on with a bus topic that matches `pattern`; see
    /// [`TopicPattern`]. `jido` is the default [prefix](super::Router::prefix) of bus topics.
    ///
    /// A pattern that [can never match](super::Router::can_match) is accepted, because a program may publish
    /// events of its own. On the bus of a supervisor it causes a log event, with the feature `tracing`.
    ///
    /// The queue of a slow subscriber holds up to 1,024 events and 8 MiB.
    ///
    /// ```
    /// # use phx_proto::service::{Bus, BusEvent};
    /// # async fn example(bus: Bus) -> Result<(), phx_proto::service::PatternError> {
    /// let mut joins = bus.subscribe("jido.signal.phoenix.channel.joined")?;
    /// while let Some(event) = joins.next().await {
    ///     match event {
    ///         BusEvent::Event(routed) => println!("{:?}", routed.event.subject),
    ///         BusEvent::Lagged(count) => println!("{count} events lost"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PatternError`] for an invalid pattern.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, PatternError> {
        self.subscribe_any([pattern])
    }

    /// Like [`subscribe`](Self::subscribe), for several patterns. An event that matches more than
    /// one is delivered once.
    ///
    /// ```
    /// # use phx_proto::service::{Bus, BusEvent};
    /// # async fn example(bus: Bus) -> Result<(), phx_proto::service::PatternError> {
    /// let patterns = ["jido.signal.phoenix.connection.*", "jido.signal.phoenix.channel.*"];
    /// let mut lifecycle = bus.subscribe_any(patterns)?;
    /// while let Some(event) = lifecycle.next().await {
    ///     if let BusEvent::Event(routed) = event {
    ///         println!("{}", routed.event.kind);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PatternError`] for an invalid pattern.
    pub fn subscribe_any<'a>(
        &self,
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Subscription, PatternError> {
        let patterns = patterns.into_iter().map(TopicPattern::parse);
        let patterns: Vec<_> = patterns.collect::<Result<_, _>>()?;
        #[cfg(feature = "tracing")]
        self.warn_of_silence(&patterns);
        let queue =
            Queue { patterns, events: VecDeque::new(), bytes: 0, lagged: 0, parked: Parked::new() };
        let shared = &self.publisher.state;
        let mut state = shared.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.queues.insert(id, queue);
        Ok(Subscription { state: Arc::clone(shared), id })
    }

    /// Delivers an event to every subscription that matches one of its topics, and returns how many
    /// there were. It never waits.
    pub fn publish(&self, routed: Routed) -> usize {
        let topics = &routed.topics;
        let matched = self.matched_by(|pattern| topics.iter().any(|topic| pattern.matches(topic)));
        self.deliver(routed, &matched)
    }

    /// The subscriptions with a pattern for which `matches` is true.
    pub(super) fn matched_by(&self, matches: impl Fn(&TopicPattern) -> bool) -> Matched {
        let state = self.publisher.state.lock();
        let matched = state.queues.iter().filter(|(_, queue)| queue.patterns.iter().any(&matches));
        Matched(matched.map(|(id, _)| *id).collect())
    }

    /// Delivers an event to those of the subscriptions that still exist, and returns how many there
    /// were.
    pub(super) fn deliver(&self, routed: Routed, matched: &Matched) -> usize {
        let (routed, mut wakers, mut count) = (Arc::new(routed), Vec::new(), 0);
        // These may be the last references to the events, so they are dropped after the lock is
        // released.
        let mut dropped = Vec::new();
        let mut state = self.publisher.state.lock();
        if state.closed {
            return 0;
        }
        for id in &matched.0 {
            if let Some(queue) = state.queues.get_mut(id) {
                queue.push(Arc::clone(&routed), &mut dropped);
                wakers.extend(queue.parked.take());
                count += 1;
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        count
    }

    /// Ends every subscription after its queued events. Later events reach no subscription.
    pub fn close(&self) {
        self.publisher.state.close();
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.state.close();
    }
}

impl Locked {
    /// Takes the lock. No application code runs under it, and no application memory is dropped
    /// under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let queues = state.queues.values_mut();
        let wakers: Vec<Waker> = queues.filter_map(|queue| queue.parked.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Matched {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Queue {
    /// Adds an event, and moves events that do not fit any more to `dropped`. One event always
    /// fits, however large.
    fn push(&mut self, routed: Arc<Routed>, dropped: &mut Vec<Arc<Routed>>) {
        self.bytes = self.bytes.saturating_add(routed.weight());
        self.events.push_back(routed);
        while self.events.len() > 1 && (self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes = self.bytes.saturating_sub(oldest.weight());
                self.lagged += 1;
                dropped.push(oldest);
            }
        }
    }

    fn next(&mut self) -> Option<BusEvent> {
        if self.lagged > 0 {
            return Some(BusEvent::Lagged(core::mem::take(&mut self.lagged)));
        }
        let routed = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(routed.weight());
        Some(BusEvent::Event(routed))
    }
}

impl Subscription {
    /// The next event; `None` once the bus is closed and every queued event was read.
    ///
    /// Cancel safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<BusEvent> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<BusEvent>> {
        poll_parked(cx, |task| {
            let mut state = self.state.lock();
            let closed = state.closed;
            let Some(queue) = state.queues.get_mut(&self.id) else {
                return Poll::Ready(None);
            };
            match queue.next() {
                Some(event) => Poll::Ready(Some(event)),
                None if closed => Poll::Ready(None),
                None => queue.parked.park(task),
            }
        })
    }
}

impl Stream for Subscription {
    type Item = BusEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BusEvent>> {
        self.poll_event(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let queue = self.state.lock().queues.remove(&self.id);
        drop(queue);
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.publisher.state.fmt(f)
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Bus")
            .field("subscriptions", &state.queues.len())
            .field("closed", &state.closed)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::signal::Signal;
    use crate::service::router::Router;
    use crate::time::Time;

    /// Subscriptions are added and dropped between matching and delivery.
    #[test]
    fn event_reaches_remaining_subscriptions() {
        let bus = Bus::new();
        let [gone, left] = ["**", "**"].map(|pattern| bus.subscribe(pattern).unwrap());
        let other = bus.subscribe("*").unwrap();
        let matched = bus.matched_by(|pattern| pattern.matches("a.b"));
        assert!(!matched.is_empty() && bus.matched_by(|_| false).is_empty());
        drop(gone);
        let late = bus.subscribe("**").unwrap();
        let routed = Router::new().route("a", &BTreeMap::new(), &Signal::Closed, "1", Time::ZERO);
        assert_eq!(bus.deliver(routed.unwrap(), &matched), 1);
        let events = |subscription: &Subscription| {
            bus.publisher.state.lock().queues[&subscription.id].events.len()
        };
        assert_eq!([&left, &other, &late].map(events), [1, 0, 0]);
    }
}
