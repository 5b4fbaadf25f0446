//! Sizes of the tables of a socket.

/// The number of live entries in each table of a socket, from [`Socket::sizes`](crate::Socket::sizes).
///
/// Use it to check for leaks: with the same topics wanted and no push waiting, the sizes are the same after
/// every reconnect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// Topics that are wanted or being left.
    pub channels: usize,
    /// Interests in those topics.
    pub interests: usize,
    /// Pushes without an outcome.
    pub pushes: usize,
    /// Pushes without an outcome, summed over the channels. Equal to `pushes`.
    pub pushes_of_channels: usize,
    /// Armed deadlines.
    pub deadlines: usize,
    /// Actions that are decided and not polled yet.
    pub actions: usize,
    /// Joins written on this connection and not answered yet.
    pub unanswered_joins: usize,
    /// Joins that are ready to be written.
    pub due_joins: usize,
    /// Pushes and leaves that are ready to be written.
    pub due_frames: usize,
    /// Channels whose pushes are held because
    /// [`Config::pushes_in_flight_max`](crate::Config::pushes_in_flight_max) was reached.
    pub held_topics: usize,
}
