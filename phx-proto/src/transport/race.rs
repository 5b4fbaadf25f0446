//! Connecting to the first address of a host that answers (RFC 8305, "Happy Eyeballs").
//!
//! An address that is silent for 250 ms is not given up: the next is tried beside it. One that
//! fails makes room for the next at once.

use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;

use super::{Net, Resolver};
use crate::event::input::Failure;

/// How long one address may be silent before the next is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks the host up and connects to one of its addresses.
pub(super) async fn connect<N: Net>(
    resolver: &Resolver,
    host: &str,
    port: u16,
) -> Result<N::Stream, Failure> {
    let addresses = resolver.resolve(host, port).await.map_err(|error| {
        let message = format!("the name {host:?} could not be resolved: {error}");
        Failure::Dial { message }
    })?;
    let count = addresses.len();
    let mut race = Race::<N> {
        waiting: interleaved(addresses).into(),
        attempts: Vec::new(),
        next_after: None,
        first_error: None,
    };
    poll_fn(|cx| race.poll(cx)).await.map_err(|first_error| {
        let message = match first_error {
            None => format!("the name {host:?} has no address"),
            Some((address, error)) if count == 1 => {
                format!("{address} could not be reached: {error}")
            }
            Some((address, error)) => format!(
                "none of the {count} addresses of {host:?} could be reached; {address}: {error}"
            ),
        };
        Failure::Dial { message }
    })
}

/// The address that failed first, if any did.
type FirstError = Option<(SocketAddr, io::Error)>;

struct Race<N: Net> {
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<(SocketAddr, Pending<io::Result<N::Stream>>)>,
    /// Until when the attempts have the field to themselves.
    next_after: Option<Pending<()>>,
    first_error: FirstError,
}

impl<N: Net> Race<N> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<N::Stream, FirstError>> {
        loop {
            let mut due = self.attempts.is_empty();
            let mut index = 0;
            while let Some((address, attempt)) = self.attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        self.first_error.get_or_insert((*address, error));
                        drop(self.attempts.remove(index));
                        due = true;
                    }
                }
            }
            due |= self.next_after.as_mut().is_some_and(|wait| wait.as_mut().poll(cx).is_ready());
            if due {
                self.next_after = None;
                if let Some(address) = self.waiting.pop_front() {
                    self.attempts.push((address, Box::pin(N::connect(address))));
                    if !self.waiting.is_empty() {
                        self.next_after = Some(Box::pin(N::sleep(NEXT_ADDRESS_AFTER)));
                    }
                    continue;
                }
            }
            if self.attempts.is_empty() {
                return Poll::Ready(Err(self.first_error.take()));
            }
            return Poll::Pending;
        }
    }
}

/// The addresses with the families taking turns, so that a host whose many IPv6 addresses all
/// lead nowhere costs one stagger (RFC 8305 section 4). The resolver's preference goes first.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == prefers_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    loop {
        let before = mixed.len();
        mixed.extend(first.next());
        mixed.extend(second.next());
        if mixed.len() == before {
            return mixed;
        }
    }
}
