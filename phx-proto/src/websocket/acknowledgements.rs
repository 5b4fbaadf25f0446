//! The acknowledgements of an upload, converted from message bytes to bytes of the stream.
//!
//! ```text
//!   stream   ├── fragment ──┤ping├── fragment ──┤ping├── fragment ──┤
//!                           ▲ acknowledged       ▲ acknowledged next
//!                             by its pong          if its pong arrives
//! ```
//!
//! The [endpoint](super::Endpoint) counts message bytes, but a client's deadlines are computed from the
//! bytes of the stream. So a transport records how many bytes were ahead of each ping. A TLS stream may hold
//! bytes back, and their encrypted length is not known before they are written, so the recorded
//! number can be a little too small, never too large.

use std::collections::VecDeque;

use crate::event::input::Progress;

/// The maximum number of recorded pings. Beyond it every second one is dropped, so a pong may
/// acknowledge fewer bytes than it could.
const PINGS_MAX: usize = 64;

/// The unanswered pings of one connection and the bytes that its peer has acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acknowledgements {
    /// The pings, oldest first.
    pings: VecDeque<Ping>,
    acknowledged: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    /// The message bytes that its pong acknowledges.
    count: u64,
    /// The bytes of the stream ahead of it.
    ahead: u64,
}

impl Acknowledgements {
    /// Records a ping whose pong acknowledges `count` message bytes, behind `ahead` bytes of the
    /// stream.
    pub(crate) fn asked(&mut self, count: u64, ahead: u64) {
        self.pings.push_back(Ping { count, ahead });
        if self.pings.len() > PINGS_MAX {
            let mut is_kept = false;
            self.pings.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    /// Handles the pong that acknowledges `count` message bytes. The pings before it need no answer.
    pub(crate) fn answered(&mut self, count: u64) {
        while let Some(ping) = self.pings.front().filter(|ping| ping.count <= count) {
            self.acknowledged = ping.ahead;
            self.pings.pop_front();
        }
        if self.pings.is_empty() {
            self.pings = VecDeque::new();
        }
    }

    /// Adds the acknowledged bytes to a report.
    pub(crate) fn report(&self, progress: Progress) -> Progress {
        let next = self.pings.front().map_or(self.acknowledged, |ping| ping.ahead);
        Progress { acknowledged: self.acknowledged, acknowledged_next: next, ..progress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(acknowledgements: &Acknowledgements) -> (u64, u64) {
        let Progress { acknowledged, acknowledged_next, .. } =
            acknowledgements.report(Progress::default());
        (acknowledged, acknowledged_next)
    }

    #[test]
    fn pong_acknowledges_bytes_ahead_of_ping() {
        let mut uploads = Acknowledgements::default();
        assert_eq!(reported(&uploads), (0, 0));
        for nth in 1..=3 {
            uploads.asked(nth * 100, nth * 120);
        }
        assert_eq!(reported(&uploads), (0, 120));
        uploads.answered(99);
        assert_eq!(reported(&uploads), (0, 120));
        // A pong that answers two pings.
        uploads.answered(200);
        assert_eq!(reported(&uploads), (240, 360));
        uploads.answered(300);
        assert_eq!(reported(&uploads), (360, 360));
        assert_eq!(uploads.pings.capacity(), 0);
    }

    #[test]
    fn recorded_pings_are_bounded() {
        let mut uploads = Acknowledgements::default();
        for nth in 1..=10_000 {
            uploads.asked(nth, 10 * nth);
            assert!(uploads.pings.len() <= PINGS_MAX);
            assert_eq!(reported(&uploads), (0, 10), "the oldest ping stays");
        }
        for nth in 1..=10_000 {
            uploads.answered(nth);
            assert!(reported(&uploads).0 <= 10 * nth, "a pong never proves too much");
        }
        assert!(reported(&uploads).0 > 99_000);
    }
}
