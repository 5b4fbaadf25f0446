//! Counters of the example; every loss is counted by one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// The counters. All but `waiting` only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Parcels (messages for the broker) that the broker confirmed.
    pub forwarded: AtomicU64,
    /// Parcels that are waiting for the broker.
    pub waiting: AtomicU64,
    /// Parcels that were dropped because the spool was full.
    pub dropped: AtomicU64,
    /// Events that the bus dropped because the example read them too slowly.
    pub lagged: AtomicU64,
    /// Parcels that are too large for the broker, or whose subject is too long.
    pub unfit: AtomicU64,
    /// Orders from NATS that were performed, or answered with an error.
    pub orders: AtomicU64,
    /// How often the NATS client dropped orders because too many were waiting.
    pub orders_lost: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub fn json(&self) -> Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "forwarded": of(&self.forwarded),
            "waiting": of(&self.waiting),
            "dropped": of(&self.dropped),
            "lagged": of(&self.lagged),
            "unfit": of(&self.unfit),
            "orders": of(&self.orders),
            "orders_lost": of(&self.orders_lost),
        })
    }
}
