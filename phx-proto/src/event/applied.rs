//! What an applied input returns.

use crate::event::action::Action;
use crate::event::error::{
    CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted, PushError,
};
use crate::id::{InterestId, PushId};

/// What [`Socket::apply`](crate::Socket::apply) returns: the result of the method that the
/// [`Input`](crate::Input) stands for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "it may be a refusal, or a frame to write"]
pub enum Applied {
    /// The method returns nothing.
    Done,
    /// Of [`Input::ConnectNow`](crate::Input::ConnectNow).
    ConnectNow(Result<(), NotRetrying>),
    /// Of [`Input::Probe`](crate::Input::Probe).
    Probe(Result<(), NotOpen>),
    /// Of [`Input::Join`](crate::Input::Join).
    Join(Result<InterestId, JoinError>),
    /// Of [`Input::Attach`](crate::Input::Attach).
    Attach(Result<InterestId, NotWanted>),
    /// Of [`Input::Release`](crate::Input::Release).
    Release(Released),
    /// Of [`Input::Leave`](crate::Input::Leave).
    Leave(Result<(), NotWanted>),
    /// Of [`Input::Rejoin`](crate::Input::Rejoin).
    Rejoin(Result<(), NotWanted>),
    /// Of [`Input::SetJoinParams`](crate::Input::SetJoinParams).
    SetJoinParams(Result<(), JoinError>),
    /// Of [`Input::SupplyJoin`](crate::Input::SupplyJoin).
    SupplyJoin(Supplied),
    /// Of [`Input::Push`](crate::Input::Push).
    Push(Result<PushId, PushError>),
    /// Of [`Input::CancelPush`](crate::Input::CancelPush): whether there was one to withdraw.
    CancelPush(bool),
    /// Of [`Input::SetCredentials`](crate::Input::SetCredentials).
    SetCredentials(Result<(), CredentialsError>),
}

/// What became of a released interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Released {
    /// Others still want the topic: nothing is sent.
    Detached,
    /// It was the last one: the topic is being left, and `Left` follows.
    Leaving,
    /// The topic had ended before.
    Gone,
}

/// What became of supplied join parameters.
///
/// Exhaustive on purpose, as [`Action`] is: the compiler of an embedder reports a new variant.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it may be a frame to write"]
pub enum Supplied {
    /// An [`Action::Join`]: write its frame.
    Join(Action),
    /// The parameters cannot be sent, or their function panicked: the channel has ended, and
    /// [`Signal::ChannelClosed`](crate::Signal::ChannelClosed) follows.
    Ended,
    /// Another step is next by now. Nothing has changed.
    Stale,
}
