//! A connection race: connects to the first address of a host that answers (RFC 8305, "Happy
//! Eyeballs").
//!
//! If an address has not answered after 250 ms, its attempt continues, and an attempt to the next
//! address starts in parallel. When an attempt fails, the next one starts at once.

use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;

use super::dial::kind_of;
use super::{Net, Resolver};
use crate::event::cause::{Cause, DialKind};

/// The delay between the start of an attempt and that of the next one in parallel (RFC 8305 section
/// 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Looks the host up and connects to one of its addresses; see [`resolve`].
pub(super) async fn connect<N: Net>(
    resolver: &Resolver,
    host: &str,
    port: u16,
    only_here: bool,
) -> Result<N::Stream, Cause> {
    let addresses = resolve(resolver, host, port, only_here).await?;
    let count = addresses.len();
    let mut race = Race {
        connect: N::connect,
        sleep: N::sleep,
        waiting: interleaved(addresses).into(),
        attempts: Vec::new(),
        next_after: None,
        first_error: None,
    };
    poll_fn(|cx| race.poll(cx)).await.map_err(|first_error| {
        let Some((address, error)) = first_error else { return no_address(host) };
        let kind = kind_of(&error);
        let message = if count == 1 {
            format!("{address} could not be reached: {error}")
        } else {
            format!(
                "none of the {count} addresses of {host:?} could be reached; {address}: {error}"
            )
        };
        Cause::Dial { kind, message }
    })
}

/// Looks a host up. With `only_here`, only loopback addresses are returned, because a resolver may
/// return any address for a name such as `a.localhost`.
pub(super) async fn resolve(
    resolver: &Resolver,
    host: &str,
    port: u16,
    only_here: bool,
) -> Result<Vec<SocketAddr>, Cause> {
    let mut addresses = resolver.resolve(host, port).await.map_err(|error| {
        let message = format!("the name {host:?} could not be resolved: {error}");
        Cause::Dial { kind: DialKind::Dns, message }
    })?;
    if let (true, Some(first)) = (only_here, addresses.first().copied()) {
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
        if addresses.is_empty() {
            let message = format!(
                "the name {host:?} resolves to {}, which is not this machine: ws:// would \
                 send everything in the clear",
                first.ip()
            );
            return Err(Cause::Dial { kind: DialKind::Other, message });
        }
    }
    Ok(addresses)
}

pub(super) fn no_address(host: &str) -> Cause {
    let message = format!("the name {host:?} has no address");
    Cause::Dial { kind: DialKind::Dns, message }
}

/// The failure to report: the first one that is not "unreachable", or else the first. A host
/// without IPv6 reports every IPv6 address as unreachable.
type FirstError = Option<(SocketAddr, io::Error)>;

/// The race to one host, with the functions of a [`Net`] and the futures that they return.
struct Race<C, S, Connecting, Sleep> {
    connect: C,
    sleep: S,
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<(SocketAddr, Pin<Box<Connecting>>)>,
    /// A timer. When it expires, an attempt to the next address starts in parallel.
    next_after: Option<Pin<Box<Sleep>>>,
    first_error: FirstError,
}

impl<C, S, Connecting, Sleep, T> Race<C, S, Connecting, Sleep>
where
    C: Fn(SocketAddr) -> Connecting,
    S: Fn(Duration) -> Sleep,
    Connecting: Future<Output = io::Result<T>>,
    Sleep: Future<Output = ()>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, FirstError>> {
        loop {
            let mut due = self.attempts.is_empty();
            let mut index = 0;
            while let Some((address, attempt)) = self.attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        let unreachable = |error| kind_of(error) == DialKind::Unreachable;
                        if self
                            .first_error
                            .as_ref()
                            .is_none_or(|(_, first)| unreachable(first) && !unreachable(&error))
                        {
                            self.first_error = Some((*address, error));
                        }
                        drop(self.attempts.remove(index));
                        due = true;
                    }
                }
            }
            due |= self.next_after.as_mut().is_some_and(|wait| wait.as_mut().poll(cx).is_ready());
            if due {
                self.next_after = None;
                if let Some(address) = self.waiting.pop_front() {
                    self.attempts.push((address, Box::pin((self.connect)(address))));
                    if !self.waiting.is_empty() {
                        self.next_after = Some(Box::pin((self.sleep)(NEXT_ADDRESS_AFTER)));
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

/// Alternates the address families, so that many unreachable IPv6 addresses of a host cost only one
/// delay of 250 ms (RFC 8305 section 4). The resolver's preferred family goes first.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The preferred family has one address, and the other one has more.
    #[test]
    fn address_families_alternate() {
        let address = |text: &str| text.parse().expect("an address");
        let [v6, one, two] = ["[::1]:1", "127.0.0.1:1", "127.0.0.2:1"].map(address);
        assert_eq!(interleaved(vec![v6, one, two]), [v6, one, two]);
        assert_eq!(interleaved(vec![one, two, v6]), [one, v6, two]);
        assert_eq!(interleaved(Vec::new()), []);
    }
}
