//! The async client: one driver future and the handles, the same on every runtime.
//!
//! An adapter implements [`Runtime`]; everything else is in this module. [`client`](self::client())
//! makes a [`Client`] and its [`Driver`]. Nothing happens until the driver is polled; [`start`] and
//! [`connect`] spawn it.
//!
//! * A [`Client`] is one connection. A [`Channel`] is one interest in a topic. [`Messages`] and
//!   [`Signals`] are streams with bounded mailboxes: a slow consumer sees how many items it lost,
//!   and never stops the socket from reading. [`Unrouted`] is a stream of the messages on topics
//!   that have no channel.
//! * [`Client::want`] asks for a topic, and [`Channel::joined`] waits for its join;
//!   [`Client::join`] does both, with a deadline.
//! * Observers ([`Signals`], [`StatusChanges`], [`Unrouted`], [`WeakClient`]) do not keep a connection open;
//!   clients, channels and their streams do.
//! * A command returns at once. It runs under one lock, which is held only while the core works.
//!   The only application code that runs under the lock is a [codec](crate::wire::Codec), whose
//!   contract forbids calls back into the client.
//! * The driver's task calls the functions of [`JoinParams`](crate::JoinParams::from_fn) and
//!   credential providers without holding the lock. Wakers, payloads and every other value that may
//!   own application memory are cloned and dropped outside the lock.
//! * Dropping a future or a handle cancels its request, synchronously.

mod capacity;
mod catch_up;
mod channel;
#[allow(clippy::module_inception)]
mod client;
mod driver;
mod error;
mod mailbox;
mod messages;
mod presence;
mod repeat;
mod reply;
mod runtime;
mod setup;
mod shutdown;
mod signals;
mod state;
mod status;
mod subscribers;
#[cfg(feature = "tracing")]
mod tracing;
mod unrouted;
pub(crate) mod waiters;

pub use catch_up::CatchUp;
pub use channel::{Channel, JoinOptions, Left};
pub use client::{Client, WeakClient};
pub use driver::Driver;
pub use error::{
    CallFailed, ConnectError, JoinFailed, JoinObstacle, NotConnected, PushFailed, RepeatFailed,
};
pub use mailbox::{MailboxOptions, MailboxPolicy};
pub use messages::{ChannelEvent, Message, Messages, StreamEnd, TopicMessages};
pub use presence::{PresenceEvent, PresenceStream};
pub use repeat::Repeated;
pub use reply::ErrorReply;
pub use runtime::{Clock, Received, Runtime, Spawn, Timer, Transport, WriteFailed};
pub use setup::{ConnectAttempt, CredentialsFailed, Provided, Setup};
pub use shutdown::Unfinished;
pub use signals::{ClientEvent, Signals};
pub use status::StatusChanges;
pub use unrouted::{Unrouted, UnroutedEvent};

use crate::event::cause::Cause;
use crate::event::signal::Signal;

/// Makes a client and its driver. Nothing is spawned and nothing is dialled: poll the driver, and
/// call [`Client::connect`].
pub fn client<R: Runtime>(setup: impl Into<Setup>, runtime: R) -> (Client, Driver<R>) {
    let seed = runtime.seed();
    let setup = setup.into();
    let (provider, name) = (setup.provider.clone(), setup.name.clone());
    let clock = runtime.clock();
    let socket = setup.socket(seed, clock.now());
    let shared = state::Shared::new(socket, seed, name, move || clock.now());
    let driver = Driver::new(runtime, provider, std::sync::Arc::clone(&shared));
    (Client::new(shared), driver)
}

/// Spawns the driver and starts connecting, without waiting for the connection.
pub fn start<R>(setup: impl Into<Setup>, runtime: R) -> Client
where
    R: Runtime + Spawn<Driver<R>>,
{
    let (client, driver) = client(setup, runtime.clone());
    client.connect();
    runtime.spawn(driver);
    client
}

/// Spawns the driver, connects and waits for the first open connection. From then on the client
/// reconnects by itself.
///
/// Cancel safe: dropping the future closes the connection.
///
/// # Errors
///
/// [`ConnectError`] when the first attempt fails. The client is then closed, and nothing continues
/// in the background.
pub async fn connect<R>(setup: impl Into<Setup>, runtime: R) -> Result<Client, ConnectError>
where
    R: Runtime + Spawn<Driver<R>>,
{
    let (client, driver) = client(setup, runtime.clone());
    let mut signals = client.signals();
    client.connect();
    runtime.spawn(driver);
    loop {
        let cause = match signals.next().await {
            Some(ClientEvent::Signal(Signal::Connected { .. })) => return Ok(client),
            Some(ClientEvent::Signal(
                Signal::ConnectFailed { cause, .. } | Signal::GaveUp { cause },
            )) => cause,
            Some(ClientEvent::Signal(Signal::Closed)) | None => Cause::LocalDisconnect,
            Some(_) => continue,
        };
        client.disconnect().await;
        return Err(ConnectError::new(cause));
    }
}
