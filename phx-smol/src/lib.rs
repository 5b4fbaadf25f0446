//! Phoenix Channels client for smol.
