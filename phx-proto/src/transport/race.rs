//! A connection race: connects to the first address of a host that answers (RFC 8305, "Happy
//! Eyeballs"), directly or through a SOCKS5 proxy.
//!
//! If an address has not answered after 250 ms, its attempt continues, and an attempt to the next
//! address starts in parallel. When an attempt fails, the next one starts at once. After a failure of
//! the proxy itself no further attempt starts.

use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;

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
    let attempt = |address| async move {
        let connected = N::connect(address).await;
        connected
            .map_err(|error| Failed::Address { kind: kind_of(&error), message: error.to_string() })
    };
    race::<N, _, _>(addresses, attempt).await.map_err(|failed| match failed {
        None => no_address(host),
        Some((_, Failed::Route(cause))) => cause,
        Some((address, Failed::Address { kind, message })) => {
            let message = if count == 1 {
                format!("{address} could not be reached: {message}")
            } else {
                format!(
                    "none of the {count} addresses of {host:?} could be reached; {address}: \
                     {message}"
                )
            };
            Cause::Dial { kind, message }
        }
    })
}

/// Runs an attempt for each address until one succeeds. The error is the failure to report, or
/// `None` if there are no addresses.
pub(super) async fn race<N: Net, T, Attempt>(
    addresses: Vec<SocketAddr>,
    attempt: impl FnMut(SocketAddr) -> Attempt,
) -> Result<T, Option<(SocketAddr, Failed)>>
where
    Attempt: Future<Output = Result<T, Failed>>,
{
    let mut race = Race {
        attempt,
        sleep: N::sleep,
        waiting: interleaved(addresses).into(),
        attempts: Vec::new(),
        next_after: None,
        failed: None,
    };
    poll_fn(|cx| race.poll(cx)).await
}

/// Why an attempt failed.
pub(super) enum Failed {
    /// The address could not be reached, so the next one is tried.
    Address { kind: DialKind, message: String },
    /// The failure concerns the route to all addresses, so no further one is tried. The attempts in
    /// progress continue: a proxy that limits its connections may still complete an earlier one.
    Route(Cause),
}

impl Failed {
    /// The first failure with the highest priority is reported. A host without IPv6 reports every
    /// IPv6 address as unreachable.
    const fn priority(&self) -> u8 {
        match self {
            Self::Address { kind: DialKind::Unreachable, .. } => 0,
            Self::Address { .. } => 1,
            Self::Route(_) => 2,
        }
    }

    pub(super) fn into_cause(self) -> Cause {
        match self {
            Self::Address { kind, message } => Cause::Dial { kind, message },
            Self::Route(cause) => cause,
        }
    }
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

/// The race to one host, with the functions that start attempts and timers, and their futures.
struct Race<A, S, Attempt, Sleep> {
    attempt: A,
    sleep: S,
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<(SocketAddr, Pin<Box<Attempt>>)>,
    /// A timer. When it expires, an attempt to the next address starts in parallel.
    next_after: Option<Pin<Box<Sleep>>>,
    /// The failure to report.
    failed: Option<(SocketAddr, Failed)>,
}

impl<A, S, Attempt, Sleep, T> Race<A, S, Attempt, Sleep>
where
    A: FnMut(SocketAddr) -> Attempt,
    S: Fn(Duration) -> Sleep,
    Attempt: Future<Output = Result<T, Failed>>,
    Sleep: Future<Output = ()>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Option<(SocketAddr, Failed)>>> {
        loop {
            let mut due = self.attempts.is_empty();
            let mut index = 0;
            while let Some((address, attempt)) = self.attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(failed)) => {
                        if matches!(failed, Failed::Route(_)) {
                            self.waiting.clear();
                        }
                        let first = self.failed.as_ref().map(|(_, first)| first.priority());
                        if first < Some(failed.priority()) {
                            self.failed = Some((*address, failed));
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
                    self.attempts.push((address, Box::pin((self.attempt)(address))));
                    if !self.waiting.is_empty() {
                        self.next_after = Some(Box::pin((self.sleep)(NEXT_ADDRESS_AFTER)));
                    }
                    continue;
                }
            }
            if self.attempts.is_empty() {
                return Poll::Ready(Err(self.failed.take()));
            }
            return Poll::Pending;
        }
    }
}

/// Alternates the address families, so that many unreachable IPv6 addresses of a host cost only one delay of
/// 250 ms (RFC 8305 section 4). The first address stays first, because the caller may have prepared its
/// attempt.
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
