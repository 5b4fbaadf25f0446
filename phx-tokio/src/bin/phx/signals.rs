//! Signals of the terminal and of the service manager: to end, and to read a file again.

use core::time::Duration;
use std::io;
use std::time::Instant;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How far apart two signals must be to count as two: wrappers (`timeout`, a shell's job control,
/// a container's init) deliver one request twice, to the process and to its group.
const APART: Duration = Duration::from_millis(250);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// An end in order.
    End,
    /// An end at once.
    AtOnce,
}

/// Requests to end: SIGINT and SIGTERM.
pub(crate) struct Stop {
    // Both from the start: one that comes before it is awaited must not end the process.
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

    /// Waits for a request. One that is not [`APART`] from the first is a part of it.
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

    /// Whether an end was requested.
    pub(crate) const fn is_asked(&self) -> bool {
        self.first.is_some()
    }

    /// Whether an end at once was requested.
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

/// Requests to read the file again: SIGHUP, where there is one.
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

    /// Waits for the next request. Those that come while one is carried out are one more.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        core::future::pending().await
    }
}
