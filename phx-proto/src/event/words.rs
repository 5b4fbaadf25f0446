//! Actions in words, one line each: what the traces of worlds and of recordings are made of.
//!
//! Nothing of a payload is in them but the start of a frame, and nothing that depends on the
//! machine.

use core::fmt;
use core::time::Duration;

use crate::event::action::Action;
use crate::event::cause::{Cause, ChannelEnd, Interruption, PushOutcome, RejoinCause};
use crate::event::signal::Signal;
use crate::wire::Frame;

pub(crate) fn write_action(f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::Connect { attempt, .. } => write!(f, "Connect (attempt {attempt})"),
        Action::Send { frame, .. } | Action::Join { frame, .. } => {
            write!(f, "-> {}", Shown(frame))
        }
        Action::Close { code, .. } => write!(f, "Close {code}"),
        Action::Abort { .. } => f.write_str("Abort"),
        Action::ReconnectAfter { delay, attempt, cause } => {
            let cause = in_words(cause);
            write!(f, "ReconnectAfter {} (attempt {attempt}, {cause})", Millis(*delay))
        }
        Action::RejoinAfter { topic, delay, attempt, cause } => {
            let cause = match cause {
                RejoinCause::Crashed => "crashed",
                RejoinCause::JoinCrashed => "join crashed",
                RejoinCause::Resync => "resync",
                RejoinCause::JoinUnanswered => "join unanswered",
                RejoinCause::Rejected(_) => "rejected",
            };
            write!(f, "RejoinAfter {topic} {} (attempt {attempt}, {cause})", Millis(*delay))
        }
        Action::Signal(signal) => write_signal(f, signal),
    }
}

fn write_signal(f: &mut fmt::Formatter<'_>, signal: &Signal) -> fmt::Result {
    match signal {
        Signal::Connecting { attempt, .. } => write!(f, "Connecting (attempt {attempt})"),
        Signal::Connected { .. } => f.write_str("Connected"),
        Signal::Disconnected { cause, .. } => write!(f, "Disconnected ({})", in_words(cause)),
        Signal::GaveUp { cause } => write!(f, "GaveUp ({})", in_words(cause)),
        Signal::Closed => f.write_str("Closed"),
        Signal::Joined { topic, .. } => write!(f, "Joined {topic}"),
        Signal::Resumed { topic, .. } => write!(f, "Resumed {topic}"),
        Signal::JoinRejected { topic, rejection, last } => {
            let last = if *last { ", last" } else { "" };
            write!(f, "JoinRejected {topic} ({:?}{last})", rejection.kind)
        }
        Signal::JoinTimedOut { topic } => write!(f, "JoinTimedOut {topic}"),
        Signal::Errored { topic, .. } => write!(f, "Errored {topic}"),
        Signal::Interrupted { topic, cause } => {
            write!(f, "Interrupted {topic} ")?;
            match cause {
                Interruption::Disconnected(cause) => write!(f, "({})", in_words(cause)),
                other => write!(f, "({other:?})"),
            }
        }
        Signal::Left { topic, outcome } => write!(f, "Left {topic} ({outcome:?})"),
        Signal::ChannelClosed { topic, cause } => {
            write!(f, "ChannelClosed {topic} ")?;
            match cause {
                ChannelEnd::Rejected(rejection) => write!(f, "(Rejected, {:?})", rejection.kind),
                ChannelEnd::GaveUp(cause) => write!(f, "(GaveUp, {})", in_words(cause)),
                other => write!(f, "({other:?})"),
            }
        }
        Signal::Message { topic, event, .. } => write!(f, "Message {topic} {event}"),
        Signal::PushEnded { id, topic, outcome } => {
            write!(f, "PushEnded {id:?} {topic} ")?;
            match outcome {
                PushOutcome::Reply(reply) => write!(f, "(Reply {})", reply.status),
                other => write!(f, "({other:?})"),
            }
        }
        Signal::HeartbeatAcked { rtt } => write!(f, "HeartbeatAcked {}", Millis(*rtt)),
        Signal::ProtocolError { error } => write!(f, "ProtocolError {error}"),
        Signal::Warning(warning) => write!(f, "Warning {warning:?}"),
    }
}

/// `heartbeat timeout`, `remote close 1012`, `refused 503`.
fn in_words(cause: &Cause) -> String {
    let kind = cause.kind().name().replace('_', " ");
    match cause {
        Cause::RemoteClose { code: Some(code), .. } => format!("{kind} {code}"),
        Cause::Refused(refusal) => format!("{kind} {}", refusal.status()),
        Cause::JoinStalled { topic } => format!("{kind} {topic}"),
        _ => kind,
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

/// A frame on one line, cut short when it is long.
pub(crate) struct Shown<'a>(pub(crate) &'a Frame);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 160;
        let Frame::Text(bytes) = self.0 else {
            return write!(f, "binary, {} bytes", self.0.len());
        };
        let text = String::from_utf8_lossy(bytes);
        let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        line.take(MOST).try_for_each(|c| fmt::Write::write_char(f, c))?;
        if text.chars().count() > MOST {
            write!(f, "… {} bytes", bytes.len())?;
        }
        Ok(())
    }
}
