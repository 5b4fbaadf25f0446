//! Errors of configuration values.

/// An invalid configuration value. Nothing has been started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The address given to [`Config::connect_to`](crate::Config::connect_to) is invalid.
    #[error("invalid connect_to address: {problem}")]
    ConnectTo {
        /// The problem with the address.
        problem: &'static str,
    },
    /// A backoff schedule has no steps.
    #[error("a backoff needs at least one step")]
    EmptyBackoff,
    /// A range of delays ends before it starts.
    #[error("a range of delays must not end before it starts")]
    EmptyRange,
    /// The factor of an exponential backoff is not from 1.01 to 1000.
    #[error("the factor of a backoff must be a number from 1.01 to 1000")]
    BackoffFactor,
    /// A header is invalid, or would inject another header.
    #[error("invalid header {name:?}: {problem}")]
    Header {
        /// Name of the header. The error omits the value, which is often a secret.
        name: String,
        /// The problem with the header.
        problem: &'static str,
    },
    /// A `ws://` address leads to another machine.
    #[error(
        "ws:// to {host} would send credentials in the clear: use wss://, or build the \
         configuration with `Config::insecure`"
    )]
    Insecure {
        /// The host that is not this machine.
        host: String,
    },
    /// A jitter is not from 0 to 1.
    #[error("the jitter must be a number from 0 to 1")]
    Jitter,
    /// A proxy is invalid. The error omits its text, which may contain a password.
    #[error("invalid {origin}: {problem}")]
    Proxy {
        /// Where the proxy was set: `proxy`, or the name of an environment variable.
        origin: &'static str,
        /// The problem with the proxy.
        problem: &'static str,
    },
    /// The topic `phoenix`, which belongs to heartbeats, cannot be joined.
    #[error("the topic \"phoenix\" is reserved for heartbeats and cannot be joined")]
    ReservedTopic,
    /// A host name is not ASCII.
    #[error("the host {host:?} is not ASCII: {}", xn(.ascii.as_deref()))]
    UnicodeHost {
        /// The host.
        host: String,
        /// The ASCII form of the host, if it can be computed without Unicode tables.
        ascii: Option<String>,
    },
    /// The URI is invalid. The error omits its text, which may contain a token.
    #[error("invalid uri: {problem}")]
    Uri {
        /// The problem with the URI.
        problem: &'static str,
    },
    /// The query has a `vsn` that is not the one of the codec.
    #[error(
        "the vsn in the query differs from {spoken}, the vsn of the codec: leave vsn out of the URI \
         and the parameters"
    )]
    Vsn {
        /// The vsn of the codec.
        spoken: String,
    },
    /// The URI has a `vsn` that this crate does not implement. The error omits that value.
    #[error(
        "the vsn in the URI is neither 2.0.0 nor 1.0.0: for another vsn, leave it out of the URI and \
         set a codec with `Config::codec`"
    )]
    UnknownVsn,
    /// A window of a [`Compression`](crate::config::Compression) is not from 9 to 15 bits.
    #[error("the window of a compression must be from 9 to 15 bits")]
    WindowBits,
    /// A number that must not be zero is zero.
    #[error("{key} must be at least 1")]
    Zero {
        /// Name of the setting.
        key: &'static str,
    },
}

fn xn(ascii: Option<&str>) -> String {
    match ascii {
        Some(ascii) => format!("write {ascii:?}"),
        None => "write the xn-- form of its internationalized name".to_owned(),
    }
}
