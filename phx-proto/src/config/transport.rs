//! Which implementation of WebSocket a connection runs over.

use serde::{Deserialize, Serialize};

/// Which implementation of WebSocket a connection runs over, in phx-tokio and phx-smol.
///
/// Both report the close codes that the server sends, the same causes and the same progress, and both are run by
/// the same tests. phx's own is stricter with a server that breaks RFC 6455: it ends the connection for a
/// length that is not in its shortest form, and for a message in more than 131,072 fragments, or 1,024 empty
/// ones ([`MessageTooLarge`](crate::Cause::MessageTooLarge)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TransportKind {
    /// tokio-tungstenite or async-tungstenite.
    #[default]
    Tungstenite,
    /// [`websocket::Endpoint`](crate::websocket::Endpoint): an idle connection takes less memory, and
    /// a small message that is received less time. With the feature `websocket`.
    #[cfg(feature = "websocket")]
    WebSocket,
}
