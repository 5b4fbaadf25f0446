//! Every signal of a connection, for consumers that want to see it all.
//!
//! A queue is bounded by number and bytes. What is dropped when it is full is what there may be
//! much of (messages, push outcomes, heartbeats, protocol errors); of the rest only what a later
//! signal about the same thing has overtaken. So the state of the connection and of each topic is
//! never lost on a consumer, however slow.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::Arc;

use futures_core::Stream;

use super::client::Handle;
use super::waiters::WaiterId;
use crate::event::cause::PushOutcome;
use crate::event::signal::Signal;
use crate::topic::Topic;

/// One item of [`Signals`].
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// Something happened.
    Signal(Signal),
    /// So many signals were dropped since the last item, because the consumer was too slow.
    Lagged(u64),
}

/// Every signal of a connection, from [`Client::signals`](super::Client::signals).
///
/// Ends when the driver does. Keeps the connection alive.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct Signals {
    handle: Arc<Handle>,
    id: WaiterId,
}

impl Signals {
    pub(super) const fn new(handle: Arc<Handle>, id: WaiterId) -> Self {
        Self { handle, id }
    }

    /// The next signal; `None` once the driver has ended.
    ///
    /// Cancel safe: a signal is taken only when it is returned.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    pub(crate) fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<ClientEvent>> {
        self.handle.shared.poll_waiter(cx, |state| state.next_signal(self.id))
    }
}

impl Stream for Signals {
    type Item = ClientEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        self.poll_event(cx)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        drop(self.handle.shared.peek(|state| state.waiters.remove(self.id)));
    }
}

/// The signals that wait for one consumer.
pub(super) struct SignalQueue {
    queue: VecDeque<Signal>,
    bytes: usize,
    lagged: u64,
    max: usize,
    bytes_max: usize,
}

impl SignalQueue {
    pub(super) const fn new(max: usize, bytes_max: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, lagged: 0, max, bytes_max }
    }

    pub(super) fn next(&mut self) -> Option<ClientEvent> {
        if self.lagged > 0 {
            return Some(ClientEvent::Lagged(core::mem::take(&mut self.lagged)));
        }
        let signal = self.queue.pop_front()?;
        self.bytes -= bytes(&signal);
        Some(ClientEvent::Signal(signal))
    }

    /// Adds a signal; those that had to go, to be dropped after the lock. One always fits, however
    /// large.
    pub(super) fn push(&mut self, signal: &Signal) -> Vec<Signal> {
        let more = bytes(signal);
        let mut dropped = Vec::new();
        while self.queue.len() >= self.max || self.bytes.saturating_add(more) > self.bytes_max {
            // When nothing can go, it grows by one for each topic at most.
            let Some(index) = self.expendable(signal) else { break };
            if let Some(gone) = self.queue.remove(index) {
                self.bytes -= bytes(&gone);
                dropped.push(gone);
            }
        }
        self.lagged += dropped.len() as u64;
        self.bytes += more;
        self.queue.push_back(signal.clone());
        dropped
    }

    /// The oldest signal that may go: one of many, or else one that the new one overtakes.
    fn expendable(&self, new: &Signal) -> Option<usize> {
        let of_many = self.queue.iter().position(|signal| subject(signal).is_none());
        let overtaken = || {
            let new = subject(new)?;
            self.queue.iter().position(|signal| subject(signal).as_ref() == Some(&new))
        };
        of_many.or_else(overtaken)
    }
}

/// What a signal is the state of: the connection, or a topic. None for those of which there may
/// be many.
#[derive(PartialEq)]
enum Subject<'a> {
    Connection,
    Topic(&'a Topic),
}

const fn subject(signal: &Signal) -> Option<Subject<'_>> {
    match signal {
        Signal::Connecting { .. }
        | Signal::Connected { .. }
        | Signal::Disconnected { .. }
        | Signal::GaveUp { .. }
        | Signal::Closed => Some(Subject::Connection),
        Signal::Joined { topic, .. }
        | Signal::Resumed { topic, .. }
        | Signal::JoinRejected { topic, .. }
        | Signal::JoinTimedOut { topic }
        | Signal::Errored { topic, .. }
        | Signal::Interrupted { topic, .. }
        | Signal::Left { topic, .. }
        | Signal::ChannelClosed { topic, .. } => Some(Subject::Topic(topic)),
        Signal::Message { .. }
        | Signal::PushEnded { .. }
        | Signal::HeartbeatAcked { .. }
        | Signal::ProtocolError { .. }
        | Signal::Warning(_) => None,
    }
}

/// What a signal keeps in memory, roughly: its payload.
fn bytes(signal: &Signal) -> usize {
    match signal {
        Signal::Message { event, payload, .. } => event.len() + payload.held_len(),
        Signal::PushEnded { outcome: PushOutcome::Reply(reply), .. } => reply.response.held_len(),
        Signal::Joined { response, .. } | Signal::Resumed { response, .. } => response.held_len(),
        Signal::Errored { payload, .. } => payload.held_len(),
        Signal::JoinRejected { rejection, .. } => rejection.response.held_len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::cause::Reply;
    use crate::id::{ConnectionId, PushId};
    use crate::wire::payload::Payload;

    fn message(text: &str) -> Signal {
        let payload = Payload::from(serde_json::json!(text));
        Signal::Message { topic: "room:a".into(), event: "msg".into(), payload }
    }

    fn joined(topic: &str) -> Signal {
        Signal::Joined { topic: topic.into(), response: Payload::empty() }
    }

    fn all(queue: &mut SignalQueue) -> Vec<ClientEvent> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn messages_go_before_what_tells_the_state() {
        let mut queue = SignalQueue::new(3, 1_000);
        queue.push(&joined("room:a"));
        assert_eq!((0..5).map(|_| queue.push(&message("x")).len()).sum::<usize>(), 3);
        let left = all(&mut queue);
        assert_eq!(left[0], ClientEvent::Lagged(3));
        assert_eq!(left[1], ClientEvent::Signal(joined("room:a")));
        assert_eq!(left.len(), 4);
    }

    #[test]
    fn of_the_state_only_what_was_overtaken_goes() {
        let mut queue = SignalQueue::new(2, 1_000);
        queue.push(&joined("room:a"));
        queue.push(&joined("room:b"));
        for id in 1..=50 {
            queue.push(&Signal::Connected { id: ConnectionId::from_u64(id) });
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
    fn a_reply_counts_as_what_it_keeps_in_memory() {
        let large = format!(r#"1,"x":"{}""#, "x".repeat(1_000));
        let kept = large.len();
        let response = Payload::member(large.into());
        let outcome = PushOutcome::Reply(Reply { status: "ok".into(), response });
        let (id, topic) = (PushId::from_u64(1), "room:a".into());
        assert_eq!(bytes(&Signal::PushEnded { id, topic, outcome }), kept);
    }

    #[test]
    fn bytes_are_bounded_and_one_signal_always_fits() {
        let mut queue = SignalQueue::new(100, 10);
        for _ in 0..20 {
            queue.push(&message(&"x".repeat(50)));
        }
        assert_eq!(
            all(&mut queue),
            [ClientEvent::Lagged(19), ClientEvent::Signal(message(&"x".repeat(50)))]
        );
        assert_eq!(queue.bytes, 0);
    }
}
