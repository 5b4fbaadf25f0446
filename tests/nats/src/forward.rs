//! Events of the bus to the broker: in order, at least once, while there is room.
//!
//! ```text
//!   bus ─▶ Spool ─▶ a batch and a marker to ourselves ─▶ broker
//!            ▲                                             │
//!            └───── the marker came back: it has them ◀────┘
//! ```
//!
//! NATS itself says nothing about a message that was published. But it keeps the order of a
//! connection, so once a message to ourselves has come back, the broker has everything before it.
//! Until then the batch stays in the spool, and is published again after a lost connection: a
//! subscriber may see an event twice, with the same `Nats-Msg-Id`.

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

/// Parcels that are published before they are confirmed.
const BATCH: usize = 64;
/// What an id takes in the headers, with room.
const HEADERS_BYTES: usize = 256;
/// How long a broker may take to confirm a batch.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// Forwards events to NATS.
pub struct Forward {
    pub client: Client,
    pub connected: watch::Receiver<bool>,
    /// An event is published under each of its bus topics that matches.
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
    /// Forwards until the bus is closed and everything is confirmed, or `grace` has passed since.
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
                    // One of an earlier attempt says nothing about this one.
                    if up_to.is_some_and(|up_to| up_to.as_bytes() == &marker.payload[..]) {
                        let up_to = published.take().map_or(0, |published| published.up_to);
                        Counters::add(&self.counters.forwarded, self.spool.confirm(up_to));
                    }
                }
                // What was published to a connection that is lost may be lost with it.
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
            // With its headers. Nothing will make it smaller.
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

    /// Publishes the oldest parcels, and a marker behind them.
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
                    // A broker that takes less than the one before.
                    Err(error) if error.kind() != PublishErrorKind::Send => {
                        Counters::add(&self.counters.unfit, 1);
                    }
                    Err(_) => return,
                }
            }
            let _ = self.client.publish(inbox.to_owned(), up_to.to_string().into()).await;
        };
        // The client's own queue may be full of what it cannot send. Then it is tried again.
        let _ = timeout(CONFIRM_WITHIN, publish).await;
        Some(Published { up_to, again_at })
    }

    fn count(&self) {
        let waiting = u64::try_from(self.spool.len()).unwrap_or(u64::MAX);
        self.counters.waiting.store(waiting, Ordering::Relaxed);
        self.counters.dropped.store(self.spool.dropped(), Ordering::Relaxed);
    }
}
