//! The results of inputs.

use crate::event::action::Action;
use crate::event::error::{
    CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted, PushError,
};
use crate::id::{InterestId, PushId};

/// The result of [`Socket::apply`](crate::Socket::apply), which is the result of the method that the
/// [`Input`](crate::Input) stands for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "it may be an error, or a frame to write"]
pub enum Applied {
    /// The method returns nothing.
    Done,
    /// The result of [`Input::ConnectNow`](crate::Input::ConnectNow).
    ConnectNow(Result<(), NotRetrying>),
    /// The result of [`Input::Probe`](crate::Input::Probe).
    Probe(Result<(), NotOpen>),
    /// The result of [`Input::Join`](crate::Input::Join).
    Join(Result<InterestId, JoinError>),
    /// The result of [`Input::Attach`](crate::Input::Attach).
    Attach(Result<InterestId, NotWanted>),
    /// The result of [`Input::Release`](crate::Input::Release).
    Release(Released),
    /// The result of [`Input::Leave`](crate::Input::Leave).
    Leave(Result<(), NotWanted>),
    /// The result of [`Input::Rejoin`](crate::Input::Rejoin).
    Rejoin(Result<(), NotWanted>),
    /// The result of [`Input::SetJoinParams`](crate::Input::SetJoinParams).
    SetJoinParams(Result<(), JoinError>),
    /// The result of [`Input::SupplyJoin`](crate::Input::SupplyJoin).
    SupplyJoin(Supplied),
    /// The result of [`Input::Push`](crate::Input::Push).
    Push(Result<PushId, PushError>),
    /// The result of [`Input::CancelPush`](crate::Input::CancelPush): whether a push was cancelled.
    CancelPush(bool),
    /// The result of [`Input::SetCredentials`](crate::Input::SetCredentials).
    SetCredentials(Result<(), CredentialsError>),
}

/// The effect of releasing an interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Released {
    /// The topic has other interests, so nothing is sent.
    Detached,
    /// It was the last interest. The topic is being left, and `Left` follows.
    Leaving,
    /// The topic had ended before.
    Gone,
}

/// The effect of supplying join parameters.
///
/// The enum is exhaustive on purpose, like [`Action`], so that the compiler reports a new variant to
/// the author of a driver.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it may be a frame to write"]
pub enum Supplied {
    /// An [`Action::Join`], whose frame the driver must write.
    Join(Action),
    /// The parameters cannot be sent, or their function panicked. The channel has ended, and
    /// [`Signal::ChannelClosed`](crate::Signal::ChannelClosed) follows.
    Ended,
    /// The ticket is out of date: the socket would not issue it now. The socket has not changed.
    Stale,
}
