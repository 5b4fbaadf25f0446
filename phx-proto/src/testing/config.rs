//! The configuration of a test server.

use core::time::Duration;

/// The Phoenix version that the server imitates.
///
/// The versions differ in which join_refs a push or leave may carry, in the payload of `phx_error`,
/// in the close code of a `disconnect`, in the status for a `vsn` that is not a string, and in whether
/// they support `auth_token`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// Phoenix 1.7.24: pushes with any join_ref are delivered; no auth token.
    V1_7_24,
    /// Phoenix 1.8.9: a push without a join_ref is dropped silently, unless the join had none either.
    V1_8_9,
    /// Phoenix 1.8.12: a push or leave without a join_ref reaches the channel.
    #[default]
    V1_8_12,
}

/// The settings of a [`Server`](super::Server).
///
/// The defaults are those of the recorded server: Phoenix 1.8.12, an idle timeout of 60 seconds, 100
/// channels for each socket, 1,000 messages for each ring, seed 0, and no limit for the size of a frame.
/// A real server has such a limit, 10,000,000 bytes or less by default (see
/// [`protocol`](crate::manual::protocol#limits)); set [`max_frame_bytes`](Self::max_frame_bytes) to test
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
    pub(super) ring_size: usize,
    #[cfg(feature = "deflate")]
    pub(super) compress: Option<crate::config::Compression>,
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
            ring_size: 1_000,
            #[cfg(feature = "deflate")]
            compress: None,
        }
    }
}

impl ServerConfig {
    /// The Phoenix version to imitate; by default [`Version::V1_8_12`].
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The idle timeout: a socket whose client sends neither frames nor pings for this long is closed
    /// with 1002 (`wire/idle_timeout_close`). The default is 60 seconds. With real sockets it is also
    /// the timeout for the head of the upgrade request; after it, the response is 408.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The largest frame that a client may send, in bytes; a larger one closes its socket with 1009
    /// (`wire/frame_too_big`). By default there is no limit, except that a real socket ends at a frame of
    /// more than 1 GiB.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: Option<usize>) -> Self {
        self.max_frame_bytes = bytes;
        self
    }

    /// The maximum number of topics that one socket may have joined at a time
    /// (`wire/join_too_many_channels`). The default is 100.
    #[must_use]
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.max_channels = channels;
        self
    }

    /// The connect parameter `token` that every socket must present; without it, the connect
    /// callback refuses with 403. By default no token is required.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Whether the server has a drainer, which [`shutdown`](super::Server::shutdown) uses. With a
    /// drainer, sockets with a channel receive close code 1012. Without a drainer (`drainer: false`
    /// on Phoenix's socket), every socket receives 1000. By default the server has one.
    #[must_use]
    pub fn drainer(mut self, drains: bool) -> Self {
        self.drainer = drains;
        self
    }

    /// The maximum of a random delay before a channel handles a message. The delay is drawn for each
    /// message. By default there is no delay.
    ///
    /// On a real server every channel is a separate process. So the reply to a heartbeat, which
    /// comes from the socket's process, or the reply of another channel can overtake the reply to
    /// an earlier push or leave. A message can also arrive between the reply to a join and what the
    /// channel does after its join. Replies to joins are sent by the socket and are never
    /// overtaken.
    #[must_use]
    pub fn channel_delay(mut self, most: Duration) -> Self {
        self.channel_delay = most;
        self
    }

    /// The maximum of a random delay before a presence diff is broadcast. The delay is drawn for each
    /// diff. By default there is no delay.
    ///
    /// The presence tracker records a change at once and broadcasts it later, in order. So when
    /// several clients join at the same time, a client's `presence_state` already contains metas
    /// whose diffs arrive after it.
    #[must_use]
    pub fn presence_delay(mut self, most: Duration) -> Self {
        self.presence_delay = most;
        self
    }

    /// The most messages that a topic `ring:*` keeps. The default is 1,000.
    #[must_use]
    pub fn ring_size(mut self, messages: usize) -> Self {
        self.ring_size = messages;
        self
    }

    /// Accepts the offer of permessage-deflate, as Phoenix does with `compress: true`, and compresses
    /// the sent messages. The server keeps these windows and contexts, or smaller ones if the client
    /// asks for them. By default the server declines the offer. Used with real sockets and on links that
    /// [carry bytes](super::Link::carry_bytes).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn compress(mut self, compression: crate::config::Compression) -> Self {
        self.compress = Some(compression);
        self
    }

    /// The seed of the `phx_ref` values and of the delays. The default is 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
