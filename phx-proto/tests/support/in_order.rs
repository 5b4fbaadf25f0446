//! What a consumer that catches up must see: each message once and in order, and a gap exactly where the
//! server has forgotten messages.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeSet;

/// The messages of one topic, and what one consumer has seen of them.
#[derive(Clone, Debug, Default)]
pub struct InOrder {
    /// The positions of all messages that were sent.
    sent: BTreeSet<u64>,
    /// The position of the last message that the server has forgotten.
    forgotten: u64,
    /// The position of the last message or gap that the consumer saw.
    front: u64,
    /// The numbers of messages that the consumer saw, and of those that it saw as gaps.
    pub seen: u64,
    pub missing: u64,
}

impl InOrder {
    pub fn sent(&mut self, position: u64) {
        self.sent.insert(position);
    }

    /// The server keeps only the newest messages.
    pub fn keeps(&mut self, newest: usize) {
        let forgotten = self.sent.iter().rev().nth(newest).copied().unwrap_or_default();
        self.forgotten = self.forgotten.max(forgotten);
    }

    /// The consumer began without a position, and has one now.
    pub fn begin(&mut self, position: u64) {
        self.front = position;
    }

    /// The consumer takes a message.
    pub fn message(&mut self, position: u64) -> Result<(), String> {
        let next = self.next();
        if next != Some(position) {
            return Err(format!("the consumer saw {position} after {}, not {next:?}", self.front));
        }
        self.seen += 1;
        self.front = position;
        Ok(())
    }

    /// The consumer sees a gap.
    pub fn gap(&mut self, after: Option<u64>, through: Option<u64>) -> Result<(), String> {
        let (Some(after), Some(through)) = (after, through) else {
            return Err(format!("the gap {after:?} to {through:?} has no end"));
        };
        let lost = self.sent.range(after + 1..=through).count() as u64;
        // If the server forgets a message during the replay, and the client has it because it arrived
        // live, the client cannot know whether the server has forgotten messages before it too.
        if after != self.front || through > self.forgotten || self.forgotten <= after {
            return Err(format!(
                "the gap {after} to {through} with {lost} messages is not one: the consumer is at {}, and \
                 the server has forgotten the messages up to {}",
                self.front, self.forgotten
            ));
        }
        self.missing += lost;
        self.front = through;
        Ok(())
    }

    /// The consumer has caught up, and nothing was sent since.
    pub fn complete(&self) -> Result<(), String> {
        match self.next() {
            Some(next) => Err(format!("the consumer is at {}, and misses {next}", self.front)),
            None => Ok(()),
        }
    }

    /// The position of the next message after what the consumer saw.
    fn next(&self) -> Option<u64> {
        self.sent.range(self.front + 1..).next().copied()
    }
}
