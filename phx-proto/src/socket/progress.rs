//! A ledger of the bytes that a connection has transferred. It computes by how much they extend
//! deadlines.
//!
//! A heartbeat and its reply queue behind the bytes that are already in transit. On a slow link
//! that can take longer than `heartbeat_timeout`, although nothing is wrong. So transferred bytes
//! extend a deadline, by the time that they take at a minimum rate:
//!
//! ```text
//!   deadline = due + timeout + min(progress_max,   bytes read since due            / receive_rate_min
//!                                                + bytes written ahead, not proven / send_rate_min)
//! ```
//!
//! The answer to a ref proves that the server has received everything that was written before that
//! ref. Written bytes without such a proof may still be in transit. Those that exist when the
//! heartbeat falls due are ahead of it, and so are the bytes that the transport writes until the
//! heartbeat is flushed. Bytes that are written later do not delay it and extend nothing, so a
//! connection whose incoming direction is dead is not kept alive by what it sends.
//!
//! ```text
//!   written   ├────── proven ──────┼──── ahead of the heartbeat ────┼── after it ──▶
//!                                  ▲ when it fell due               ▲ when it was flushed
//! ```
//!
//! Written bytes only show what the buffers on the way have accepted, and these can swallow megabytes
//! for a peer that is gone. A transport that sends pings between the parts of a long message knows
//! more: a pong acknowledges the bytes before its ping. From the first acknowledgement on, the ledger
//! relies on them:
//!
//! - An acknowledgement of bytes that are ahead of the heartbeat starts its timeout over, so an upload
//!   may take any time, as long as it is acknowledged.
//! - While a ping is unanswered, the bytes ahead of the heartbeat end at the oldest such ping, because
//!   its pong must arrive first. Bytes after that ping extend nothing.
//!
//! ```text
//!   written   ├──── acknowledged ────┼── extends ──┼─────────── extends nothing ───────────▶
//!                                    ▲ proven      ▲ the oldest unanswered ping
//! ```
//!
//! The counts come from the transport, below TLS, and are as fresh as the last report. An outdated
//! report makes a deadline later, never earlier.
//!
//! The ledger belongs to one connection.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::Config;
use crate::event::input::Progress;
use crate::id::Ref;

/// The maximum number of marks. Beyond it every second mark is dropped, so an answer may prove
/// fewer bytes than it could.
const MARKS_MAX: usize = 64;

/// The bytes of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    rates: Rates,
    read: u64,
    written: u64,
    /// The number of written bytes that the server has certainly received.
    proven: u64,
    /// The number of written bytes that pongs have acknowledged. Zero until the first pong.
    acknowledged: u64,
    /// The number of bytes before the oldest unanswered ping, if larger than `acknowledged`.
    acknowledged_next: u64,
    /// The marks, oldest first: the first ref that was minted after a report, and the bytes written
    /// by then.
    marks: VecDeque<(Ref, u64)>,
}

/// The options that convert bytes to time.
#[derive(Clone, Copy, Debug)]
struct Rates {
    receive_min: u64,
    send_min: u64,
    max: Duration,
}

/// The counts at the time from which a deadline runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    read: u64,
    proven: u64,
    /// The bytes that were written when the request was flushed.
    flushed: Option<u64>,
}

impl Baseline {
    /// Whether the request was flushed.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.flushed.is_some()
    }
}

