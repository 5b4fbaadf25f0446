//! What happened so far. Nothing is lost without one of these.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Counters only grow, but for `waiting`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Parcels that the broker confirmed.
    pub forwarded: AtomicU64,
    /// Parcels that wait for it, now.
    pub waiting: AtomicU64,
    /// Parcels that the spool had no room for.
    pub dropped: AtomicU64,
    /// Events that the bus dropped because they were not taken in time.
    pub lagged: AtomicU64,
    /// Parcels that no broker takes: too large, or with too long a subject.
    pub unfit: AtomicU64,
    /// Orders from NATS that were carried out, or answered with why not.
    pub orders: AtomicU64,
    /// Times that the client of NATS dropped orders because too many waited.
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
