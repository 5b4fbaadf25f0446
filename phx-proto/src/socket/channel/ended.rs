//! A list of topics whose channel ended on the present connection.
//!
//! A broadcast has no join_ref, and the server may send one after the end of a channel, because
//! another process of the server broadcasts it. Such a message is a stale frame of its channel, not
//! an unrouted message. Nothing in the frame distinguishes the two, so the topic is kept.
//!
//! ```text
//!   no longer wanted ──▶ kept ──┬─ CAPACITY others ended, or BYTES_MAX of names ──▶ forgotten
//!                               └─ the connection ends ───────────────────────────▶ forgotten
//! ```
//!
//! The list belongs to one connection: the subscriptions of the server end with it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use crate::topic::Topic;

/// The maximum number of topics.
const CAPACITY: usize = 256;

/// The maximum number of bytes of their names. The newest topic is kept, however long.
const BYTES_MAX: usize = 16 << 10;

/// The topics that ended last.
#[derive(Clone, Default)]
pub(crate) struct Ended {
    topics: BTreeSet<Topic>,
    /// The same topics, oldest first.
    order: VecDeque<Topic>,
    bytes: usize,
}

impl Ended {
    /// Adds a topic. A topic that is in the list already becomes the newest.
    pub(crate) fn add(&mut self, topic: &Topic) {
        if self.topics.contains(topic) {
            self.order.retain(|other| other != topic);
        } else {
            self.topics.insert(topic.clone());
            self.bytes += topic.len();
        }
        self.order.push_back(topic.clone());
        while self.order.len() > 1 && (self.order.len() > CAPACITY || self.bytes > BYTES_MAX) {
            let Some(oldest) = self.order.pop_front() else { return };
            self.topics.remove(&oldest);
            self.bytes -= oldest.len();
        }
    }

    pub(crate) fn contains(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }
}

/// Omits the topics. They decide only which messages are unrouted, and the searches that identify a
/// state by its `Debug` text do not request unrouted messages. With the topics, these searches would
/// visit states again that differ in nothing else.
impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_keeps_latest_topics() {
        let mut ended = Ended::default();
        for number in 0..CAPACITY + 2 {
            ended.add(&Topic::from(number.to_string()));
        }
        assert!(!ended.contains("0") && !ended.contains("1") && ended.contains("2"));
        ended.add(&Topic::from("2"));
        ended.add(&Topic::from("new"));
        assert!(ended.contains("2") && !ended.contains("3"), "2 became the newest");
        assert_eq!((ended.topics.len(), ended.order.len()), (CAPACITY, CAPACITY));
    }

    #[test]
    fn list_is_bounded_in_bytes() {
        let mut ended = Ended::default();
        let long = |letter: &str| Topic::from(letter.repeat(BYTES_MAX / 2));
        ended.add(&long("a"));
        ended.add(&long("b"));
        assert!(ended.contains(&long("a")));
        ended.add(&Topic::from("c"));
        assert!(!ended.contains(&long("a")) && ended.contains(&long("b")));
        let huge = Topic::from("d".repeat(2 * BYTES_MAX));
        ended.add(&huge);
        assert!(ended.contains(&huge) && ended.order.len() == 1, "the newest is kept");
        assert_eq!(ended.bytes, huge.len());
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Ended {
        /// The form omits the list: it decides only whether an unrouted message is reported, and no
        /// world asks for these messages.
        pub(crate) fn canonical(&self, _form: &mut Form<'_>) {
            let Self { topics, order, bytes } = self;
            assert_eq!(topics.len(), order.len());
            assert_eq!(order.iter().map(|topic| topic.len()).sum::<usize>(), *bytes);
        }
    }
}
