//! Runs a pure handshake machine over a stream.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::io;

use futures_io::{AsyncRead as _, AsyncWrite as _};

use super::{Io, Net};
use crate::event::refusal::Refusal;
use crate::websocket::upgrade::{
    Connect, Socks5, Tunnel, Upgrade, UpgradeError, UpgradeStep, Upgraded,
};

/// The timeout for a refusal's body after its head. It is short, because the status matters more.
/// Near the timeout of the attempt it is shorter; see [`set_late`].
const REFUSAL_BODY_WAIT: Duration = Duration::from_secs(1);

/// The longest timer of [`set_late`], so that a [`Net`] need not support [`Duration::MAX`].
const LATE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs a dial. Sets `late` shortly before the dial has taken `timeout`, so that an exchange which waits
/// for the body of a refusal returns the status.
pub(super) async fn set_late<N: Net, T>(
    late: &AtomicBool,
    timeout: Duration,
    dial: impl Future<Output = T>,
) -> T {
    let wait = timeout - REFUSAL_BODY_WAIT.min(timeout / 4);
    let mut timer = pin!(N::sleep(wait.min(LATE_MAX)));
    let mut dial = pin!(dial);
    poll_fn(|cx| {
        if !late.load(Ordering::Relaxed) && timer.as_mut().poll(cx).is_ready() {
            late.store(true, Ordering::Relaxed);
        }
        dial.as_mut().poll(cx)
    })
    .await
}

/// Why an exchange failed.
pub(super) enum Broken {
    /// The request is invalid, or the machine rejected the peer's response.
    Http(UpgradeError),
    /// The stream failed.
    Io(io::Error),
}

/// A handshake machine: [`Upgrade`], [`Connect`], [`Socks5`] or [`Negotiation`].
pub(super) trait Machine {
    type Done;
    fn poll_write(&self) -> &[u8];
    fn handle_written(&mut self, n: usize);
    fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<Self::Done>, UpgradeError>;
    fn handle_eof(&mut self) -> UpgradeError;
    fn pending_refusal(&self) -> Option<Refusal>;
    /// Wraps a refusal in the error of this machine.
    fn refused(refusal: Refusal) -> UpgradeError;
}

macro_rules! machine {
    ($machine:ty, $done:ty, $refused:expr) => {
        impl Machine for $machine {
            type Done = $done;
            fn poll_write(&self) -> &[u8] {
                Self::poll_write(self)
            }
            fn handle_written(&mut self, n: usize) {
                Self::handle_written(self, n);
            }
            fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<$done>, UpgradeError> {
                Self::handle_read(self, bytes)
            }
            fn handle_eof(&mut self) -> UpgradeError {
                Self::handle_eof(self)
            }
            fn pending_refusal(&self) -> Option<Refusal> {
                Self::pending_refusal(self)
            }
            fn refused(refusal: Refusal) -> UpgradeError {
                $refused(refusal)
            }
        }
    };
}

machine!(Upgrade, Upgraded, UpgradeError::Refused);
machine!(Connect, Tunnel, UpgradeError::ProxyRefused);

/// A SOCKS refusal consists of a code, so there is no body to wait for.
impl Machine for Socks5 {
    type Done = Tunnel;
    fn poll_write(&self) -> &[u8] {
        Self::poll_write(self)
    }
    fn handle_written(&mut self, n: usize) {
        Self::handle_written(self, n);
    }
    fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<Tunnel>, UpgradeError> {
        Self::handle_read(self, bytes)
    }
    fn handle_eof(&mut self) -> UpgradeError {
        Self::handle_eof(self)
    }
    fn pending_refusal(&self) -> Option<Refusal> {
        None
    }
    fn refused(refusal: Refusal) -> UpgradeError {
        UpgradeError::ProxyRefused(refusal)
    }
}

/// The first part of a SOCKS5 tunnel: the proxy accepts the client, and does not know an address yet. The
/// machine then continues with the request for the address.
pub(super) struct Negotiation<'a>(pub(super) &'a mut Socks5);

impl Machine for Negotiation<'_> {
    type Done = ();
    fn poll_write(&self) -> &[u8] {
        self.0.poll_write()
    }
    fn handle_written(&mut self, n: usize) {
        self.0.handle_written(n);
    }
    fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<()>, UpgradeError> {
        let mut bytes = bytes.iter();
        while !self.0.is_negotiated() {
            let Some(byte) = bytes.next() else { return Ok(UpgradeStep::More) };
            self.0.handle_read(core::slice::from_ref(byte))?;
        }
        match bytes.next() {
            None => Ok(UpgradeStep::Done(())),
            // The proxy answers a request that it has not received.
            Some(&byte) => Err(UpgradeError::NotSocks { byte }),
        }
    }
    fn handle_eof(&mut self) -> UpgradeError {
        self.0.handle_eof()
    }
    fn pending_refusal(&self) -> Option<Refusal> {
        None
    }
    fn refused(refusal: Refusal) -> UpgradeError {
        Socks5::refused(refusal)
    }
}

/// Alternates between writing the machine's output and reading its input until it is done. When
/// [`late`](set_late) is set, it does not wait for the body of a refusal.
pub(super) async fn exchange<N: Net, M: Machine>(
    stream: &mut Io<N::Stream>,
    mut machine: M,
    late: &AtomicBool,
) -> Result<M::Done, Broken> {
    let mut buffer = [0; 2_048];
    while machine.pending_refusal().is_none() {
        write::<N, _>(stream, &mut machine).await;
        let n = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer))
            .await
            .map_err(Broken::Io)?;
        if let Some(done) = take(&mut machine, &buffer[..n]).map_err(Broken::Http)? {
            return Ok(done);
        }
    }
    let mut body_late = pin!(N::sleep(REFUSAL_BODY_WAIT));
    loop {
        let read = poll_fn(|cx| match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(n)) => Poll::Ready(Some(n)),
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Pending if late.load(Ordering::Relaxed) => Poll::Ready(None),
            Poll::Pending => body_late.as_mut().poll(cx).map(|()| None),
        });
        let result = match (read.await, machine.pending_refusal()) {
            (None, Some(refusal)) => Err(M::refused(refusal)),
            (None, None) => Err(machine.handle_eof()),
            (Some(n), _) => take(&mut machine, &buffer[..n]),
        };
        if let Some(done) = result.map_err(Broken::Http)? {
            return Ok(done);
        }
    }
}

/// Writes all pending output of the machine.
async fn write<N: Net, M: Machine>(stream: &mut Io<N::Stream>, machine: &mut M) {
    if machine.poll_write().is_empty() {
        return;
    }
    while !machine.poll_write().is_empty() {
        // A server may answer and close the stream before it has read the whole request. Its answer
        // can still be read, and explains more than the error of the write.
        match poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, machine.poll_write())).await {
            Ok(0) | Err(_) => {
                machine.handle_written(usize::MAX);
                return;
            }
            Ok(n) => machine.handle_written(n),
        }
    }
    let _ = poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await;
}

/// Passes bytes from the stream to the machine; an empty slice means the end of the stream.
fn take<M: Machine>(machine: &mut M, bytes: &[u8]) -> Result<Option<M::Done>, UpgradeError> {
    if bytes.is_empty() {
        return Err(machine.handle_eof());
    }
    match machine.handle_read(bytes)? {
        UpgradeStep::Done(done) => Ok(Some(done)),
        UpgradeStep::More => Ok(None),
    }
}
