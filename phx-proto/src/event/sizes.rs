//! How much a socket holds.

/// How many live entries each table of a socket has, from
/// [`Socket::sizes`](crate::Socket::sizes).
///
/// For whoever has to know that nothing grows: with the same topics wanted and no push waiting,
/// every reconnect ends with the same sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// Topics that are wanted or being left.
    pub channels: usize,
    /// Interests in them.
    pub interests: usize,
    /// Pushes without an outcome.
    pub pushes: usize,
    /// The same pushes, counted channel by channel.
    pub pushes_of_channels: usize,
    /// Armed deadlines.
    pub deadlines: usize,
    /// Actions that are decided and not yet polled.
    pub actions: usize,
    /// Joins written on this connection and unanswered.
    pub unanswered_joins: usize,
    /// Joins that could be written.
    pub due_joins: usize,
    /// Pushes and leaves that could be written.
    pub due_frames: usize,
    /// Channels whose next push waits until fewer calls are in flight
    /// ([`Config::pushes_in_flight_max`](crate::Config::pushes_in_flight_max)), or for its turn after that.
    pub held_topics: usize,
}
