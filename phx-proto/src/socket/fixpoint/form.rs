//! The canonical form of a state. Two states with the same form behave in the same way.
//!
//! Each struct of the machine writes its own fields, in a module `canonical` at the end of its file. It
//! destructures itself completely, so a new field does not compile until it has a form.
//!
//! | field | form |
//! | --- | --- |
//! | refs, orders (push ids are orders), interests, connections | their rank among those that are present |
//! | a deadline | how far it lies ahead |
//! | a time in the past | its age, up to the largest age that makes a difference |
//! | a counter that selects a step of a schedule | the counter, up to the last step |
//! | a counter or a reading that is only reported | nothing |
//! | an index of other fields | nothing; it is compared with them |

use core::time::Duration;

use crate::config::backoff::Schedule;
use crate::config::{Backoff, Config};
use crate::id::{ConnectionId, InterestId, Ref};
use crate::time::{Time, nanos};

/// The kind of a number that is renamed. Each kind has its own ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Ref,
    Order,
    Interest,
    Connection,
}

/// Collects the form of one state.
pub(crate) struct Form<'a> {
    bytes: Vec<u8>,
    /// The numbers to rename, each with its kind and with the index in `bytes` of its new name.
    names: Vec<(Sort, u64, usize)>,
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    /// The refs that the server may still answer.
    pub(crate) answerable: Vec<u64>,
    /// The behaviour of the server in this world.
    pub(crate) habits: Habits,
}

/// The behaviour of a world's server, as far as the form depends on it. Some parts of the state make a
/// difference only with a server that behaves in this way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// Whether the server may send messages that are too large.
    pub(crate) sends_too_large: bool,
    /// Whether the server may close a connection, also soon after a join.
    pub(crate) closes: bool,
    /// Whether the server may close two connections in a row soon after a join. Otherwise joins are
    /// never paced.
    pub(crate) paces: bool,
    /// Whether the number of connections that the server may close is limited.
    pub(crate) limited: bool,
}

impl<'a> Form<'a> {
    pub(crate) fn new(now: Time, config: &'a Config, habits: Habits) -> Self {
        let (bytes, names) = (Vec::with_capacity(256), Vec::with_capacity(32));
        Self { bytes, names, now, config, answerable: Vec::new(), habits }
    }

    pub(crate) fn number(&mut self, number: u64) {
        let mut left = number;
        while left >= 0x80 {
            self.bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        self.bytes.push((left & 0x7f) as u8);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.bytes.push(u8::from(flag));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn name(&mut self, sort: Sort, number: u64) {
        self.names.push((sort, number, self.bytes.len()));
        self.bytes.push(0);
    }

    pub(crate) fn msg_ref(&mut self, msg_ref: Ref) {
        self.name(Sort::Ref, msg_ref.0);
    }

    pub(crate) fn order(&mut self, order: u64) {
        self.name(Sort::Order, order);
    }

    pub(crate) fn interest(&mut self, interest: InterestId) {
        self.name(Sort::Interest, interest.0);
    }

    pub(crate) fn connection(&mut self, id: ConnectionId) {
        self.name(Sort::Connection, id.0);
    }

    pub(crate) fn option<T>(&mut self, option: Option<T>, some: impl FnOnce(&mut Self, T)) {
        self.flag(option.is_some());
        if let Some(value) = option {
            some(self, value);
        }
    }

    /// Writes a time relative to the present: how far it lies ahead, or its age, capped at `oldest`.
    pub(crate) fn time(&mut self, at: Time, oldest: Duration) {
        if at > self.now {
            self.number(2);
            self.number(nanos(at.since(self.now)));
        } else {
            self.number(1);
            self.duration(self.now.since(at), oldest);
        }
    }

    /// Writes a deadline that has not passed.
    pub(crate) fn deadline(&mut self, at: Time) {
        self.time(at, Duration::ZERO);
    }

    pub(crate) fn duration(&mut self, duration: Duration, most: Duration) {
        self.number(nanos(duration.min(most)));
    }

    pub(crate) fn count(&mut self, count: u32, most: u32) {
        self.number(u64::from(count.min(most)));
    }

    /// The greatest age of an unanswered request that makes a difference: the longest timeout of an
    /// answer, with its greatest extension.
    pub(crate) fn longest_answer(&self) -> Duration {
        let config = self.config;
        let limits = [config.heartbeat_timeout, config.join_timeout, config.join_block_max];
        limits.into_iter().max().unwrap_or_default() + config.progress_max
    }

    /// The greatest age of an open connection that makes a difference.
    pub(crate) fn longest_open(&self) -> Duration {
        let refused = self.config.refused_after.longest().max() + Duration::from_nanos(1);
        let stable_after = self.config.stable_after;
        if self.habits.sends_too_large { stable_after.max(refused) } else { stable_after }
    }

    /// Writes a number of earlier attempts. It selects the next step of a schedule or is compared with
    /// `limit`, so it is capped at the greater of the last step and `limit`.
    pub(crate) fn attempts(&mut self, count: u32, backoff: &Backoff, limit: u32) {
        let Schedule::Steps(steps) = &backoff.schedule else { panic!("a schedule of steps") };
        self.count(count, (steps.len() as u32 - 1).max(limit));
    }

    /// Returns the bytes of the form, in which every renamed number is replaced by its rank.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.names.sort_unstable();
        let mut last = None;
        let mut rank = 0;
        for (sort, number, at) in self.names {
            match last {
                Some((same, _)) if same != sort => rank = 0,
                Some(same) if same != (sort, number) => rank += 1,
                _ => {}
            }
            last = Some((sort, number));
            self.bytes[at] = u8::try_from(rank).expect("few names");
        }
        self.bytes
    }
}

/// A hash of a form. With 128 bits, two forms of a search practically never have the same hash.
pub(crate) fn hash(bytes: &[u8]) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mut hash = bytes.len() as u128;
    for chunk in bytes.chunks(16) {
        let mut word = [0; 16];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u128::from_le_bytes(word)).wrapping_mul(ODD);
        hash ^= hash >> 64;
    }
    hash
}
