//! The setup of a client, and the credential provider that is called before every attempt to
//! connect.
//!
//! ```text
//!   Connect ─▶ provider(attempt) ─┬─ Use(credentials) ─▶ replaced as a whole ─▶ dial
//!                                 ├─ Unchanged ─▶ dial, unless they were just refused: final
//!                                 ├─ GiveUp(reason) ─▶ final
//!                                 └─ error, panic ─▶ a failed attempt, with backoff
//! ```
//!
//! The connect timeout of the attempt includes the call of the provider.

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

/// One attempt to connect, passed to the credential provider.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// Zero for the first attempt, then the number of the retry.
    pub attempt: u32,
    /// Why the previous connection or attempt ended; `None` for the first attempt and after a local
    /// `disconnect`. [`Cause::Refused`] with status 401 or 403 means that the server refused the
    /// credentials.
    pub after: Option<Cause>,
}

/// The answer of a credential provider.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Provided {
    /// These credentials replace all previous ones.
    Use(Credentials),
    /// The previous credentials are used again. Right after a 401 or a 403 the connection gives up
    /// instead, because the server has just refused them.
    Unchanged,
    /// The provider has no more credentials, for this reason. The connection gives up.
    GiveUp(String),
}

/// A credential provider failed temporarily. The attempt counts as failed, and the next attempt
/// calls the provider again.
///
/// [`new`](Self::new) converts any error. The text appears in logs, so it must not contain a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CredentialsFailed {
    message: String,
}

impl CredentialsFailed {
    /// Makes a failure with the text of an error.
    #[must_use]
    pub fn new(error: impl fmt::Display) -> Self {
        Self { message: error.to_string() }
    }
}

type Answer = Result<Provided, CredentialsFailed>;
type ProviderFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;
pub(super) type Provider = dyn Fn(ConnectAttempt) -> ProviderFuture + Send + Sync;

/// Everything that a client is made from: a [`Config`], and values that a configuration cannot
/// hold.
///
/// Every entry point also takes a plain `Config`.
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
    /// Makes a setup with only the configuration.
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

    /// Sets the name of the connection: the field `connection` of every `tracing` event, and the
    /// result of [`Client::name`](super::Client::name). By default there is none. A supervisor sets
    /// the name of each connection.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the client's socket.
    #[cfg(feature = "recording")]
    pub(super) fn socket(self, seed: u64, now: Time) -> RecordedSocket {
        RecordedSocket::new(self.config, seed, now, self.recorder.as_ref())
    }

    /// Makes the client's socket.
    #[cfg(not(feature = "recording"))]
    pub(super) fn socket(self, seed: u64, now: Time) -> Socket {
        Socket::new(self.config, seed, now)
    }

    /// Calls `provider` for credentials before every attempt to connect.
    ///
    /// The driver awaits the returned future within
    /// [`Config::connect_timeout`](crate::Config::connect_timeout), and drops it when the attempt
    /// is aborted. With a provider, a 401 is retried with the provider's next answer. A panic in
    /// the provider is a failed attempt.
    ///
    /// ```
    /// use phx_proto::client::{CredentialsFailed, Provided, Setup};
    /// use phx_proto::{Cause, Config, Credentials};
    ///
    /// # async fn cached_token() -> Result<String, std::io::Error> { Ok("t".into()) }
    /// # async fn fresh_token() -> Result<String, std::io::Error> { Ok("t".into()) }
    /// let config = Config::new("wss://example.com/socket/websocket")?;
    /// let setup = Setup::new(config).credentials(|attempt| async move {
    ///     // After a refusal, such as a 401, the cached token is of no use.
    ///     let refused = matches!(attempt.after, Some(Cause::Refused(_)));
    ///     let token = if refused { fresh_token().await } else { cached_token().await };
    ///     let token = token.map_err(CredentialsFailed::new)?;
    ///     Ok(Provided::Use(Credentials::new().auth_token(token)))
    /// });
    /// # let _ = setup;
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
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

    /// Records every input and action of the client's core, for a bug report that can be replayed;
    /// [`recording`](crate::recording) lists the contents. By default nothing is recorded; each
    /// step then costs one branch.
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

/// A pending call of the credential provider.
pub(super) struct ProviderCall(ProviderFuture);

impl ProviderCall {
    /// Calls the provider. It is user code, so the lock must not be held.
    pub(super) fn new(provider: &Provider, attempt: ConnectAttempt) -> Result<Self, Cause> {
        catch_panic(|| provider(attempt)).map(Self)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Provided, Cause>> {
        match catch_panic(|| self.0.as_mut().poll(cx)) {
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

/// Catches a panic of the provider, which must not end the connection's task. The provider is not
/// called again for this attempt, so an inconsistent state stays inside the provider.
fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Cause::CredentialsFailed {
        message: "the credential provider panicked".to_owned(),
    })
}
