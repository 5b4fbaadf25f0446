//! A list of refs whose push ended before its reply: casts, timeouts and withdrawals.
//!
//! The server may still reply to such a push, and the reply "unmatched topic" means that the server
//! no longer holds the channel (`wire/push_unjoined_topic`). This concerns only the topic of the
//! push, so the topic is kept with the ref.
//!
//! ```text
//!   written, ended without a reply ──▶ kept ──┬─ its reply ──────────────────────▶ taken
//!                                             ├─ a later heartbeat is answered ──▶ dropped
//!                                             └─ 64 others ended since ──────────▶ dropped
//! ```
//!
//! The server's socket process sends that reply, and it also answers heartbeats, in order. So when
//! a later heartbeat is answered, the reply can no longer arrive, and the entry is removed.
//!
//! The list belongs to one connection.

use crate::id::Ref;
use crate::topic::Topic;

/// The maximum number of entries. Replies to the latest pushes are enough to detect a lost channel.
const CAPACITY: usize = 64;

/// The latest pushes that ended before their reply.
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

    /// Removes the entry of `msg_ref` and `topic`, and returns whether there was one.
    pub(crate) fn take(&mut self, msg_ref: Ref, topic: &str) -> bool {
        let found = self.pushes.iter().position(|(it, to)| *it == msg_ref && **to == *topic);
        found.map(|index| self.pushes.remove(index)).is_some()
    }

    /// Removes every ref that was written before the answered heartbeat `answered`, because no
    /// reply to it can arrive any more.
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
    fn list_keeps_latest_and_returns_each_once() {
        let mut abandoned = Abandoned::default();
        for number in 1..=70 {
            abandoned.add(Ref(number), Topic::from("room:a"));
        }
        assert!(!abandoned.take(Ref(6), "room:a"), "64 later entries replaced it");
        assert!(!abandoned.take(Ref(7), "room:b"), "it was pushed to another topic");
        assert!(abandoned.take(Ref(7), "room:a"));
        assert!(!abandoned.take(Ref(7), "room:a"), "once");
        abandoned.drop_before(Ref(30));
        assert!(!abandoned.take(Ref(29), "room:a"));
        assert!(abandoned.take(Ref(31), "room:a"));
        abandoned.drop_before(Ref(71));
        abandoned.shrink();
        assert_eq!(abandoned.pushes.capacity(), 0, "an empty list has no memory");
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Abandoned {
        /// The form omits entries that the server can no longer answer. They make no difference,
        /// because the list is never full here, so they displace no other entry.
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { pushes } = self;
            assert!(pushes.len() < CAPACITY, "too many: {self:?}");
            for (msg_ref, topic) in pushes {
                if form.answerable.contains(&msg_ref.0) {
                    form.msg_ref(*msg_ref);
                    form.text(topic);
                }
            }
        }
    }
}
