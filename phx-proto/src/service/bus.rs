//! The bus inside the process: events by topic pattern.
//!
//! ```text
//!   supervisor ──publish──▶ Bus ──┬─▶ Subscription "jido.protocol.phoenix.backend.**"
//!                                 └─▶ Subscription "jido.signal.phoenix.channel.*"
//! ```
//!
//! Publishing never waits: each subscription has a queue with bounds, and one that is full loses
//! its oldest event and says how many it lost. An event that matches a pattern by several of its
//! topics is delivered once.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_core::Stream;

use crate::client::waiters::{Parked, poll_parked};
use crate::service::router::{PatternError, Routed, TopicPattern};
use crate::sync::{Mutex, MutexGuard};

/// Events that wait for one subscriber.
const EVENTS_MAX: usize = 1_024;
/// The bytes that they keep in memory.
const BYTES_MAX: usize = 8 << 20;

/// A bus. Clones are the same bus; it closes when the last of them is dropped.
#[derive(Clone)]
pub struct Bus {
    publisher: Arc<Publisher>,
}

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BusEvent {
    /// An event and its topics.
    Event(Arc<Routed>),
    /// So many events were dropped here, because the subscriber was too slow.
    Lagged(u64),
}

/// The events that match a pattern, from [`Bus::subscribe`]. Ends when the bus is closed.
#[derive(Debug)]
#[must_use = "a subscription does nothing unless it is read"]
pub struct Subscription {
    state: Arc<Locked>,
    id: u64,
}

/// The subscriptions that an event goes to.
pub(super) struct Wanted(Vec<u64>);

struct Publisher {
    state: Arc<Locked>,
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
    /// A bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        let state = Arc::new(Locked(Mutex::default()));
        Self { publisher: Arc::new(Publisher { state }) }
    }

    /// Everything from now on whose bus topics match `pattern`; see [`TopicPattern`].
    ///
    /// Up to 1,024 events that take 8 MiB of memory wait for a slow subscriber.
    ///
    /// ```
    /// # use phx_proto::service::{Bus, BusEvent};
    /// # async fn example(bus: Bus) -> Result<(), phx_proto::service::PatternError> {
    /// let mut joins = bus.subscribe("jido.signal.phoenix.channel.joined")?;
    /// while let Some(event) = joins.next().await {
    ///     match event {
    ///         BusEvent::Event(routed) => println!("{:?}", routed.event.subject),
    ///         BusEvent::Lagged(count) => println!("{count} were missed"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PatternError`] for a text that is no pattern.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, PatternError> {
        self.subscribe_any([pattern])
    }

    /// [`subscribe`](Self::subscribe) to several patterns: an event that matches more than one
    /// comes once.
    ///
    /// # Errors
    ///
    /// [`PatternError`] for a text that is no pattern.
    pub fn subscribe_any<'a>(
        &self,
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Subscription, PatternError> {
        let patterns = patterns.into_iter().map(TopicPattern::parse);
        let queue = Queue {
            patterns: patterns.collect::<Result<_, _>>()?,
            events: VecDeque::new(),
            bytes: 0,
            lagged: 0,
            parked: Parked::new(),
        };
        let shared = &self.publisher.state;
        let mut state = shared.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.queues.insert(id, queue);
        Ok(Subscription { state: Arc::clone(shared), id })
    }

    /// Hands an event to every subscription that matches one of its topics; how many that were.
    /// Never waits for any of them.
    pub fn publish(&self, routed: Routed) -> usize {
        let topics = &routed.topics;
        let wanted = self.wanted_by(|pattern| topics.iter().any(|topic| pattern.matches(topic)));
        self.deliver(routed, &wanted)
    }

    /// The subscriptions with a pattern that matches.
    pub(super) fn wanted_by(&self, matches: impl Fn(&TopicPattern) -> bool) -> Wanted {
        let state = self.publisher.state.lock();
        let wanted = state.queues.iter().filter(|(_, queue)| queue.patterns.iter().any(&matches));
        Wanted(wanted.map(|(id, _)| *id).collect())
    }

    /// Hands an event to those of the subscriptions that are still there; how many that are.
    pub(super) fn deliver(&self, routed: Routed, wanted: &Wanted) -> usize {
        let (routed, mut wakers, mut count) = (Arc::new(routed), Vec::new(), 0);
        // Of the events that are dropped, this may be the last.
        let mut dropped = Vec::new();
        let mut state = self.publisher.state.lock();
        for id in &wanted.0 {
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

    /// Ends every subscription, after what waits for it. Later events go nowhere.
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
    /// No code of the application runs under it, and nothing that it owns is dropped.
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

impl Wanted {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Queue {
    /// Adds an event; what has to go for it is left in `dropped`. One always fits, however large.
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
    /// The next event; `None` once the bus is closed and everything was read.
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

    /// Between the two steps subscriptions come and go.
    #[test]
    fn event_goes_to_subscriptions_that_are_left() {
        let bus = Bus::new();
        let [gone, left] = ["**", "**"].map(|pattern| bus.subscribe(pattern).unwrap());
        let other = bus.subscribe("*").unwrap();
        let wanted = bus.wanted_by(|pattern| pattern.matches("a.b"));
        assert!(!wanted.is_empty() && bus.wanted_by(|_| false).is_empty());
        drop(gone);
        let late = bus.subscribe("**").unwrap();
        let routed = Router::new().route("a", &BTreeMap::new(), &Signal::Closed, "1", Time::ZERO);
        assert_eq!(bus.deliver(routed.unwrap(), &wanted), 1);
        let events = |subscription: &Subscription| {
            bus.publisher.state.lock().queues[&subscription.id].events.len()
        };
        assert_eq!([&left, &other, &late].map(events), [1, 0, 0]);
    }
}
