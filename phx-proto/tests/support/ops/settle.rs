//! A server that follows the rules from now on, for the properties of the final state.

use std::time::Duration;

use phx_proto::{ChannelStatus, Status};

use super::world::World;
use super::{Answer, Conn, End, Op, Step};

/// How the faults end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peace {
    /// Frames that are unanswered are answered now, in order.
    Answered,
    /// Frames that are unanswered stay unanswered. Only frames that are written from now on are
    /// answered.
    Forgotten,
}

impl World {
    /// Plays a server that follows the rules until nothing is left to do, or for at most `most` of
    /// virtual time.
    ///
    /// Returns whether every wanted topic is joined and every push has its outcome.
    pub fn settle(&mut self, peace: Peace, most: Duration) -> bool {
        if peace == Peace::Forgotten {
            self.sent.iter_mut().for_each(|sent| sent.answered = true);
        }
        self.now = self.now.max(self.latest);
        let end = self.now + most;
        for _ in 0..5_000 {
            while self.be_good() {}
            if self.is_settled() {
                return true;
            }
            match self.socket.poll_timeout() {
                Some(timeout) if timeout.at <= end => self.plain(Op::ToTimeout),
                _ => return false,
            }
        }
        panic!("no end: {:?}", self.socket);
    }

    fn plain(&mut self, op: Op) {
        self.step(Step { op, polls: None });
    }

    /// Carries out one action of a driver and server that follow the rules. Returns whether there was
    /// one.
    fn be_good(&mut self) -> bool {
        if !self.pending.is_empty() {
            self.drain();
            self.after_step();
            return true;
        }
        match self.socket.status() {
            Status::Connecting { .. } => self.plain(Op::Opened(Conn::Current)),
            Status::Closing => self.plain(Op::Closed(Conn::Current, End::Frame(Some(1000)))),
            Status::Open => {
                let written = self.sent.len();
                self.plain(Op::Writable(Conn::Current, true));
                let unanswered = !self.unanswered().is_empty();
                if unanswered {
                    self.plain(Op::Answer { nth: 0, how: Answer::Ok });
                }
                return unanswered || self.sent.len() > written;
            }
            _ => return false,
        }
        true
    }

    fn is_settled(&self) -> bool {
        let joined = |(_, status): (_, ChannelStatus)| status == ChannelStatus::Joined;
        let connected = match self.socket.status() {
            Status::Open => self.socket.channels().all(joined),
            Status::Idle | Status::Closed | Status::GaveUp { .. } => true,
            _ => false,
        };
        connected && self.checkers.outcomes.open() == 0
    }
}
