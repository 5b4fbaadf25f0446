//! The outputs of a client to its application and its transport, as plain data. In the golden test,
//! the prediction from a recording and the client under test both produce them.

use std::time::Duration;

use phx_proto::event::{
    ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, Rejection, RejectionKind,
    RejoinCause, UnknownCause, Warning,
};
use phx_proto::{Action, Cause, Payload, PushId, PushOutcome, Signal};

use crate::reading::Data;

/// One signal, or one action that is not a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The signal `Connecting`: an attempt began.
    Connecting,
    /// The action `Connect`: the transport must dial.
    Dial,
    /// The socket is open.
    Connected,
    /// The server did not acknowledge the `auth_token`.
    AuthTokenNotAcknowledged,
    /// A connection ended for good, by the client's own `disconnect`.
    Disconnected,
    /// A connection ended, and an attempt follows.
    Lost(Ending, Delay),
    /// An attempt failed, and another follows.
    Failed(Ending, Delay),
    /// The action `ReconnectAfter`, which accompanies `Lost` and `Failed`.
    ReconnectAfter(Ending, Delay),
    /// The transport must send a close frame.
    Close(u16),
    /// The signal `Closed`, after which the client is idle.
    Closed,
    /// The channel was joined for the first time.
    Joined(String, Data),
    /// The channel was joined again.
    Resumed(String, Data),
    /// A join was refused for good.
    Rejected(String, &'static str, Data),
    /// A join was refused and is retried.
    Retried(String, &'static str, Data),
    /// The channel crashed (`phx_error`).
    Errored(String, Data),
    /// The channel is no longer joined, but still wanted.
    Interrupted(String, Gap),
    /// The client joins again after a delay, as this attempt.
    RejoinAfter(String, &'static str, u32, Delay),
    /// A leave ended.
    Left(String, &'static str),
    /// A channel ended.
    ChannelClosed(String, End),
    /// A message.
    Message(String, String, Data),
    /// The push with this index (from 0, in the order of the calls) ended.
    PushEnded(usize, String, Outcome),
    /// A heartbeat was answered after this many milliseconds.
    HeartbeatAcked(u64),
    /// An output that occurs in no recording.
    Other(String),
}

/// Why a connection or an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The server sent a close frame.
    CloseFrame(Option<u16>),
    /// TCP ended.
    Lost,
    /// The server answered the upgrade with an HTTP status, headers and a body.
    Refused(u16, Vec<(String, String)>, String),
    /// A cause that occurs in no recording.
    Other(String),
}

/// Why a channel is not joined any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Gap {
    /// The connection of the channel ended.
    Disconnected(Ending),
    /// The channel crashed (`phx_error`).
    Crashed,
    /// The application asked for a rejoin.
    Resync,
}

/// Why a channel ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The server closed the channel (`phx_close`).
    ByServer,
    /// The application left.
    Left,
    /// The join of the channel was refused, with this response.
    Rejected(Data),
    /// The application disconnected.
    Disconnected,
}

/// How a push ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The push was answered by a reply.
    Reply(String, Data),
    /// A cast was written.
    Written,
    /// The outcome of the push is unknown.
    Unknown(&'static str),
}

/// A delay: a range in the prediction, a single value in the client's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub Duration, pub Duration);

impl Delay {
    /// A range in milliseconds.
    #[must_use]
    pub const fn msec(min: u64, max: u64) -> Self {
        Self(Duration::from_millis(min), Duration::from_millis(max))
    }

    const fn exactly(delay: Duration) -> Self {
        Self(delay, delay)
    }

    fn allows(self, actual: Self) -> bool {
        self.0 <= actual.0 && actual.1 <= self.1
    }
}

impl Output {
    /// Whether the actual output matches this prediction.
    #[must_use]
    pub fn allows(&self, actual: &Self) -> bool {
        match (self, actual) {
            (Self::Lost(ending, delay), Self::Lost(actual, chosen))
            | (Self::Failed(ending, delay), Self::Failed(actual, chosen))
            | (Self::ReconnectAfter(ending, delay), Self::ReconnectAfter(actual, chosen)) => {
                ending == actual && delay.allows(*chosen)
            }
            (
                Self::RejoinAfter(topic, cause, attempt, delay),
                Self::RejoinAfter(other, because, nth, chosen),
            ) => topic == other && cause == because && attempt == nth && delay.allows(*chosen),
            (predicted, actual) => predicted == actual,
        }
    }

    /// An action of the client under test that is not a frame. `pushes` are its pushes in the
    /// order of the calls.
    #[must_use]
    pub fn of_action(action: &Action, pushes: &[PushId]) -> Self {
        match action {
            Action::Connect { attempt: 0, .. } => Self::Dial,
            Action::Close { code, .. } => Self::Close(*code),
            Action::ReconnectAfter { delay, attempt: 1, cause } => {
                Self::ReconnectAfter(ending(cause), Delay::exactly(*delay))
            }
            Action::RejoinAfter { topic, delay, attempt, cause } => {
                let cause = match cause {
                    RejoinCause::Crashed => "crashed",
                    RejoinCause::JoinCrashed => "join crashed",
                    RejoinCause::Resync => "resync",
                    _ => "other",
                };
                Self::RejoinAfter(topic.to_string(), cause, *attempt, Delay::exactly(*delay))
            }
            Action::Signal(signal) => Self::of_signal(signal, pushes),
            other => Self::Other(format!("{other:?}")),
        }
    }

