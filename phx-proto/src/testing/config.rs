//! What a test server can be told before it starts.

use core::time::Duration;

/// The Phoenix version whose behaviour is imitated.
///
/// They differ in which join_refs a push or leave may carry, in the payload of `phx_error`, in
/// the close code of a `disconnect`, and in whether `auth_token` exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// Phoenix 1.7.24: pushes with any join_ref are delivered; no auth token.
    V1_7_24,
    /// Phoenix 1.8.9: a push without a join_ref is dropped in silence.
    V1_8_9,
    /// Phoenix 1.8.12.
    #[default]
    V1_8_12,
}

/// The settings of a [`Server`](super::Server).
///
/// The defaults: Phoenix 1.8.12, an idle timeout of 60 seconds, 100 channels for each socket, seed 0, and no
/// limit on the size of a frame. A real server has such a limit, 10,000,000 bytes or less by default
/// (see [`protocol`](crate::manual::protocol#limits)); set [`max_frame_bytes`](Self::max_frame_bytes) to test
/// with one.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(super) version: Version,
    pub(super) idle_timeout: Duration,
    pub(super) max_frame_bytes: Option<usize>,
    pub(super) max_channels: usize,
    pub(super) seed: u64,
    pub(super) token: Option<String>,
    pub(super) drainer: bool,
    pub(super) channel_delay: Duration,
    pub(super) presence_delay: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            version: Version::default(),
            idle_timeout: Duration::from_secs(60),
            max_frame_bytes: None,
            max_channels: 100,
            seed: 0,
            token: None,
            drainer: true,
            channel_delay: Duration::ZERO,
            presence_delay: Duration::ZERO,
        }
    }
}

impl ServerConfig {
    /// Which Phoenix to imitate; by default [`Version::V1_8_12`].
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// How long a client may send nothing, frames and pings alike, before its socket is closed
    /// with 1002 (`wire/idle_timeout_close`); by default 60 seconds. Over a real socket the head of
    /// its request may take as long; then the answer is 408.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The largest frame a client may send, in bytes; a larger one closes its socket with 1009
    /// (`wire/frame_too_big`). By default there is no limit.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: Option<usize>) -> Self {
        self.max_frame_bytes = bytes;
        self
    }

    /// How many topics one socket may have joined at a time (`wire/join_too_many_channels`); by
    /// default 100.
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.max_channels = channels;
        self
    }

    /// The connect parameter `token` that every socket must present; without it the connect
    /// callback says no, which is a 403. By default none is asked for.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Whether [`shutdown`](super::Server::shutdown) drains: sockets with a channel then see 1012.
    /// Without a drainer (`drainer: false` on Phoenix's socket) every socket sees 1000. By default
    /// there is one.
    #[must_use]
    pub fn drainer(mut self, drains: bool) -> Self {
        self.drainer = drains;
        self
    }

    /// Up to how long a channel takes before it looks at a message, drawn for each; by default none.
    ///
    /// Channels are processes of their own: the reply to a heartbeat, which the socket answers, or of
    /// another channel, can overtake the one to a push or a leave that was sent before it, and a
    /// message can come between the answer to a join and what the channel does after its join. The
    /// answers to joins are the socket's own and are never overtaken.
    #[must_use]
    pub fn channel_delay(mut self, most: Duration) -> Self {
        self.channel_delay = most;
        self
    }

    /// Up to how long a presence diff takes to be broadcast, drawn for each; by default none.
    ///
    /// The tracker knows of a change at once and broadcasts later, in order: of joins side by side,
    /// each `presence_state` holds metas whose diffs come only after it.
    #[must_use]
    pub fn presence_delay(mut self, most: Duration) -> Self {
        self.presence_delay = most;
        self
    }

    /// The seed of the `phx_ref` values and of the delays; by default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
