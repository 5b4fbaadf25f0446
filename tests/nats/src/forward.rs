//! Forwards events of the bus to the broker: in order, and at least once while the spool has capacity.
//!
//! ```text
//!   bus ─▶ Spool ─▶ a batch and a marker to itself ────▶ broker
//!            ▲                                             │
//!            └───── the marker came back: confirmed ◀──────┘
//! ```
//!
//! NATS does not acknowledge a published message, but it keeps the order of a connection. So when a
//! marker that the example sent to itself has come back, the broker has everything before it. Until then
//! the batch stays in the spool, and is published again after a lost connection: a subscriber may receive
//! an event twice, with the same `Nats-Msg-Id`.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::{Client, HeaderMap, PublishErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use phx_tokio::service::{BusEvent, Routed, Subscription, TopicPattern};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::counters::Counters;
use crate::spool::{Parcel, Spool};
use crate::subject::subject;

/// The maximum number of unconfirmed parcels.
const BATCH: usize = 64;
/// An upper bound for the headers of a parcel.
const HEADERS_BYTES: usize = 256;
/// The timeout for the confirmation of a batch.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// Forwards events to NATS.
pub struct Forward {
    pub client: Client,
    pub connected: watch::Receiver<bool>,
    /// Selects the bus topics under which an event is published.
    pub pattern: TopicPattern,
    pub spool: Spool,
    pub counters: Arc<Counters>,
}

/// A batch that was published.
struct Published {
    up_to: u64,
    again_at: Instant,
}

impl Forward {
    /// Forwards until the bus is closed, and then until everything is confirmed or `grace` has passed.
    pub async fn run(
        mut self,
        mut events: Subscription,
        grace: Duration,
    ) -> Result<(), async_nats::SubscribeError> {
        let inbox = self.client.new_inbox();
        let mut markers: Subscriber = self.client.subscribe(inbox.clone()).await?;
        let mut published: Option<Published> = None;
        let mut end: Option<Instant> = None;
        loop {
            self.count();
            if end.is_some_and(|end| self.spool.is_empty() || Instant::now() >= end) {
                return Ok(());
            }
            if published.is_none() && !self.spool.is_empty() && *self.connected.borrow() {
                published = self.publish(&inbox).await;
            }
            let again_at = published.as_ref().map(|published| published.again_at);
            let next = [again_at, end].into_iter().flatten().min();
            tokio::select! {
                event = events.next(), if end.is_none() => match event {
                    Some(BusEvent::Event(routed)) => self.take(&routed),
                    Some(BusEvent::Lagged(count)) => Counters::add(&self.counters.lagged, count),
                    Some(other) => eprintln!("phx-nats: {other:?}"),
                    None => end = Some(Instant::now() + grace),
                },
                Some(marker) = markers.next() => {
                    let up_to = published.as_ref().map(|published| published.up_to.to_string());
                    // A marker of an earlier attempt does not confirm this one.
                    if up_to.is_some_and(|up_to| up_to.as_bytes() == &marker.payload[..]) {
                        let up_to = published.take().map_or(0, |published| published.up_to);
                        Counters::add(&self.counters.forwarded, self.spool.confirm(up_to));
                    }
                }
                // A lost connection may have lost the published batch.
                Ok(()) = self.connected.changed() => published = None,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if again_at.is_some_and(|again_at| Instant::now() >= again_at) {
                        published = None;
                    }
                }
            }
        }
    }

    /// Puts an event into the spool, under each of its subjects.
    fn take(&mut self, routed: &Routed) {
        // An event is always JSON.
        let Ok(body) = serde_json::to_vec(&routed.event) else { return };
        let body = Bytes::from(body);
        for topic in routed.topics.iter().filter(|topic| self.pattern.matches(topic)) {
            // The size with headers. A parcel that is too large now will never fit.
            let size = body.len() + topic.len() + HEADERS_BYTES;
            match subject(topic) {
                Some(subject) if size <= self.client.max_payload() => {
                    let id = routed.event.id.clone();
                    self.spool.push(Parcel { id, subject, body: body.clone() });
                }
                _ => Counters::add(&self.counters.unfit, 1),
            }
        }
    }

    /// Publishes the oldest parcels, and then a marker.
    async fn publish(&self, inbox: &str) -> Option<Published> {
        let again_at = Instant::now() + CONFIRM_WITHIN;
        let (batch, up_to) = self.spool.batch(BATCH);
        let publish = async {
            for parcel in batch {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", parcel.id);
                let sent = self.client.publish_with_headers(parcel.subject, headers, parcel.body);
                match sent.await {
                    Ok(()) => {}
                    // This broker has a smaller limit than the one before.
                    Err(error) if error.kind() != PublishErrorKind::Send => {
                        Counters::add(&self.counters.unfit, 1);
                    }
                    Err(_) => return,
                }
            }
            let _ = self.client.publish(inbox.to_owned(), up_to.to_string().into()).await;
        };
        // The client's own queue may be full while it cannot send. Then the batch is retried.
        let _ = timeout(CONFIRM_WITHIN, publish).await;
        Some(Published { up_to, again_at })
    }

    fn count(&self) {
        let waiting = u64::try_from(self.spool.len()).unwrap_or(u64::MAX);
        self.counters.waiting.store(waiting, Ordering::Relaxed);
        self.counters.dropped.store(self.spool.dropped(), Ordering::Relaxed);
    }
}
