//! Signals as events of the `tracing` crate.
//!
//! The target is `phx`, and the span is the one in which the client was made. Every event has two
//! common fields. `connection` is the name of the connection, if it has one. `address` is the
//! configured address without user, password and the values of its query. The levels are `info` for
//! expected events, `warn` for events that may need an operator, and `debug` and `trace` for the
//! rest. The level `error` is not used, because no signal reports a bug of the program. No payload
//! is logged.
//!
//! A `tracing` subscriber is code of the application, so it is called after the lock is released.

use core::time::Duration;
use std::collections::BTreeMap;

use tracing::{Span, debug, info, trace, warn};

use crate::event::description::{About, Description, Level};
use crate::event::names::InWords;
use crate::event::signal::Signal;
use crate::time::Time;
use crate::wire::DecodeProblem;
use crate::wire::payload::Payload;

/// Signals that were recorded under the lock and are emitted after it is released.
#[derive(Debug)]
pub(super) struct Trace {
    signals: Vec<Signal>,
    bad_frames: BTreeMap<&'static str, BadFrames>,
    late_replies: u64,
    reported_late: u64,
}

/// The minimum time between reports of bad frames of one kind. The first is reported at once, later
/// ones as a count.
const BAD_FRAMES_EVERY: Duration = Duration::from_secs(60);

/// Bad frames of one kind.
#[derive(Debug, Default)]
struct BadFrames {
    /// The number of frames that were not reported yet.
    unreported: u64,
    problem: String,
    /// The time of the last report.
    reported_at: Option<Time>,
}

impl Trace {
    pub(super) const fn new() -> Self {
        Self { signals: Vec::new(), bad_frames: BTreeMap::new(), late_replies: 0, reported_late: 0 }
    }

    pub(super) fn record(&mut self, signal: &Signal) {
        if let Signal::ProtocolError { error } = signal {
            let bad = self.bad_frames.entry(kind(&error.problem)).or_default();
            bad.unreported += 1;
            bad.problem = error.problem.to_string();
        } else {
            self.signals.push(signal.clone());
        }
    }

    pub(super) const fn late_replies(&mut self, count: u64) {
        self.late_replies = count;
    }

    /// Takes the events to emit.
    pub(super) fn take(&mut self, now: Time) -> Self {
        let reported_late = core::mem::replace(&mut self.reported_late, self.late_replies);
        let mut bad_frames = BTreeMap::new();
        for (kind, bad) in &mut self.bad_frames {
            let is_due = |at: Time| now.since(at) >= BAD_FRAMES_EVERY;
            if bad.unreported > 0 && bad.reported_at.is_none_or(is_due) {
                let reported = BadFrames { reported_at: Some(now), ..BadFrames::default() };
                bad_frames.insert(*kind, core::mem::replace(bad, reported));
            }
        }
        Self {
            signals: core::mem::take(&mut self.signals),
            bad_frames,
            late_replies: self.late_replies,
            reported_late,
        }
    }

    pub(super) fn emit(self, span: &Span, connection: Option<&str>, address: &str) {
        let _entered = span.enter();
        self.signals.iter().for_each(|signal| emit(signal, connection, address));
        for BadFrames { unreported: count, problem, .. } in self.bad_frames.values() {
            warn!(
                target: "phx", connection, address, problem, count,
                "invalid frames"
            );
        }
        if self.late_replies > self.reported_late {
            let total = self.late_replies;
            debug!(target: "phx", total, connection, address, "late replies");
        }
    }
}

fn emit(signal: &Signal, connection: Option<&str>, address: &str) {
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
    // `tracing` needs the level as a constant at each call site, so there is one call for each
    // level.
    macro_rules! emit {
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
        Level::Trace => emit!(trace),
        Level::Debug => emit!(debug),
        Level::Info => emit!(info),
        Level::Warn => emit!(warn),
    }
}