    fn of_signal(signal: &Signal, pushes: &[PushId]) -> Self {
        match signal {
            Signal::Connecting { attempt: 0, .. } => Self::Connecting,
            Signal::Connected { .. } => Self::Connected,
            Signal::Warning(Warning::AuthTokenNotAcknowledged) => Self::AuthTokenNotAcknowledged,
            Signal::Disconnected {
                cause: Cause::LocalDisconnect, next: NextStep::Stop, ..
            } => Self::Disconnected,
            Signal::Disconnected { cause, next: NextStep::Retry { delay, attempt: 1 }, .. } => {
                Self::Lost(ending(cause), Delay::exactly(*delay))
            }
            Signal::ConnectFailed {
                cause, next: NextStep::Retry { delay, attempt: 1 }, ..
            } => Self::Failed(ending(cause), Delay::exactly(*delay)),
            Signal::Closed => Self::Closed,
            Signal::Joined { topic, response } => Self::Joined(topic.to_string(), data(response)),
            Signal::Resumed { topic, response } => Self::Resumed(topic.to_string(), data(response)),
            Signal::JoinRejected {
                topic,
                rejection: Rejection { kind: RejectionKind::JoinCrashed, response, .. },
                last: false,
            } => Self::Retried(topic.to_string(), "join crashed", data(response)),
            Signal::JoinRejected {
                topic,
                rejection: Rejection { kind, response, .. },
                last: true,
            } => {
                let kind = match kind {
                    RejectionKind::Application => "application",
                    RejectionKind::UnmatchedTopic => "unmatched topic",
                    RejectionKind::TooManyChannels => "too many channels",
                    _ => "other",
                };
                Self::Rejected(topic.to_string(), kind, data(response))
            }
            Signal::Errored { topic, payload } => Self::Errored(topic.to_string(), data(payload)),
            Signal::Interrupted { topic, cause } => {
                let gap = match cause {
                    Interruption::Disconnected(cause) => Gap::Disconnected(ending(cause)),
                    Interruption::Crashed => Gap::Crashed,
                    Interruption::Resync => Gap::Resync,
                    _ => return Self::Other(format!("{signal:?}")),
                };
                Self::Interrupted(topic.to_string(), gap)
            }
            Signal::Left { topic, outcome } => {
                let outcome = match outcome {
                    LeaveOutcome::Acked => "acked",
                    LeaveOutcome::TimedOut => "timed out",
                    LeaveOutcome::Offline => "offline",
                    _ => "otherwise",
                };
                Self::Left(topic.to_string(), outcome)
            }
            Signal::ChannelClosed { topic, cause } => {
                let end = match cause {
                    ChannelEnd::ClosedByServer => End::ByServer,
                    ChannelEnd::Left => End::Left,
                    ChannelEnd::Rejected(rejection) => End::Rejected(data(&rejection.response)),
                    ChannelEnd::Disconnected => End::Disconnected,
                    _ => return Self::Other(format!("{signal:?}")),
                };
                Self::ChannelClosed(topic.to_string(), end)
            }
            Signal::Message { topic, event, payload } => {
                Self::Message(topic.to_string(), event.to_string(), data(payload))
            }
            Signal::PushEnded { id, topic, outcome } => {
                let Some(number) = pushes.iter().position(|push| push == id) else {
                    return Self::Other(format!("unknown push: {signal:?}"));
                };
                Self::PushEnded(number, topic.to_string(), push_outcome(outcome))
            }
            Signal::HeartbeatAcked { rtt } => {
                Self::HeartbeatAcked(u64::try_from(rtt.as_millis()).expect("a short time"))
            }
            other => Self::Other(format!("{other:?}")),
        }
    }
}

fn push_outcome(outcome: &PushOutcome) -> Outcome {
    match outcome {
        PushOutcome::Reply(reply) => {
            Outcome::Reply(reply.status.to_string(), data(&reply.response))
        }
        PushOutcome::Written => Outcome::Written,
        PushOutcome::Unknown(cause) => Outcome::Unknown(match cause {
            UnknownCause::Disconnected => "disconnected",
            UnknownCause::ChannelCrashed => "crashed",
            UnknownCause::ChannelClosed => "closed",
            UnknownCause::ChannelReplaced => "replaced",
            UnknownCause::Left => "left",
            _ => "other",
        }),
        PushOutcome::NotSent(NotSentCause::Disconnected) => Outcome::Unknown("never sent"),
        _ => Outcome::Unknown("an outcome that occurs in no recording"),
    }
}

fn ending(cause: &Cause) -> Ending {
    match cause {
        Cause::RemoteClose { code, reason } if reason.is_empty() => Ending::CloseFrame(*code),
        Cause::TransportLost { .. } => Ending::Lost,
        Cause::Refused(refusal) => Ending::Refused(
            refusal.status(),
            refusal.headers().to_vec(),
            refusal.body_text().into_owned(),
        ),
        other => Ending::Other(format!("{other:?}")),
    }
}

fn data(payload: &Payload) -> Data {
    if payload.is_binary() {
        Data::Bytes(payload.as_bytes().to_vec())
    } else {
        Data::Json(payload.get().expect("UTF-8").to_owned())
    }
}
