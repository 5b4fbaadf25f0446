//! The choice of the WebSocket implementation.

use serde::{Deserialize, Serialize};

/// The WebSocket implementation of a connection in phx-tokio and phx-smol.
///
/// Both implementations report the server's close codes and the same causes, and pass the same tests.
/// phx's own also reports how much of an upload the server has read, so that a slow upload is not cut and
/// a server that stopped reading is detected sooner (see [`manual::policies`](crate::manual::policies)).
/// It is stricter with a server that violates RFC 6455. It ends the connection if a frame encodes its
/// length in more bytes than necessary, or if a message has more than 131,072 fragments or 1,024 empty
/// ones ([`MessageTooLarge`](crate::Cause::MessageTooLarge)).
///
/// tungstenite does not compress: with [`compression`](crate::Config::compression), phx's own is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TransportKind {
    /// tokio-tungstenite or async-tungstenite, depending on the adapter.
    #[default]
    Tungstenite,
    /// phx's own [`websocket::Endpoint`](crate::websocket::Endpoint), with the feature `websocket`. An idle
    /// connection takes less memory, and receiving a small message takes less time.
    #[cfg(feature = "websocket")]
    WebSocket,
}
