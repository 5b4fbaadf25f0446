//! What happens, as events of the `tracing` crate.
//!
//! The target is `phx`, and the span is the one in which the client was made, so that a program
//! with many connections can tell them apart. Levels: `info` for what an operator expects to see,
//! `warn` for what somebody may have to do something about, `debug` and `trace` for the rest. There
//! is no `error`: nothing in here is a bug of the program. No payload is written.
//!
//! A subscriber is code of the application, so it is called after the lock is gone.

use core::time::Duration;
use std::collections::BTreeMap;

use tracing::{Span, debug, info, trace, warn};

use crate::event::cause::{NextStep, PushOutcome};
use crate::event::signal::Signal;
use crate::time::Time;
use crate::wire::DecodeProblem;

/// What was signalled under the lock and is told after it.
#[derive(Debug)]
pub(super) struct Trace {
    signals: Vec<Signal>,
    bad_frames: BTreeMap<&'static str, BadFrames>,
    late_replies: u64,
    told_late: u64,
}

/// How often bad frames of one kind are told: the first at once, then a count.
const BAD_FRAMES_EVERY: Duration = Duration::from_secs(60);

/// Bad frames of one kind.
#[derive(Debug, Default)]
struct BadFrames {
    /// How many were not told yet, and what was wrong with the last of them.
    untold: u64,
    problem: String,
    /// When some were last told.
    told: Option<Time>,
}

impl Trace {
    pub(super) const fn new() -> Self {
        Self { signals: Vec::new(), bad_frames: BTreeMap::new(), late_replies: 0, told_late: 0 }
    }

    pub(super) fn record(&mut self, signal: &Signal) {
        if let Signal::ProtocolError { error } = signal {
            let bad = self.bad_frames.entry(kind(&error.problem)).or_default();
            bad.untold += 1;
            bad.problem = error.problem.to_string();
        } else {
            self.signals.push(signal.clone());
        }
    }

    pub(super) const fn late_replies(&mut self, count: u64) {
        self.late_replies = count;
    }

    /// Takes what there is to tell.
    pub(super) fn take(&mut self, now: Time) -> Self {
        let told_late = core::mem::replace(&mut self.told_late, self.late_replies);
        let mut bad_frames = BTreeMap::new();
        for (kind, bad) in &mut self.bad_frames {
            let is_due = |told: Time| now.since(told) >= BAD_FRAMES_EVERY;
            if bad.untold > 0 && bad.told.is_none_or(is_due) {
                let told = BadFrames { told: Some(now), ..BadFrames::default() };
                bad_frames.insert(*kind, core::mem::replace(bad, told));
            }
        }
        Self {
            signals: core::mem::take(&mut self.signals),
            bad_frames,
            late_replies: self.late_replies,
            told_late,
        }
    }

    pub(super) fn tell(self, span: &Span) {
        let _entered = span.enter();
        self.signals.iter().for_each(tell);
        for BadFrames { untold, problem, .. } in self.bad_frames.values() {
            warn!(target: "phx", problem, count = untold, "frames that are not the protocol");
        }
        if self.late_replies > self.told_late {
            debug!(target: "phx", total = self.late_replies, "a reply to nothing that waits");
        }
    }
}

fn tell(signal: &Signal) {
    match signal {
        Signal::Connecting { attempt, .. } => debug!(target: "phx", attempt, "connecting"),
        Signal::Connected { .. } => info!(target: "phx", "connected"),
        Signal::Disconnected { cause, next: NextStep::Retry { delay, attempt }, .. } => {
            warn!(target: "phx", %cause, ?delay, attempt, "disconnected, trying again");
        }
        Signal::Disconnected { cause, .. } => info!(target: "phx", %cause, "disconnected"),
        Signal::GaveUp { cause } => warn!(target: "phx", %cause, "gave up"),
        Signal::Closed => info!(target: "phx", "closed"),
        Signal::Joined { topic, .. } => info!(target: "phx", %topic, "joined"),
        Signal::Resumed { topic, .. } => info!(target: "phx", %topic, "joined again"),
        Signal::JoinRejected { topic, rejection, last } => {
            warn!(target: "phx", %topic, kind = ?rejection.kind, last, "join rejected");
        }
        Signal::JoinTimedOut { topic } => warn!(target: "phx", %topic, "join unanswered"),
        Signal::Errored { topic, .. } => warn!(target: "phx", %topic, "channel crashed"),
        Signal::Interrupted { topic, .. } => debug!(target: "phx", %topic, "interrupted"),
        Signal::Left { topic, outcome } => debug!(target: "phx", %topic, ?outcome, "left"),
        Signal::ChannelClosed { topic, .. } => info!(target: "phx", %topic, "channel closed"),
        Signal::Message { topic, event, payload } => {
            trace!(target: "phx", %topic, event = event.as_str(), bytes = payload.len(), "message");
        }
        Signal::PushEnded { id, topic, outcome } => {
            trace!(target: "phx", %id, %topic, outcome = outcome_name(outcome), "push ended");
        }
        Signal::HeartbeatAcked { rtt } => trace!(target: "phx", ?rtt, "heartbeat answered"),
        // Counted by kind.
        Signal::ProtocolError { .. } => {}
        Signal::Warning(warning) => warn!(target: "phx", ?warning, "warning"),
    }
}

/// What is wrong with a frame, without what differs from one frame to the next.
const fn kind(problem: &DecodeProblem) -> &'static str {
    match problem {
        DecodeProblem::Expected { expected } => expected,
        DecodeProblem::NotUtf8 { .. } => "not UTF-8",
        DecodeProblem::Truncated { .. } => "truncated",
        DecodeProblem::UnknownKind { .. } => "unknown kind",
        DecodeProblem::Payload { .. } => "payload",
        DecodeProblem::Other { .. } => "other",
    }
}

const fn outcome_name(outcome: &PushOutcome) -> &'static str {
    match outcome {
        PushOutcome::Reply(_) => "reply",
        PushOutcome::Written => "written",
        PushOutcome::TimedOut => "timed out",
        PushOutcome::Unknown(_) => "unknown",
        PushOutcome::NotSent(_) => "not sent",
        PushOutcome::Cancelled => "cancelled",
    }
}
