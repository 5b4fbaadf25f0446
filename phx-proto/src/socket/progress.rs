//! A ledger of the bytes that a connection has moved, and the time that they buy.
//!
//! A heartbeat's reply queues behind whatever is on its way already, and so does the heartbeat
//! itself. On a slow link that takes longer than `heartbeat_timeout`, although nothing is wrong. So
//! bytes extend a deadline, at a least rate:
//!
//! ```text
//!   deadline = due + timeout + min(progress_max,   bytes read since due            / receive_rate_min
//!                                                + bytes written ahead, not proven / send_rate_min)
//! ```
//!
//! An answered ref proves that the server has received everything that was written before it. What
//! was written but not proven when the heartbeat fell due lies ahead of it, and so does what the
//! transport writes until the heartbeat itself is flushed. What is written after that does not delay
//! it, and buys nothing: a connection whose incoming direction is dead is not kept by what it sends.
//!
//! ```text
//!   written   ├────── proven ──────┼──── ahead of the heartbeat ────┼── after it ──▶
//!                                  ▲ when it fell due               ▲ when it was flushed
//! ```
//!
//! The counts are the transport's, below TLS, and as fresh as the last report. A stale report makes a
//! deadline later, never earlier.
//!
//! The value lives and dies with one connection.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::Config;
use crate::event::input::Progress;
use crate::id::Ref;

/// How many marks are kept. Beyond that every second one is dropped, so that an answer proves fewer
/// bytes received than it could.
const MARKS_MAX: usize = 64;

/// The bytes of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    rates: Rates,
    read: u64,
    written: u64,
    /// How many of the bytes written the server has certainly received.
    proven: u64,
    /// The first ref that was minted after so many bytes were written, oldest first.
    marks: VecDeque<(Ref, u64)>,
}

/// The options that turn bytes into time.
#[derive(Clone, Copy, Debug)]
struct Rates {
    receive_min: u64,
    send_min: u64,
    max: Duration,
}

/// The counts at the time from which an answer is awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    read: u64,
    proven: u64,
    /// What was written when the question was flushed.
    flushed: Option<u64>,
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
            marks: VecDeque::new(),
        }
    }

    /// Takes the totals of a report. `next_ref` is the next ref that will be minted.
    pub(crate) fn report(&mut self, progress: Progress, next_ref: Ref) {
        self.read = self.read.max(progress.read);
        if progress.written <= self.written {
            return;
        }
        self.written = progress.written;
        match self.marks.back_mut() {
            // No frame since: the mark proves more than it did.
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

    /// The server has answered a frame with this ref, so it received everything before it.
    #[inline]
    pub(crate) fn answered(&mut self, msg_ref: Ref) {
        while let Some((at, written)) = self.marks.front() {
            if *at > msg_ref {
                break;
            }
            self.proven = *written;
            self.marks.pop_front();
        }
    }

    /// Frees the memory of an empty list of marks.
    pub(crate) fn shrink(&mut self) {
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
    }

    /// The counts as they are now, for a deadline that starts now.
    pub(crate) const fn baseline(&self) -> Baseline {
        Baseline { read: self.read, proven: self.proven, flushed: None }
    }

    /// The question has left the transport: what is written from now on does not delay it.
    pub(crate) fn flush(&self, baseline: &mut Baseline) {
        baseline.flushed.get_or_insert(self.written);
    }

    /// How much time the bytes since a baseline buy.
    pub(crate) fn bought(&self, since: &Baseline) -> Duration {
        let read = self.read.saturating_sub(since.read);
        let ahead = since.flushed.unwrap_or(self.written).saturating_sub(since.proven);
        let time = at_rate(read, self.rates.receive_min)
            .saturating_add(at_rate(ahead, self.rates.send_min));
        time.min(self.rates.max)
    }

    /// How many bytes have been written.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// How much time the bytes written since `written` buy a transport that takes no frame.
    pub(crate) fn bought_by_writing(&self, written: u64) -> Duration {
        at_rate(self.written.saturating_sub(written), self.rates.send_min).min(self.rates.max)
    }
}

/// How long so many bytes take at a rate. At a rate of zero they count for nothing.
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
        Progress { read, written, flushed: false }
    }

    #[test]
    fn bytes_buy_time_at_their_rates() {
        let mut ledger = ledger();
        ledger.report(progress(500, 20), Ref(1));
        let baseline = ledger.baseline();
        // 20 bytes are ahead already: nothing proves them.
        assert_eq!(ledger.bought(&baseline), Duration::from_millis(200));
        ledger.report(progress(2_500, 120), Ref(2));
        assert_eq!(ledger.bought(&baseline), Duration::from_millis(2_000 + 1_200));
        ledger.report(progress(1_000_000, 120), Ref(2));
        assert_eq!(ledger.bought(&baseline), Duration::from_secs(60));
    }

    #[test]
    fn totals_never_go_back() {
        let mut ledger = ledger();
        let baseline = ledger.baseline();
        ledger.report(progress(1_000, 100), Ref(1));
        ledger.report(progress(0, 0), Ref(2));
        assert_eq!(ledger.bought(&baseline), Duration::from_secs(2));
    }

    #[test]
    fn answered_ref_proves_what_was_before_it() {
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
    fn proof_takes_nothing_from_an_earlier_baseline() {
        let mut ledger = ledger();
        ledger.report(progress(0, 100), Ref(5));
        let baseline = ledger.baseline();
        ledger.answered(Ref(5));
        assert_eq!(ledger.bought(&baseline), Duration::from_secs(1));
        assert_eq!(ledger.bought(&ledger.baseline()), Duration::ZERO);
    }

    #[test]
    fn bytes_after_the_flush_buy_nothing() {
        let mut ledger = ledger();
        let mut baseline = ledger.baseline();
        ledger.report(progress(0, 100), Ref(5));
        ledger.flush(&mut baseline);
        ledger.report(progress(0, 900), Ref(6));
        ledger.flush(&mut baseline);
        assert_eq!(ledger.bought(&baseline), Duration::from_secs(1));
    }

    #[test]
    fn marks_are_bounded_and_prove_less_rather_than_more() {
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
    fn rate_of_zero_buys_nothing() {
        assert_eq!(at_rate(u64::MAX, 0), Duration::ZERO);
        assert_eq!(at_rate(u64::MAX, 1), Duration::from_nanos(u64::MAX));
        assert_eq!(at_rate(1, 3), Duration::from_nanos(333_333_333));
    }
}