impl Ledger {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rates: Rates {
                receive_min: config.receive_rate_min,
                send_min: config.send_rate_min,
                max: config.progress_max,
            },
            read: 0,
            written: 0,
            proven: 0,
            acknowledged: 0,
            acknowledged_next: 0,
            marks: VecDeque::new(),
        }
    }

    /// Takes the totals of a report, and returns whether it acknowledges further bytes. `next_ref` is
    /// the next ref that will be minted.
    pub(crate) fn report(&mut self, progress: Progress, next_ref: Ref) -> bool {
        self.read = self.read.max(progress.read);
        self.add_mark(progress, next_ref);
        self.acknowledged_next = self.acknowledged_next.max(progress.acknowledged_next);
        let acknowledged = progress.acknowledged.min(self.written);
        if acknowledged <= self.acknowledged {
            return false;
        }
        self.acknowledged = acknowledged;
        self.proven = self.proven.max(acknowledged);
        true
    }

    fn add_mark(&mut self, progress: Progress, next_ref: Ref) {
        if progress.written <= self.written {
            return;
        }
        self.written = progress.written;
        match self.marks.back_mut() {
            // No ref was minted since the last mark, so the ref of that mark also proves the new
            // bytes.
            Some((at, written)) if *at == next_ref => *written = self.written,
            _ => self.marks.push_back((next_ref, self.written)),
        }
        if self.marks.len() > MARKS_MAX {
            let mut odd = false;
            self.marks.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }

    /// Records that the server answered a frame with this ref, so it has received everything before
    /// it.
    #[inline]
    pub(crate) fn answered(&mut self, msg_ref: Ref) {
        while let Some((at, written)) = self.marks.front() {
            if *at > msg_ref {
                break;
            }
            self.proven = self.proven.max(*written);
            self.marks.pop_front();
        }
    }

    /// Frees the memory of an empty list of marks.
    pub(crate) fn shrink(&mut self) {
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
    }

    /// The present counts, for a deadline that starts now.
    pub(crate) const fn baseline(&self) -> Baseline {
        Baseline { read: self.read, proven: self.proven, flushed: None }
    }

    /// Records in a baseline that its request was flushed. Bytes that are written later do not
    /// delay the request.
    pub(crate) fn flush(&self, baseline: &mut Baseline) {
        baseline.flushed.get_or_insert(self.written);
    }

    /// Whether the bytes that were acknowledged last are ahead of the request of a baseline. If they
    /// are after it, the peer has read the request, so they do not excuse a missing answer.
    pub(crate) fn acknowledges_ahead_of(&self, baseline: &Baseline) -> bool {
        baseline.flushed.is_none_or(|flushed| self.acknowledged <= flushed)
    }

    /// Starts a baseline over. Bytes that were written after its request still do not delay it.
    pub(crate) const fn restart(&self, baseline: &mut Baseline) {
        (baseline.read, baseline.proven) = (self.read, self.proven);
    }

    /// Whether the peer answers pings, and one is unanswered.
    const fn awaits_acknowledgement(&self) -> bool {
        self.acknowledged > 0 && self.acknowledged_next > self.acknowledged
    }

    /// The end of the written bytes that may extend a deadline: the oldest unanswered ping, if the
    /// peer answers pings.
    fn end(&self) -> u64 {
        if self.awaits_acknowledgement() {
            self.written.min(self.acknowledged_next)
        } else {
            self.written
        }
    }

    /// The time by which the bytes since a baseline extend a deadline.
    pub(crate) fn extension(&self, since: &Baseline) -> Duration {
        let read = self.read.saturating_sub(since.read);
        let end = since.flushed.map_or(self.end(), |flushed| flushed.min(self.end()));
        let ahead = end.saturating_sub(since.proven);
        let time = at_rate(read, self.rates.receive_min)
            .saturating_add(at_rate(ahead, self.rates.send_min));
        time.min(self.rates.max)
    }

    /// The number of bytes written.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// The time by which bytes extend the deadline of a transport that takes no frames: those written
    /// since `written`, or those ahead of the oldest unanswered ping.
    pub(crate) fn extension_by_writing(&self, written: u64) -> Duration {
        let from = if self.awaits_acknowledgement() { self.acknowledged } else { written };
        at_rate(self.end().saturating_sub(from), self.rates.send_min).min(self.rates.max)
    }
}

