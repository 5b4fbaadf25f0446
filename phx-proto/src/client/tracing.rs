//! What happens, as events of the `tracing` crate.
//!
//! The target is `phx`, and the span is the one in which the client was made. Every event has the name of
//! the connection, if it was given one (`connection`), and the address of its configuration without
//! user, password and the values of its query (`address`). Levels: `info` for what an operator expects to see,
//! `warn` for what may need an operator, `debug` and `trace` for the rest. There
//! is no `error`: nothing in here is a bug of the program. No payload is written.
//!
//! A subscriber is code of the application, so it is called after the lock is gone.

use core::time::Duration;
use std::collections::BTreeMap;

use tracing::{Span, debug, info, trace, warn};

use crate::event::description::{About, Description, Level};
use crate::event::names::InWords;
use crate::event::signal::Signal;
use crate::time::Time;
use crate::wire::DecodeProblem;
use crate::wire::payload::Payload;

/// Signals that were recorded under the lock and are written after it.
#[derive(Debug)]
pub(super) struct Trace {
    signals: Vec<Signal>,
    bad_frames: BTreeMap<&'static str, BadFrames>,
    late_replies: u64,
    told_late: u64,
}

/// How often bad frames of one kind are reported: the first at once, then a count.
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

    pub(super) fn tell(self, span: &Span, connection: Option<&str>, address: &str) {
        let _entered = span.enter();
        self.signals.iter().for_each(|signal| tell(signal, connection, address));
        for BadFrames { untold: count, problem, .. } in self.bad_frames.values() {
            warn!(
                target: "phx", connection, address, problem, count,
                "frames that are not the protocol"
            );
        }
        if self.late_replies > self.told_late {
            let total = self.late_replies;
            debug!(target: "phx", total, connection, address, "a reply to nothing that waits");
        }
    }
}

fn tell(signal: &Signal, connection: Option<&str>, address: &str) {
    let Description {
        about,
        level,
        name,
        kind,
        topic,
        event,
        status,
        payload,
        outcome,
        reason,
        explanation,
        attempt,
        delay,
        last,
        push,
        rtt,
    } = signal.describe();
    // A level is a constant of the place where `tracing` is called.
    macro_rules! tell {
        ($level:ident) => {
            $level!(
                target: "phx",
                topic = topic.map(display),
                event = event.map(|event| event.as_str()),
                id = push.map(display),
                cause = explanation.map(display),
                reason,
                outcome = outcome.or((about == About::Push).then_some(kind)),
                status = status.map(|status| status.as_str()),
                attempt,
                delay = delay.map(debug),
                last,
                bytes = payload.map(Payload::len),
                rtt = rtt.map(debug),
                connection,
                address,
                "{}", InWords(name)
            )
        };
    }
    match level {
        Level::Trace => tell!(trace),
        Level::Debug => tell!(debug),
        Level::Info => tell!(info),
        Level::Warn => tell!(warn),
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

#[cfg(test)]
mod tests {
    use core::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Keeps every event as a line.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(tracing::Level, String)>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn core::fmt::Debug) {
            let _ = match field.name() {
                "message" => write!(self.0, "{value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "phx"
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().unwrap().push((*event.metadata().level(), line.0));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// One event for each signal, with its level, topic and cause, and without a payload.
    #[test]
    fn every_signal_is_an_event() {
        for signal in Signal::examples() {
            let lines = Lines::default();
            tracing::subscriber::with_default(lines.clone(), || {
                let mut trace = Trace::new();
                trace.record(&signal);
                trace.take(Time::ZERO).tell(&Span::none(), Some("backend"), "ws://host/");
            });
            let lines = lines.0.lock().unwrap().clone();
            let [(level, line)] = &lines[..] else { panic!("{signal}: {lines:?}") };
            let told = signal.describe();
            let expected = match told.level {
                Level::Trace => tracing::Level::TRACE,
                Level::Debug => tracing::Level::DEBUG,
                Level::Info => tracing::Level::INFO,
                Level::Warn => tracing::Level::WARN,
            };
            assert_eq!(*level, expected, "{line}");
            let name = match signal {
                Signal::ProtocolError { .. } => "frames that are not the protocol".to_owned(),
                _ => InWords(told.name).to_string(),
            };
            assert!(line.starts_with(&name), "{name}: {line}");
            assert_eq!(line.contains("topic=room:lobby"), told.topic.is_some(), "{line}");
            let explained = told.explanation.map(|explanation| explanation.to_string());
            assert!(explained.is_none_or(|words| line.contains(&words)), "{line}");
            assert!(told.reason.is_none_or(|reason| line.contains(reason)), "{line}");
            assert!(!line.contains("s3cret"), "{line}");
            assert!(line.contains("connection=\"backend\" address=\"ws://host/\""), "{line}");
        }
    }
}
