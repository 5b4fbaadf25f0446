//! The runtime under test, with tasks that run in an executor of the test.

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;

use crate::rt::Runtime;
use crate::rt::phx::Config;
use crate::rt::phx::client;
use crate::rt::phx::event::ConnectRequest;

/// A function that runs a task in the background.
pub(crate) type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Elsewhere {
    inner: Runtime,
    spawn: Spawn,
}

impl Elsewhere {
    pub(crate) fn new(spawn: Spawn) -> Self {
        Self { inner: Runtime::new(), spawn }
    }
}

impl client::Runtime for Elsewhere {
    type Clock = <Runtime as client::Runtime>::Clock;
    type Transport = <Runtime as client::Runtime>::Transport;
    type Timer = <Runtime as client::Runtime>::Timer;
    type Dial = <Runtime as client::Runtime>::Dial;

    fn clock(&self) -> Self::Clock {
        self.inner.clock()
    }

    fn seed(&self) -> u64 {
        self.inner.seed()
    }

    fn timer(&self) -> Self::Timer {
        self.inner.timer()
    }

    fn connect(&self, request: ConnectRequest, config: &Config) -> Self::Dial {
        self.inner.connect(request, config)
    }
}

impl<F: Future<Output = ()> + Send + 'static> client::Spawn<F> for Elsewhere {
    fn spawn(&self, future: F) {
        (self.spawn)(Box::pin(future));
    }
}
