//! What the consumers must see. The oracle knows what the server sent and has forgotten, and which frames
//! arrived at the client. It knows nothing of the client.

use std::collections::VecDeque;

/// The messages with positions that the server sent. Their numbers, from zero, count them in all numberings.
#[derive(Debug)]
pub(super) struct History {
    sent: Vec<Sent>,
    /// The number of the first message that the server still has.
    kept_from: usize,
    numberings: Vec<Numbering>,
    /// Whether a client can know that the server has forgotten messages.
    is_known: bool,
}

/// The positions from one start to the next one, which is smaller than every position before.
#[derive(Clone, Copy, Debug)]
struct Numbering {
    start: u64,
    /// The position of the last message that is forgotten, or where the server began.
    forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    numbering: usize,
    position: u64,
}

impl History {
    pub(super) fn new(start: u64, is_known: bool) -> Self {
        let numberings = vec![Numbering { start, forgotten: start }];
        Self { sent: Vec::new(), kept_from: 0, numberings, is_known }
    }

    pub(super) fn sent(&mut self, position: u64) {
        self.sent.push(Sent { numbering: self.numberings.len() - 1, position });
    }

    /// How many messages were sent.
    pub(super) fn count(&self) -> usize {
        self.sent.len()
    }

    /// The server keeps only the newest messages.
    pub(super) fn keeps(&mut self, newest: usize) {
        let kept_from = self.sent.len().saturating_sub(newest);
        if kept_from > self.kept_from {
            self.kept_from = kept_from;
            self.numbering().forgotten = self.sent[kept_from - 1].position;
        }
    }

    /// The server has lost everything. Its next positions are greater than `start`.
    pub(super) fn restarted(&mut self, start: u64, starts_over: bool) {
        self.kept_from = self.sent.len();
        if starts_over {
            self.numberings.push(Numbering { start, forgotten: start });
        } else {
            self.numbering().forgotten = start;
        }
    }

    fn numbering(&mut self) -> &mut Numbering {
        self.numberings.last_mut().expect("there is a numbering")
    }

    /// The numbering of a position.
    fn numbering_of(&self, position: u64) -> usize {
        self.numberings
            .iter()
            .position(|it| it.start <= position)
            .expect("a position of the server")
    }

    /// The number of the first message after a position.
    fn after(&self, position: u64) -> usize {
        let numbering = self.numbering_of(position);
        self.sent.partition_point(|it| (it.numbering, it.position) <= (numbering, position))
    }

    /// The number of the first message after those of the numbering of a position.
    fn after_numbering_of(&self, position: u64) -> usize {
        let numbering = self.numbering_of(position);
        self.sent.partition_point(|it| it.numbering <= numbering)
    }

    /// Whether a consumer may lack these messages although a later one came.
    fn may_lack(&self, numbers: core::ops::Range<usize>) -> bool {
        !self.is_known && numbers.end <= self.kept_from
    }
}

/// A replay that arrived: the number of its first message, and the newest position that it names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replay {
    pub(super) first: Option<usize>,
    pub(super) newest: Option<u64>,
}

/// What one consumer that catches up has seen of the messages with positions.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The number of the first message that the consumer has neither seen nor seen in a gap.
    next: usize,
    /// The position of the last message or gap. A consumer without one begins where the server chooses.
    front: Option<u64>,
    beginning: Beginning,
}

/// A consumer without a position, and what arrived for it.
#[derive(Clone, Debug, Default)]
struct Beginning {
    /// Whether a join was sent since the consumer began.
    asked: bool,
    /// Whether a replay has ended. From then on no message is lost.
    ended: bool,
    /// The first message that arrived in a replay that has not ended.
    first: Option<usize>,
    /// The end of a replay for other consumers named the message before this one, so the consumer may begin here.
    may: usize,
    /// The consumer must see every message from this one on.
    must: Option<usize>,
}

impl Place {
    /// A consumer without a position. If the channel is joined, it begins with the next live message.
    pub(super) fn begins(joined: bool) -> Self {
        let beginning = Beginning { asked: !joined, ended: joined, ..Beginning::default() };
        Self { next: 0, front: None, beginning }
    }

    /// A consumer that has every message up to a position of the first numbering.
    pub(super) fn at(position: u64) -> Self {
        Self { front: Some(position), ..Self::begins(false) }
    }

    /// The position that the consumer has reached.
    pub(super) const fn front(&self) -> Option<u64> {
        self.front
    }

    /// The client sends a join.
    pub(super) fn join_sent(&mut self) {
        (self.beginning.asked, self.beginning.first) = (true, None);
    }

    /// The response of a join with a replay arrives.
    pub(super) fn response_arrived(&mut self, history: &History, replay: Replay) {
        // A client keeps the first response until the consumer reads it. If that names no newest position,
        // only the server's next choice is certain to be seen.
        if !self.beginning.ended || replay.newest.is_some() {
            self.replay_arrived(history, replay, true);
        }
    }

