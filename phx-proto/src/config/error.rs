//! What can be wrong with a configuration.

/// Why a configuration value was refused. The caller's to mend; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An address to connect to that is none.
    #[error("the address to connect to cannot be used: {problem}")]
    ConnectTo {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A schedule of delays without a single step.
    #[error("a backoff needs at least one step")]
    EmptyBackoff,
    /// A range whose end lies before its start.
    #[error("the end of a range of delays lies before its start")]
    EmptyRange,
    /// An exponential factor outside 1.01 to 1000.
    #[error("a backoff's factor is a number from 1.01 to 1000")]
    BackoffFactor,
    /// A header that could not be sent, or that would smuggle in another one.
    #[error("header {name:?} cannot be sent: {problem}")]
    Header {
        /// The header's name. Its value is not repeated: it is often a secret.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `ws://` to a host that is not this machine.
    #[error(
        "ws:// to {host} would send credentials in the clear: use wss://, or build the \
         configuration with `Config::insecure`"
    )]
    Insecure {
        /// The host.
        host: String,
    },
    /// A jitter outside 0 to 1.
    #[error("jitter is a share from 0 to 1")]
    Jitter,
    /// A proxy that cannot be used. Its text is not repeated, as it may hold a password.
    #[error("{origin} cannot be used: {problem}")]
    Proxy {
        /// Where it was named: a variable of the environment, say.
        origin: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The topic of heartbeats, which is no channel.
    #[error("the topic \"phoenix\" is reserved for heartbeats and cannot be joined")]
    ReservedTopic,
    /// A host name that is not ASCII.
    #[error("the host {host:?} is not ASCII: {}", xn(.ascii.as_deref()))]
    UnicodeHost {
        /// The host.
        host: String,
        /// What to write in its place, if it can be told without tables of Unicode.
        ascii: Option<String>,
    },
    /// The URI cannot be used. Its text is not repeated, as it may hold a token.
    #[error("the URI cannot be used: {problem}")]
    Uri {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The query asks for another version of the protocol than the codec speaks.
    #[error(
        "the query asks for another vsn than {spoken}, which the codec speaks: leave vsn out \
         of the URI and the parameters"
    )]
    Vsn {
        /// The vsn of the codec.
        spoken: String,
    },
    /// The URI asks for a version of the protocol that is not known here. It is not repeated.
    #[error(
        "the vsn in the URI is neither 2.0.0 nor 1.0.0: leave it out, and give \
         `Config::codec` a `Codec` that speaks it"
    )]
    UnknownVsn,
    /// A number that must not be zero.
    #[error("{key} must be at least 1")]
    Zero {
        /// The setting.
        key: &'static str,
    },
}

fn xn(ascii: Option<&str>) -> String {
    match ascii {
        Some(ascii) => format!("write {ascii:?}"),
        None => "write the xn-- form of its internationalized name".to_owned(),
    }
}
