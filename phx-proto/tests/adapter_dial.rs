//! Dialling on virtual time: which address is tried when, and how long a refusal may take.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;

use phx_proto::adapter::{ByteStream, Net, Resolver, dial};
use phx_proto::{Config, Failure, Socket, Time};

/// What an address does when it is connected to.
#[derive(Clone, Copy)]
enum Manner {
    Silent,
    Refuses { after: u64 },
    Connects { after: u64 },
}
use Manner::{Connects, Refuses, Silent};

/// The network and the clock of one test, which has a thread of its own.
#[derive(Default)]
struct World {
    now: u64,
    /// When somebody wants to be polled again.
    wakes: Vec<u64>,
    addresses: Vec<(SocketAddr, Manner)>,
    /// What was tried, and when.
    log: Vec<(u64, String)>,
    /// What every stream says, in the order and at the time.
    script: VecDeque<(u64, Vec<u8>)>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn world<T>(work: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(work)
}

async fn wait(milliseconds: u64) {
    let at = world(|world| world.now + milliseconds);
    poll_fn(|_| {
        world(|world| {
            if at <= world.now {
                return Poll::Ready(());
            }
            world.wakes.push(at);
            Poll::Pending
        })
    })
    .await;
}

struct FakeNet;

struct FakeStream;

impl Net for FakeNet {
    type Stream = FakeStream;

    async fn connect(address: SocketAddr) -> io::Result<FakeStream> {
        let manner = world(|world| {
            world.log.push((world.now, address.to_string()));
            let known: BTreeMap<_, _> = world.addresses.iter().copied().collect();
            known[&address]
        });
        match manner {
            Silent => core::future::pending().await,
            Refuses { after } => {
                wait(after).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Connects { after } => {
                wait(after).await;
                world(|world| world.log.push((world.now, format!("{address} connected"))));
                Ok(FakeStream)
            }
        }
    }

    async fn sleep(duration: Duration) {
        wait(u64::try_from(duration.as_millis()).unwrap()).await;
    }
}

impl ByteStream for FakeStream {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        world(|world| match world.script.front() {
            Some((at, _)) if *at > world.now => {
                world.wakes.push(*at);
                Poll::Pending
            }
            Some(_) => {
                let (_, bytes) = world.script.pop_front().unwrap();
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            None => Poll::Ready(Ok(0)),
        })
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs to the end, with the clock leaping to whatever is waited for. `None` when nothing is.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return Some(done);
        }
        let next = world(|world| world.wakes.drain(..).min())?;
        world(|world| world.now = next);
    }
    panic!("it does not end");
}

fn resolver() -> Resolver {
    Resolver::new(|host, _port| {
        let found = world(|world| {
            world.log.push((world.now, host));
            world.addresses.iter().map(|(address, _)| *address).collect()
        });
        core::future::ready(Ok(found))
    })
}

fn dial_once(uri: &str) -> Option<Result<(), Failure>> {
    let config = Config::insecure(uri).unwrap();
    let request = Socket::new(config.clone(), 1, Time::default()).connect_request();
    run(dial::<FakeNet>(&request, &config, &resolver())).map(|dialled| dialled.map(drop))
}

/// Dials a host with these addresses, whose server hangs up at once; what was tried and when.
fn tried(addresses: &[(&str, Manner)]) -> Vec<(u64, String)> {
    let parsed = addresses.iter().map(|(address, manner)| (address.parse().unwrap(), *manner));
    world(|world| world.addresses = parsed.collect());
    let _ = dial_once("ws://backend/");
    world(|world| core::mem::take(&mut world.log))
}

fn log(entries: &[(u64, &str)]) -> Vec<(u64, String)> {
    entries.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
}

fn message(dialled: Option<Result<(), Failure>>) -> String {
    match dialled {
        Some(Err(Failure::Dial { message })) => message,
        other => panic!("expected a failure to dial, got {other:?}"),
    }
}

#[test]
fn a_silent_address_gets_company_after_a_quarter_of_a_second() {
    let tried = tried(&[("10.0.0.1:80", Silent), ("10.0.0.2:80", Connects { after: 10 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (250, "10.0.0.2:80"), (260, "10.0.0.2:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn an_address_that_fails_makes_room_for_the_next_at_once() {
    let tried =
        tried(&[("10.0.0.1:80", Refuses { after: 7 }), ("10.0.0.2:80", Connects { after: 10 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (7, "10.0.0.2:80"), (17, "10.0.0.2:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn an_early_address_that_is_slow_may_still_win() {
    let tried =
        tried(&[("10.0.0.1:80", Connects { after: 300 }), ("10.0.0.2:80", Connects { after: 90 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (250, "10.0.0.2:80"), (300, "10.0.0.1:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn the_families_take_turns() {
    let tried = tried(&[
        ("[fd00::1]:80", Silent),
        ("[fd00::2]:80", Silent),
        ("10.0.0.1:80", Silent),
        ("[fd00::3]:80", Silent),
    ]);
    let expected = [
        (0, "backend"),
        (0, "[fd00::1]:80"),
        (250, "10.0.0.1:80"),
        (500, "[fd00::2]:80"),
        (750, "[fd00::3]:80"),
    ];
    assert_eq!(tried, log(&expected));
}

#[test]
fn when_every_address_fails_the_first_is_named() {
    world(|world| {
        world.addresses = vec![
            ("10.0.0.1:80".parse().unwrap(), Refuses { after: 5 }),
            ("10.0.0.2:80".parse().unwrap(), Refuses { after: 1 }),
        ];
    });
    let message = message(dial_once("ws://backend/"));
    let expected = "none of the 2 addresses of \"backend\" could be reached; 10.0.0.1:80: ";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_name_without_addresses_is_named() {
    assert_eq!(message(dial_once("ws://backend/")), "the name \"backend\" has no address");
}

#[test]
fn wss_without_tls_is_refused_before_anything_is_looked_up() {
    let Some(Err(Failure::Unsupported { message })) = dial_once("wss://backend/") else {
        panic!("it is refused");
    };
    assert!(message.contains("feature `tls`"), "{message}");
    assert_eq!(world(|world| world.log.len()), 0);
}

#[test]
fn a_refusals_body_that_trickles_in_is_waited_for_for_a_second_in_all() {
    let head = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let trickle = (1..1_000).map(|n| (5_000 + 300 * n, b"x".to_vec()));
    world(|world| {
        world.addresses = vec![("10.0.0.1:80".parse().unwrap(), Connects { after: 0 })];
        world.script = core::iter::once((5_000, head)).chain(trickle).collect();
    });
    let Some(Err(Failure::Refused(refusal))) = dial_once("ws://backend/") else {
        panic!("it is refused");
    };
    assert_eq!((refusal.status(), &*refusal.body_text()), (503, "xxx"));
    assert_eq!(world(|world| world.now), 6_000);
}
