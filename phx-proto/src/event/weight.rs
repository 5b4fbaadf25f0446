//! The weight of signals and causes, for the queues that keep them; see [`crate::wire::weight`].

use crate::event::cause::{Cause, ChannelEnd, Interruption, PushOutcome, Reply};
use crate::event::refusal::Refusal;
use crate::event::signal::Signal;
use crate::wire::payload::Payload;
use crate::wire::weight::{ENTRY, Load, ReadBuffer, compact, weight};
use crate::wire::{DecodeError, DecodeProblem};

/// The load of a signal of which there may be many: as it came, it keeps a read buffer alive.
pub(crate) fn signal_load(signal: &Signal, read_buffer: &ReadBuffer) -> Load {
    match signal {
        Signal::Message { event, payload, .. } => {
            read_buffer.load(weight(event.as_bytes().len(), payload))
        }
        Signal::PushEnded { outcome: PushOutcome::Reply(reply), .. } => {
            read_buffer.load(weight(reply.status.as_bytes().len(), &reply.response))
        }
        Signal::ProtocolError { error } => Load::own(ENTRY.saturating_add(error_bytes(error))),
        other => Load::own(ENTRY.saturating_add(state_bytes(other))),
    }
}

/// The bytes of a signal beside its kind and its topic: its payload, its
/// cause. Zero for those that have neither.
pub(crate) fn state_bytes(signal: &Signal) -> usize {
    match signal {
        Signal::Joined { response, .. } | Signal::Resumed { response, .. } => response.held_len(),
        Signal::JoinRejected { rejection, .. } => rejection.response.held_len(),
        Signal::Errored { payload, .. } => payload.held_len(),
        Signal::Disconnected { cause, .. } | Signal::GaveUp { cause } => cause_bytes(cause),
        Signal::Interrupted { cause, .. } => interruption_weight(cause),
        Signal::ChannelClosed { cause, .. } => match cause {
            ChannelEnd::Rejected(rejection) => rejection.response.held_len(),
            ChannelEnd::InvalidParams { message } => message.len(),
            ChannelEnd::GaveUp(cause) => cause_bytes(cause),
            ChannelEnd::ClosedByServer | ChannelEnd::Left | ChannelEnd::Disconnected => 0,
        },
        Signal::Connecting { .. }
        | Signal::Connected { .. }
        | Signal::Closed
        | Signal::JoinTimedOut { .. }
        | Signal::Left { .. }
        | Signal::Message { .. }
        | Signal::PushEnded { .. }
        | Signal::HeartbeatAcked { .. }
        | Signal::ProtocolError { .. }
        | Signal::Warning(_) => 0,
    }
}

/// The same signal without what its slices keep alive. Those that hold no slice are cloned.
pub(crate) fn compact_signal(signal: &Signal) -> Signal {
    let alone = |payload: &Payload| payload.clone().into_compact();
    match signal.clone() {
        Signal::Message { topic, event, payload } => {
            let (event, payload) = compact(&event, &payload);
            Signal::Message { topic, event, payload }
        }
        Signal::PushEnded { id, topic, outcome: PushOutcome::Reply(reply) } => {
            let (status, response) = compact(&reply.status, &reply.response);
            let outcome = PushOutcome::Reply(Reply { status, response });
            Signal::PushEnded { id, topic, outcome }
        }
        Signal::Errored { topic, payload } => Signal::Errored { topic, payload: alone(&payload) },
        Signal::JoinRejected { topic, mut rejection, last } => {
            rejection.response = alone(&rejection.response);
            Signal::JoinRejected { topic, rejection, last }
        }
        Signal::ChannelClosed { topic, cause: ChannelEnd::Rejected(mut rejection) } => {
            rejection.response = alone(&rejection.response);
            Signal::ChannelClosed { topic, cause: ChannelEnd::Rejected(rejection) }
        }
        other => other,
    }
}

/// The bytes of an interruption.
pub(crate) fn interruption_weight(interruption: &Interruption) -> usize {
    match interruption {
        Interruption::Disconnected(cause) => cause_bytes(cause),
        Interruption::Crashed | Interruption::Unmatched | Interruption::Resync => 0,
    }
}

fn cause_bytes(cause: &Cause) -> usize {
    match cause {
        Cause::RemoteClose { reason: text, .. }
        | Cause::TransportLost { message: text }
        | Cause::Dial { message: text, .. }
        | Cause::Tls { message: text, .. }
        | Cause::Unsupported { message: text }
        | Cause::CredentialsFailed { message: text }
        | Cause::CredentialsGaveUp { reason: text } => text.len(),
        Cause::ProxyRefused(refusal) | Cause::Refused(refusal) => refusal_bytes(refusal),
        Cause::JoinStalled { topic } => topic.len(),
        Cause::MessageTooLarge { .. }
        | Cause::ConnectTimeout
        | Cause::SocksRefused(_)
        | Cause::CredentialsUnchanged
        | Cause::HeartbeatTimeout
        | Cause::WriteStalled
        | Cause::Superseded
        | Cause::LocalDisconnect
        | Cause::DriverPanicked => 0,
    }
}

/// The bytes of a refusal: its headers, their entries, and what is kept of its body.
fn refusal_bytes(refusal: &Refusal) -> usize {
    let entry = size_of::<(String, String)>();
    let headers = refusal.headers().iter();
    headers.map(|(name, value)| entry + name.len() + value.len()).sum::<usize>()
        + refusal.body().len()
}

fn error_bytes(error: &DecodeError) -> usize {
    let message = match &error.problem {
        DecodeProblem::Payload { message } | DecodeProblem::Other { message } => message.len(),
        DecodeProblem::Expected { .. }
        | DecodeProblem::NotUtf8 { .. }
        | DecodeProblem::Truncated { .. }
        | DecodeProblem::UnknownKind { .. } => 0,
    };
    message + error.evidence.as_bytes().len()
}