    /// A part or the end of a replay arrives.
    pub(super) fn replay_arrived(&mut self, history: &History, replay: Replay, ends: bool) {
        let newest = replay.newest.filter(|_| ends);
        let newest = newest.map(|newest| history.after(newest));
        if !self.beginning.asked {
            self.beginning.may = newest.unwrap_or(self.beginning.may);
            return;
        }
        self.beginning.ended |= ends;
        for first in [replay.first, newest].into_iter().flatten() {
            self.arrived(first);
        }
        self.settle();
    }

    /// A live message arrives, or every message from this one on is to arrive.
    pub(super) fn arrived(&mut self, number: usize) {
        let Beginning { asked, ended, first, may, .. } = &mut self.beginning;
        if *asked || *ended {
            let number = number.max(*may);
            *first = Some(first.map_or(number, |first| first.min(number)));
        }
        self.settle();
    }

    /// After a replay has ended, the consumer must see what arrived since its join was sent.
    fn settle(&mut self) {
        let Beginning { ended, first, must, .. } = &mut self.beginning;
        if *ended {
            *must = must.or(*first);
        }
    }

    /// The consumer takes a message.
    pub(super) fn message(
        &mut self,
        history: &History,
        number: usize,
        position: u64,
    ) -> Result<(), String> {
        let sent = history.sent[number];
        if sent.position != position {
            return Err(format!("message {number} has position {position}, not {}", sent.position));
        }
        if number < self.next {
            return Err(format!("message {number} came again, or too late: {self:?}"));
        }
        let from = if self.front.is_some() { Some(self.next) } else { self.beginning.must };
        let is_whole = from.is_none_or(|from| number <= from || history.may_lack(from..number));
        let is_restart =
            self.front.is_some_and(|front| history.numbering_of(front) != sent.numbering);
        if !is_whole || is_restart {
            return Err(format!("message {number} came, not {from:?}: {self:?}"));
        }
        self.reach(number + 1, position);
        Ok(())
    }

    /// A consumer without a position has everything that it must have up to this one.
    pub(super) fn begin(&mut self, history: &History, position: u64) -> Result<(), String> {
        if self.front.is_some() {
            return Ok(());
        }
        let next = history.after(position);
        let from = self.beginning.must;
        if from.is_some_and(|from| from < next && !history.may_lack(from..next)) {
            return Err(format!("the consumer begins after {position}: {self:?}"));
        }
        self.reach(next.max(self.next), position);
        Ok(())
    }

    fn reach(&mut self, next: usize, position: u64) {
        (self.next, self.front) = (next, Some(position));
        self.beginning = Beginning::default();
    }

    /// The consumer sees a gap.
    pub(super) fn gap(
        &mut self,
        history: &History,
        after: Option<u64>,
        through: Option<u64>,
    ) -> Result<(), String> {
        let wrong = |place: &Self| {
            let numberings = &history.numberings;
            Err(format!("the gap {after:?} to {through:?} of {numberings:?}: {place:?}"))
        };
        let Some(after) = after else { return wrong(self) };
        // Messages that were dropped before the first position may be gone.
        self.begin(history, after)?;
        if self.front != Some(after) {
            return wrong(self);
        }
        let Some(through) = through else {
            if history.numbering_of(after) + 1 == history.numberings.len() {
                return wrong(self);
            }
            // The server has started its numbers over. The consumer begins again, with the next join.
            (self.next, self.front) = (history.after_numbering_of(after), None);
            self.beginning = Beginning::default();
            return Ok(());
        };
        let forgotten = history.numberings[history.numbering_of(after)].forgotten;
        // The message at the end of the gap may be one that arrived live before the server forgot it. The
        // client cannot know then whether there were messages before it.
        if through > forgotten || forgotten <= after {
            return wrong(self);
        }
        self.reach(history.after(through), through);
        Ok(())
    }

    /// The last message has arrived live, and the consumer has taken everything.
    pub(super) fn complete(&self, history: &History) -> Result<(), String> {
        if self.front.is_some() && self.next == history.count() {
            return Ok(());
        }
        Err(format!("the consumer has not seen everything: {self:?}"))
    }
}

/// Messages that arrived for a consumer and are not replayed: each is seen once and in order, or is counted
/// as dropped at its place.
#[derive(Debug, Default)]
pub(super) struct Arrivals(VecDeque<String>);

impl Arrivals {
    pub(super) fn arrived(&mut self, message: String) {
        self.0.push_back(message);
    }

    pub(super) fn seen(&mut self, message: &str) -> Result<(), String> {
        match self.0.pop_front() {
            Some(next) if next == message => Ok(()),
            next => Err(format!("the consumer saw {message}, not {next:?}")),
        }
    }

    pub(super) fn lagged(&mut self, count: u64) -> Result<(), String> {
        for nth in 0..count {
            self.0.pop_front().ok_or_else(|| format!("only {nth} of {count} were lost"))?;
        }
        Ok(())
    }

    pub(super) fn complete(&self) -> Result<(), String> {
        self.0.front().map_or(Ok(()), |next| Err(format!("the consumer misses {next}")))
    }
}
