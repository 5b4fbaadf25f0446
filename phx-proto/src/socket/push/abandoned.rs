//! A list of refs whose push ended before its reply: casts, timeouts, withdrawals.
//!
//! The server may still answer them, and an answer can matter: "unmatched topic" means that a channel
//! is gone (`wire/push_unjoined_topic`), that of the topic that was pushed to and no other,
//! so the topic is kept beside the ref.
//!
//! ```text
//!   written, ended without a reply ──▶ kept ──┬─ its reply ──────────────────────▶ taken
//!                                             ├─ a later heartbeat is answered ──▶ dropped
//!                                             └─ 64 others ended since ──────────▶ dropped
//! ```
//!
//! That reply comes from the server's socket, which answers heartbeats too and in order: when a
//! heartbeat that was written later is answered, it will not come any more.
//!
//! The value lives and dies with one connection.

use crate::id::Ref;
use crate::topic::Topic;

/// How many are kept: of more, the replies to the last ones prove the same.
const CAPACITY: usize = 64;

/// Pushes that ended before their reply, the latest ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abandoned {
    pushes: Vec<(Ref, Topic)>,
}

impl Abandoned {
    pub(crate) fn add(&mut self, msg_ref: Ref, topic: Topic) {
        if self.pushes.len() == CAPACITY {
            self.pushes.remove(0);
        }
        self.pushes.push((msg_ref, topic));
    }

    /// Whether `msg_ref` was the ref of a push to `topic`; a second reply is not asked about it.
    pub(crate) fn take(&mut self, msg_ref: Ref, topic: &str) -> bool {
        let found = self.pushes.iter().position(|(it, to)| *it == msg_ref && **to == *topic);
        found.map(|index| self.pushes.remove(index)).is_some()
    }

    /// The heartbeat `answered` was answered: what was written before it is answered or never will be.
    pub(crate) fn drop_before(&mut self, answered: Ref) {
        self.pushes.retain(|(msg_ref, _)| *msg_ref > answered);
    }

    /// Frees the memory of an empty list.
    pub(crate) fn shrink(&mut self) {
        if self.pushes.is_empty() {
            self.pushes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_keeps_the_latest_and_gives_each_once() {
        let mut abandoned = Abandoned::default();
        for number in 1..=70 {
            abandoned.add(Ref(number), Topic::from("room:a"));
        }
        assert!(!abandoned.take(Ref(6), "room:a"), "64 later ones pushed it out");
        assert!(!abandoned.take(Ref(7), "room:b"), "it was pushed to another topic");
        assert!(abandoned.take(Ref(7), "room:a"));
        assert!(!abandoned.take(Ref(7), "room:a"), "once");
        abandoned.drop_before(Ref(30));
        assert!(!abandoned.take(Ref(29), "room:a"));
        assert!(abandoned.take(Ref(31), "room:a"));
        abandoned.drop_before(Ref(71));
        abandoned.shrink();
        assert_eq!(abandoned.pushes.capacity(), 0, "an idle connection keeps nothing");
    }
}