/// The time that `bytes` take at a rate. A rate of zero disables the extension.
fn at_rate(bytes: u64, bytes_per_second: u64) -> Duration {
    if bytes_per_second == 0 {
        return Duration::ZERO;
    }
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let config = Config::new("ws://localhost/").unwrap();
        let config = config.receive_rate_min(1_000).send_rate_min(100);
        Ledger::new(&config.progress_max(Duration::from_secs(60)))
    }

    const fn progress(read: u64, written: u64) -> Progress {
        acknowledged(read, written, 0, 0)
    }

    const fn acknowledged(read: u64, written: u64, acknowledged: u64, next: u64) -> Progress {
        Progress { read, written, flushed: false, acknowledged, acknowledged_next: next }
    }

    #[test]
    fn bytes_extend_deadline_at_rates() {
        let mut ledger = ledger();
        ledger.report(progress(500, 20), Ref(1));
        let baseline = ledger.baseline();
        // Twenty unproven bytes are ahead of the heartbeat.
        assert_eq!(ledger.extension(&baseline), Duration::from_millis(200));
        ledger.report(progress(2_500, 120), Ref(2));
        assert_eq!(ledger.extension(&baseline), Duration::from_millis(2_000 + 1_200));
        ledger.report(progress(1_000_000, 120), Ref(2));
        assert_eq!(ledger.extension(&baseline), Duration::from_secs(60));
    }

    #[test]
    fn totals_never_decrease() {
        let mut ledger = ledger();
        let baseline = ledger.baseline();
        ledger.report(progress(1_000, 100), Ref(1));
        ledger.report(progress(0, 0), Ref(2));
        assert_eq!(ledger.extension(&baseline), Duration::from_secs(2));
    }

    #[test]
    fn answered_ref_proves_earlier_bytes() {
        let mut ledger = ledger();
        ledger.report(progress(0, 100), Ref(5));
        ledger.report(progress(0, 300), Ref(7));
        ledger.answered(Ref(4));
        assert_eq!(ledger.baseline().proven, 0);
        ledger.answered(Ref(6));
        assert_eq!(ledger.baseline().proven, 100);
        ledger.answered(Ref(7));
        assert_eq!(ledger.baseline().proven, 300);
        ledger.shrink();
        assert_eq!(ledger.marks.capacity(), 0);
    }

    #[test]
    fn proof_does_not_change_earlier_baseline() {
        let mut ledger = ledger();
        ledger.report(progress(0, 100), Ref(5));
        let baseline = ledger.baseline();
        ledger.answered(Ref(5));
        assert_eq!(ledger.extension(&baseline), Duration::from_secs(1));
        assert_eq!(ledger.extension(&ledger.baseline()), Duration::ZERO);
    }

    #[test]
    fn bytes_after_flush_extend_nothing() {
        let mut ledger = ledger();
        let mut baseline = ledger.baseline();
        ledger.report(progress(0, 100), Ref(5));
        ledger.flush(&mut baseline);
        ledger.report(progress(0, 900), Ref(6));
        ledger.flush(&mut baseline);
        assert_eq!(ledger.extension(&baseline), Duration::from_secs(1));
    }

    #[test]
    fn bounded_marks_never_prove_too_much() {
        let mut ledger = ledger();
        for n in 1..=10_000 {
            ledger.report(progress(0, 10 * n), Ref(n));
            assert!(ledger.marks.len() <= MARKS_MAX);
        }
        for n in 1..=10_000 {
            ledger.answered(Ref(n));
            assert!(ledger.baseline().proven <= 10 * n);
        }
        assert!(ledger.baseline().proven >= 99_000, "{ledger:?}");
    }

    #[test]
    fn unanswered_ping_ends_bytes_ahead() {
        let mut ledger = ledger();
        let baseline = ledger.baseline();
        assert!(!ledger.report(acknowledged(0, 1_000, 0, 200), Ref(1)));
        // The peer has not answered a ping yet, so it may not answer pings at all.
        assert_eq!(ledger.extension(&baseline), Duration::from_secs(10));
        assert!(ledger.report(acknowledged(0, 1_000, 200, 400), Ref(1)));
        assert!(!ledger.report(acknowledged(0, 5_000, 200, 400), Ref(1)));
        let mut restarted = baseline;
        ledger.restart(&mut restarted);
        assert_eq!(ledger.extension(&restarted), Duration::from_secs(2));
        assert_eq!(ledger.extension_by_writing(5_000), Duration::from_secs(2));
        // Every ping is answered: all bytes without a proof count again.
        assert!(ledger.report(acknowledged(0, 5_000, 400, 400), Ref(1)));
        ledger.restart(&mut restarted);
        assert_eq!(ledger.extension(&restarted), Duration::from_secs(46));
        assert_eq!(ledger.extension_by_writing(4_000), Duration::from_secs(10));
    }

    #[test]
    fn acknowledgement_behind_request_is_recognised() {
        let mut ledger = ledger();
        let mut baseline = ledger.baseline();
        ledger.report(acknowledged(0, 1_000, 100, 200), Ref(1));
        assert!(ledger.acknowledges_ahead_of(&baseline), "the request is not flushed");
        ledger.flush(&mut baseline);
        ledger.report(acknowledged(0, 2_000, 1_000, 1_500), Ref(1));
        assert!(ledger.acknowledges_ahead_of(&baseline));
        ledger.report(acknowledged(0, 2_000, 1_001, 1_500), Ref(1));
        assert!(!ledger.acknowledges_ahead_of(&baseline));
    }

    #[test]
    fn proof_never_exceeds_written_bytes() {
        let mut ledger = ledger();
        ledger.report(acknowledged(0, 100, 0, 0), Ref(5));
        ledger.report(acknowledged(0, 300, 900, 900), Ref(7));
        assert_eq!(ledger.baseline().proven, 300);
        // A reply proves less than the pong, and takes nothing back.
        ledger.answered(Ref(5));
        assert_eq!(ledger.baseline().proven, 300);
    }

    #[test]
    fn zero_rate_extends_nothing() {
        assert_eq!(at_rate(u64::MAX, 0), Duration::ZERO);
        assert_eq!(at_rate(u64::MAX, 1), Duration::from_nanos(u64::MAX));
        assert_eq!(at_rate(1, 3), Duration::from_nanos(333_333_333));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Ledger {
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { rates, read: _, written, proven, acknowledged, acknowledged_next, marks } =
                self;
            assert_eq!((*acknowledged, *acknowledged_next), (0, 0), "the model sends no pings");
            form.number(rates.most(*written - *proven));
            form.number(marks.len() as u64);
            for (at, ahead) in marks {
                form.msg_ref(*at);
                form.number(rates.most(*written - *ahead));
            }
        }
    }

    impl Ledger {
        /// The number of bytes written since `written`, capped at the largest number that makes a
        /// difference.
        pub(crate) fn written_since(&self, written: u64) -> u64 {
            self.rates.most(self.written - written)
        }
    }

    impl Baseline {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, ledger: &Ledger) {
            let Self { read, proven, flushed } = self;
            form.number(ledger.rates.most(ledger.read - *read));
            form.flag(flushed.is_some());
            let ahead_of = |proven: u64| {
                let ahead = flushed.unwrap_or(ledger.written).saturating_sub(proven);
                ledger.rates.most(ahead)
            };
            form.number(ahead_of(*proven));
            // The baseline may start over, when these bytes are proven.
            if flushed.is_some() {
                form.number(ahead_of(ledger.proven));
                ledger.marks.iter().for_each(|(_, written)| form.number(ahead_of(*written)));
            }
        }
    }

    impl Rates {
        /// Caps a number of bytes: more bytes do not extend a deadline further.
        fn most(&self, bytes: u64) -> u64 {
            let Self { receive_min, send_min, max } = self;
            let seconds = max.as_secs() + 1;
            bytes.min((*receive_min).max(*send_min).saturating_mul(seconds))
        }
    }
}
