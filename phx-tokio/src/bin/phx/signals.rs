//! Signals of the terminal and of the service manager: shut down, reload.

use core::time::Duration;
use std::io;
use std::time::Instant;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Two signals count as two requests only if at least this time is between them. Wrappers
/// (`timeout`, a shell's job control, a container's init) send the same signal twice, to the
/// process and to its group.
const APART: Duration = Duration::from_millis(250);

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Shut down gracefully.
    End,
    /// Exit at once.
    AtOnce,
}

/// Requests to shut down: SIGINT and SIGTERM.
pub(crate) struct Stop {
    // Both handlers are registered when the value is created, so that a signal before the first
    // await does not kill the process.
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    first: Option<Instant>,
    twice: bool,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            first: None,
            twice: false,
        })
    }

    /// Waits for a request. A signal within [`APART`] after the first counts as the same request.
    ///
    /// Cancel safe.
    pub(crate) async fn request(&mut self) -> Request {
        loop {
            self.next().await;
            match self.first {
                None => {
                    self.first = Some(Instant::now());
                    return Request::End;
                }
                Some(first) if first.elapsed() >= APART => {
                    self.twice = true;
                    return Request::AtOnce;
                }
                Some(_) => {}
            }
        }
    }

    /// Whether a shutdown was requested.
    pub(crate) const fn is_asked(&self) -> bool {
        self.first.is_some()
    }

    /// Whether an exit at once was requested.
    pub(crate) const fn is_asked_twice(&self) -> bool {
        self.twice
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Requests to reload the file: SIGHUP, where the platform has it.
pub(crate) struct Reloads {
    #[cfg(unix)]
    hangup: Signal,
}

impl Reloads {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next request. All requests during a reload count as one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        core::future::pending().await
    }
}