/// The kind of a decoding problem, without the details of one frame.
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

    /// A subscriber that keeps every event as a line.
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

    /// Each signal emits one event, with its level, topic and cause, and without its payload.
    #[test]
    fn every_signal_is_an_event() {
        for signal in Signal::examples() {
            let lines = Lines::default();
            tracing::subscriber::with_default(lines.clone(), || {
                let mut trace = Trace::new();
                trace.record(&signal);
                trace.take(Time::ZERO).emit(&Span::none(), Some("backend"), "ws://host/");
            });
            let lines = lines.0.lock().unwrap().clone();
            let [(level, line)] = &lines[..] else { panic!("{signal}: {lines:?}") };
            let described = signal.describe();
            let expected = match described.level {
                Level::Trace => tracing::Level::TRACE,
                Level::Debug => tracing::Level::DEBUG,
                Level::Info => tracing::Level::INFO,
                Level::Warn => tracing::Level::WARN,
            };
            assert_eq!(*level, expected, "{line}");
            let name = match signal {
                Signal::ProtocolError { .. } => "invalid frames".to_owned(),
                _ => InWords(described.name).to_string(),
            };
            assert!(line.starts_with(&name), "{name}: {line}");
            assert_eq!(line.contains("topic=room:lobby"), described.topic.is_some(), "{line}");
            let explained = described.explanation.map(|explanation| explanation.to_string());
            assert!(explained.is_none_or(|words| line.contains(&words)), "{line}");
            assert!(described.reason.is_none_or(|reason| line.contains(reason)), "{line}");
            assert!(!line.contains("s3cret"), "{line}");
            assert!(line.contains("connection=\"backend\" address=\"ws://host/\""), "{line}");
        }
    }

    /// The page `events` of the manual lists every event, with its levels and its fields.
    #[test]
    #[cfg(feature = "service")]
    fn events_page_lists_every_event() {
        use std::collections::BTreeSet;

        use crate::event::cause::{
            Cause, ChannelEnd, Interruption, NextStep, PushOutcome, UnknownCause,
        };
        use crate::id::{ConnectionId, PushId};

        let topic = || "room:lobby".into();
        let (id, push) = (ConnectionId::from_u64(1), PushId::from_u64(1));
        let (cause, next) = (Cause::HeartbeatTimeout, NextStep::Stop);
        let lost = Interruption::Disconnected(cause.clone());
        let unusable = ChannelEnd::InvalidParams { message: "too large".into() };
        let unknown = PushOutcome::Unknown(UnknownCause::Left);
        let mut signals = Signal::examples();
        signals.extend([
            Signal::ConnectFailed { id, cause: cause.clone(), next },
            Signal::Disconnected { id, cause, next },
            Signal::Interrupted { topic: topic(), cause: lost },
            Signal::ChannelClosed { topic: topic(), cause: unusable },
            Signal::PushEnded { id: push, topic: topic(), outcome: unknown },
        ]);
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let mut trace = Trace::new();
            signals.iter().for_each(|signal| trace.record(signal));
            trace.late_replies(1);
            trace.take(Time::ZERO).emit(&Span::none(), Some("backend"), "ws://host/");
            let bus = crate::service::Bus::of(crate::service::Router::new());
            let _ = bus.subscribe_any(["jido.**", "acme.**"]).expect("patterns");
        });
        let mut emitted: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
        for (level, line) in &*lines.0.lock().unwrap() {
            let fields =
                line.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name);
            let message = line.split(' ').take_while(|word| !word.contains('='));
            let message = message.collect::<Vec<_>>().join(" ");
            let (levels, all) = emitted.entry(message).or_default();
            levels.insert(level.to_string().to_lowercase());
            all.extend(fields.map(str::to_owned));
        }
        for (message, (_, fields)) in &mut emitted {
            let is_of_connection = fields.remove("connection") && fields.remove("address");
            assert_eq!(is_of_connection, message != "pattern never matches", "{message}");
        }

        let page = include_str!("../manual/events.md");
        let (_, page) = page.split_once("# Log events").expect("the page has this part");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let listed = rows.map(|(message, cells)| {
            let (levels, fields) = cells.split_once('|').expect("two cells");
            let levels = levels
                .split([' ', ';', ','])
                .filter(|word| ["trace", "debug", "info", "warn"].contains(word));
            let fields = fields.split('`').skip(1).step_by(2);
            let cells = (levels.map(str::to_owned).collect(), fields.map(str::to_owned).collect());
            (message.to_owned(), cells)
        });
        assert_eq!(emitted, listed.collect());
    }
}
