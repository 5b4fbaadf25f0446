//! Phoenix Channels client for tokio.
