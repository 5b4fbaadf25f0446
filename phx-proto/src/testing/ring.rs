//! The messages that the topics `ring:*` keep, so that a client can catch up.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

/// The member of a join's parameters with the client's position.
pub(super) const SINCE: &str = "since";
/// The event of every message that a ring keeps.
pub(super) const ENTRY: &str = "entry";
/// The event of a part of a replay, and the event that ends a replay.
pub(super) const MISSED: &str = "missed";
pub(super) const CAUGHT_UP: &str = "caught_up";

/// The most messages in one part of a replay.
const PART: usize = 10;

/// The rings of all topics. They outlive connections and [`Server::kill_all`](super::Server::kill_all),
/// like the tables of a database; a listener that restarts begins with a new server.
#[derive(Debug)]
pub(super) struct Rings {
    /// The most messages of one topic.
    size: usize,
    /// The newest position of all topics together, so the positions of one topic may have holes.
    newest: u64,
    topics: BTreeMap<String, Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<(u64, Value)>,
    /// The position of the last message that was forgotten.
    forgotten: u64,
}

impl Rings {
    pub(super) const fn new(size: usize) -> Self {
        Self { size, newest: 0, topics: BTreeMap::new() }
    }

    /// Numbers a message and keeps it. Returns the payload with its position.
    pub(super) fn append(&mut self, topic: &str, mut payload: Value) -> Value {
        self.newest += 1;
        if let Value::Object(members) = &mut payload {
            members.insert("pos".to_owned(), self.newest.into());
        }
        let ring = self.topics.entry(topic.to_owned()).or_default();
        ring.entries.push_back((self.newest, payload.clone()));
        ring.forget_all_but(self.size);
        payload
    }

    /// Forgets every message of a topic but the newest ones.
    pub(super) fn forget_all_but(&mut self, topic: &str, count: usize) {
        if let Some(ring) = self.topics.get_mut(topic) {
            ring.forget_all_but(count);
        }
    }

    /// The replay after a position, in one part; without a position it has no messages.
    pub(super) fn replay(&self, topic: &str, since: Option<u64>) -> Value {
        self.part(topic, &self.after(topic, since))
    }

    /// The replay after a position, in parts.
    pub(super) fn parts(&self, topic: &str, since: Option<u64>) -> Vec<Value> {
        let messages = self.after(topic, since);
        messages.chunks(PART).map(|messages| self.part(topic, messages)).collect()
    }

    /// The end of a replay in parts.
    pub(super) fn end(&self, topic: &str) -> Value {
        let (oldest, newest) = self.ends(topic);
        json!({ "oldest": oldest, "newest": newest })
    }

    fn part(&self, topic: &str, messages: &[Value]) -> Value {
        let (oldest, newest) = self.ends(topic);
        json!({ "messages": messages, "oldest": oldest, "newest": newest })
    }

    fn after(&self, topic: &str, since: Option<u64>) -> Vec<Value> {
        let (Some(since), Some(ring)) = (since, self.topics.get(topic)) else { return Vec::new() };
        let missed = ring.entries.iter().filter(|(position, _)| *position > since);
        missed.map(|(_, payload)| json!({ "event": ENTRY, "payload": payload })).collect()
    }

    /// The oldest position after which nothing is forgotten, and the newest position of the topic.
    fn ends(&self, topic: &str) -> (u64, u64) {
        let Some(ring) = self.topics.get(topic) else { return (0, 0) };
        let newest = ring.entries.back().map_or(ring.forgotten, |(position, _)| *position);
        (ring.forgotten, newest)
    }
}

impl Ring {
    fn forget_all_but(&mut self, count: usize) {
        while self.entries.len() > count {
            let Some((position, _)) = self.entries.pop_front() else { return };
            self.forgotten = position;
        }
    }
}
