//! Credentials that are asked for anew for every attempt.
//!
//! ```text
//!   Connect ─▶ provider(attempt) ─┬─ Use(credentials) ─▶ replaced as a whole ─▶ dial
//!                                 ├─ Unchanged ─▶ dial, unless they were just refused: final
//!                                 ├─ GiveUp(reason) ─▶ final
//!                                 └─ error, panic ─▶ a failed attempt, with backoff
//! ```
//!
//! All of it happens inside the connect timeout of the attempt.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::{Config, Credentials};
use crate::event::cause::Cause;
#[cfg(feature = "recording")]
use crate::recording::{RecordedSocket, Recorder};
#[cfg(not(feature = "recording"))]
use crate::socket::Socket;
use crate::time::Time;

/// One attempt to connect, as seen by a credential provider.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// 0 for the first one, then the number of the retry.
    pub attempt: u32,
    /// Why the connection or the attempt before it ended; none at first, or after a local
    /// `disconnect`. [`Cause::Refused`] with status 401 or 403 means that the server did not
    /// like what it got.
    pub after: Option<Cause>,
}

/// What a credential provider has for an attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Provided {
    /// These, in place of all that was used before.
    Use(Credentials),
    /// Nothing newer than the last ones, which are used again. Right after a 401 or a 403 that
    /// is final: the server refused these very credentials.
    Unchanged,
    /// There will be no more, for this reason. Final: the connection gives up.
    GiveUp(String),
}

/// A credential provider failed for now. The attempt counts as failed, and the next one asks
/// again.
///
/// Any error converts into it by [`new`](Self::new); its text ends up in logs, so it must not
/// hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CredentialsFailed {
    message: String,
}

impl CredentialsFailed {
    /// With what the error says.
    #[must_use]
    pub fn new(error: impl fmt::Display) -> Self {
        Self { message: error.to_string() }
    }
}

type Answer = Result<Provided, CredentialsFailed>;
type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;
pub(super) type Provider = dyn Fn(ConnectAttempt) -> Asked + Send + Sync;

/// What a client is made from: a [`Config`], and functions that a configuration cannot hold.
///
/// Every entry point takes a plain `Config` too.
///
/// ```
/// use phx_proto::client::{CredentialsFailed, Provided, Setup};
/// use phx_proto::{Config, Credentials};
///
/// # async fn fetch_token() -> Result<String, std::io::Error> { Ok("t".into()) }
/// let config = Config::new("wss://example.com/socket/websocket")?;
/// let setup = Setup::new(config).credentials(|_attempt| async {
///     let token = fetch_token().await.map_err(CredentialsFailed::new)?;
///     Ok(Provided::Use(Credentials::new().auth_token(token)))
/// });
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Setup {
    pub(crate) config: Config,
    pub(super) provider: Option<Arc<Provider>>,
    #[cfg(feature = "recording")]
    recorder: Option<Recorder>,
    pub(super) name: Option<String>,
}

impl Setup {
    /// Nothing but the configuration.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self {
            config,
            provider: None,
            #[cfg(feature = "recording")]
            recorder: None,
            name: None,
        }
    }

    /// The name of the connection: the member `connection` of every event of `tracing`, and
    /// [`Client::name`](super::Client::name). By default there is none; a supervisor gives each connection
    /// its own.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The socket of the client.
    #[cfg(feature = "recording")]
    pub(super) fn socket(self, seed: u64, now: Time) -> RecordedSocket {
        RecordedSocket::new(self.config, seed, now, self.recorder.as_ref())
    }

    /// The socket of the client.
    #[cfg(not(feature = "recording"))]
    pub(super) fn socket(self, seed: u64, now: Time) -> Socket {
        Socket::new(self.config, seed, now)
    }

    /// Asks `provider` for credentials before every attempt to connect.
    ///
    /// It is awaited by the driver, inside
    /// [`Config::connect_timeout`](crate::Config::connect_timeout), and dropped when the attempt
    /// is given up. With a provider, a 401 is retried with what it says next. A panic in it is a
    /// failed attempt.
    #[must_use]
    pub fn credentials<F, A>(mut self, provider: F) -> Self
    where
        F: Fn(ConnectAttempt) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Provided, CredentialsFailed>> + Send + 'static,
    {
        self.config = self.config.credentials_refreshed(true);
        self.provider = Some(Arc::new(move |attempt| Box::pin(provider(attempt))));
        self
    }

    /// Takes down everything that the core of the client receives and does, for a bug report that
    /// others can replay; see [`recording`](crate::recording) for what is in it. By default
    /// nothing is recorded, which costs one branch a step.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn record(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }
}

impl From<Config> for Setup {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut setup = f.debug_struct("Setup");
        setup
            .field("config", &self.config)
            .field("credentials", &self.provider.as_ref().map(|_| "provider"))
            .field("name", &self.name);
        #[cfg(feature = "recording")]
        setup.field("recorder", &self.recorder);
        setup.finish()
    }
}

/// A provider that was asked and has not answered.
pub(super) struct Asking(Asked);

impl Asking {
    /// Calls the provider, which is user code: never under the lock.
    pub(super) fn new(provider: &Provider, attempt: ConnectAttempt) -> Result<Self, Cause> {
        contain(|| provider(attempt)).map(Self)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Provided, Cause>> {
        match contain(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(Provided::GiveUp(reason)))) => {
                Poll::Ready(Err(Cause::CredentialsGaveUp { reason }))
            }
            Ok(Poll::Ready(Ok(provided))) => Poll::Ready(Ok(provided)),
            Ok(Poll::Ready(Err(CredentialsFailed { message }))) => {
                Poll::Ready(Err(Cause::CredentialsFailed { message }))
            }
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

/// A panic of the provider must not take the connection's task down. The provider is not used
/// again for this attempt, so what it left half done is its own.
fn contain<T>(call: impl FnOnce() -> T) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Cause::CredentialsFailed {
        message: "the credential provider panicked".to_owned(),
    })
}
