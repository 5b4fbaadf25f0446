//! Dialling on virtual time: which address is tried when, and how long a refusal may take to arrive.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;

use futures_io::{AsyncRead, AsyncWrite};
use phx_proto::adapter::{Net, Resolver, dial};
use phx_proto::config::{Proxy, Uri};
use phx_proto::event::{ConnectRequest, DialKind, Refusal, SocksRefusal};
use phx_proto::{Cause, Config, Socket, Time};

/// How an address reacts to a connect.
#[derive(Clone, Copy)]
enum Manner {
    Silent,
    Refuses { after: u64 },
    Fails(io::ErrorKind),
    Connects { after: u64 },
}
use Manner::{Connects, Fails, Refuses, Silent};

/// The network and the clock of one test. Each test runs in a thread of its own.
#[derive(Default)]
struct World {
    now: u64,
    /// When the timers are due.
    wakes: Vec<u64>,
    addresses: Vec<(SocketAddr, Manner)>,
    /// The error of every name resolution; `None` if they succeed.
    unresolvable: Option<io::ErrorKind>,
    /// What was tried, and when.
    log: Vec<(u64, String)>,
    /// The bytes that the streams without a script of their own receive.
    script: Script,
    /// The scripts of the next streams, in the order in which they are connected.
    scripts: VecDeque<Script>,
}

/// The bytes that a stream receives, and the times at which they arrive.
type Script = VecDeque<(u64, Vec<u8>)>;

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

struct FakeStream {
    own: Option<Script>,
}

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
            Fails(kind) => Err(kind.into()),
            Connects { after } => {
                wait(after).await;
                world(|world| world.log.push((world.now, format!("{address} connected"))));
                Ok(FakeStream { own: world(|world| world.scripts.pop_front()) })
            }
        }
    }

    async fn sleep(duration: Duration) {
        wait(u64::try_from(duration.as_millis()).unwrap()).await;
    }
}

impl AsyncRead for FakeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        world(|world| {
            let script = self.get_mut().own.as_mut().unwrap_or(&mut world.script);
            match script.front() {
                Some((at, _)) if *at > world.now => {
                    world.wakes.push(*at);
                    Poll::Pending
                }
                Some(_) => {
                    let (_, bytes) = script.pop_front().unwrap();
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    Poll::Ready(Ok(bytes.len()))
                }
                None => Poll::Ready(Ok(0)),
            }
        })
    }
}

impl AsyncWrite for FakeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls a future to its end, advancing the clock to the next timer. `None` if it waits and there is
/// no timer.
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
            match world.unresolvable {
                Some(kind) => Err(kind.into()),
                None => Ok(world.addresses.iter().map(|(address, _)| *address).collect()),
            }
        });
        core::future::ready(found)
    })
}

fn dial_once(uri: &str) -> Option<Result<(), Cause>> {
    let config = Config::insecure(uri).unwrap();
    let request = Socket::new(config.clone(), 1, Time::default())
        .connect_request()
        .expect("an address that may be dialled");
    run(dial::<FakeNet>(&request, &config, &resolver())).map(|dialled| dialled.map(drop))
}

/// Dials a host with these addresses, whose server closes at once. Returns what was tried and when.
fn tried(addresses: &[(&str, Manner)]) -> Vec<(u64, String)> {
    let parsed = addresses.iter().map(|(address, manner)| (address.parse().unwrap(), *manner));
    world(|world| world.addresses = parsed.collect());
    let _ = dial_once("ws://backend/");
    world(|world| core::mem::take(&mut world.log))
}

fn log(entries: &[(u64, &str)]) -> Vec<(u64, String)> {
    entries.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
}

fn message(dialled: Option<Result<(), Cause>>) -> String {
    match dialled {
        Some(Err(Cause::Dial { message, .. })) => message,
        other => panic!("expected a failure to dial, got {other:?}"),
    }
}

#[test]
fn silent_address_starts_next_after_250_ms() {
    let tried = tried(&[("10.0.0.1:80", Silent), ("10.0.0.2:80", Connects { after: 10 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (250, "10.0.0.2:80"), (260, "10.0.0.2:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn failed_address_starts_next_at_once() {
    let tried =
        tried(&[("10.0.0.1:80", Refuses { after: 7 }), ("10.0.0.2:80", Connects { after: 10 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (7, "10.0.0.2:80"), (17, "10.0.0.2:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn slow_early_address_may_still_win() {
    let tried =
        tried(&[("10.0.0.1:80", Connects { after: 300 }), ("10.0.0.2:80", Connects { after: 90 })]);
    let expected =
        [(0, "backend"), (0, "10.0.0.1:80"), (250, "10.0.0.2:80"), (300, "10.0.0.1:80 connected")];
    assert_eq!(tried, log(&expected));
}

#[test]
fn address_families_take_turns() {
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
fn first_failure_is_reported_if_all_fail() {
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
fn name_without_addresses_is_reported() {
    assert_eq!(message(dial_once("ws://backend/")), "the name \"backend\" has no address");
}

/// The kind of a failure to dial a host with these addresses, and the address in the error.
fn kind(addresses: &[(&str, Manner)]) -> (DialKind, String) {
    let parsed = addresses.iter().map(|(address, manner)| (address.parse().unwrap(), *manner));
    world(|world| world.addresses = parsed.collect());
    match dial_once("ws://backend/") {
        Some(Err(Cause::Dial { kind, message })) => (kind, message),
        other => panic!("expected a failure to dial, got {other:?}"),
    }
}

#[test]
fn dial_failure_has_the_kind_of_its_error() {
    for (error, expected) in [
        (io::ErrorKind::ConnectionRefused, DialKind::Refused),
        (io::ErrorKind::HostUnreachable, DialKind::Unreachable),
        (io::ErrorKind::NetworkUnreachable, DialKind::Unreachable),
        (io::ErrorKind::NetworkDown, DialKind::Unreachable),
        (io::ErrorKind::AddrNotAvailable, DialKind::Unreachable),
        (io::ErrorKind::TimedOut, DialKind::TimedOut),
        (io::ErrorKind::ConnectionReset, DialKind::Other),
        (io::ErrorKind::PermissionDenied, DialKind::Other),
    ] {
        assert_eq!(kind(&[("10.0.0.1:80", Fails(error))]).0, expected, "{error:?}");
    }
    assert_eq!(kind(&[]).0, DialKind::Dns);
    // The server closes during the upgrade.
    assert_eq!(kind(&[("10.0.0.1:80", Connects { after: 0 })]).0, DialKind::Other);
    world(|world| world.unresolvable = Some(io::ErrorKind::TimedOut));
    assert_eq!(kind(&[("10.0.0.1:80", Silent)]).0, DialKind::Dns);
}

/// RFC 6724 puts IPv6 first, and a host without it reports "network is unreachable" at once.
#[test]
fn unreachable_family_hides_no_refused_port() {
    let unreachable = Fails(io::ErrorKind::NetworkUnreachable);
    let (kind_of, message) =
        kind(&[("[fd00::1]:80", unreachable), ("10.0.0.1:80", Refuses { after: 1 })]);
    assert_eq!(kind_of, DialKind::Refused);
    assert!(message.contains("10.0.0.1:80"), "{message}");
    let (kind_of, message) = kind(&[("[fd00::1]:80", unreachable), ("[fd00::2]:80", unreachable)]);
    assert_eq!(kind_of, DialKind::Unreachable);
    assert!(message.contains("[fd00::1]:80"), "{message}");
}

#[test]
fn wss_without_tls_fails_before_lookup() {
    let Some(Err(Cause::Unsupported { message })) = dial_once("wss://backend/") else {
        panic!("it is refused");
    };
    assert!(message.contains("feature `ring`"), "{message}");
    assert_eq!(world(|world| world.log.len()), 0);
}

#[test]
fn trickling_refusal_body_waits_one_second() {
    let head = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let trickle = (1..1_000).map(|n| (5_000 + 300 * n, b"x".to_vec()));
    world(|world| {
        world.addresses = vec![("10.0.0.1:80".parse().unwrap(), Connects { after: 0 })];
        world.script = core::iter::once((5_000, head)).chain(trickle).collect();
    });
    let Some(Err(Cause::Refused(refusal))) = dial_once("ws://backend/") else {
        panic!("it is refused");
    };
    assert_eq!((refusal.status(), &*refusal.body_text()), (503, "xxx"));
    assert_eq!(world(|world| world.now), 6_000);
}

/// The status of a refusal is reported before the attempt times out, also if its body does not arrive:
/// with a short timeout, with a head that arrives late, and if the refusal is of the proxy.
#[test]
fn refusal_is_reported_before_connect_timeout() {
    let head = |status: u16, last: &str| {
        format!("HTTP/1.1 {status} No\r\nTransfer-Encoding: chunked\r\n{last}\r\n").into_bytes()
    };
    let outcome = |timeout: u64, config: Config, at: u64, head: Vec<u8>| {
        world(|world| {
            *world = World::default();
            world.addresses = vec![("10.0.0.1:80".parse().unwrap(), Connects { after: 0 })];
            world.script = [(at, head), (60_000, b"0\r\n\r\n".to_vec())].into();
        });
        let config = config.connect_timeout(Duration::from_millis(timeout));
        let outcome = dialled(&config).1;
        let now = world(|world| world.now);
        assert!(now < timeout, "{outcome:?} at {now} of {timeout}");
        outcome
    };
    let config = Config::insecure("ws://backend/").unwrap();
    for (timeout, at) in [(400, 0), (400, 250), (400, 350), (10_000, 8_500), (10_000, 9_500)] {
        let outcome = outcome(timeout, config.clone(), at, head(401, "Retry-After: 7\r\n"));
        let Some(Err(Cause::Refused(refusal))) = outcome else { panic!("{outcome:?}") };
        assert_eq!((refusal.status(), refusal.header("retry-after")), (401, Some("7")));
    }
    let config = config.proxy(Proxy::parse("http://10.0.0.1:80").unwrap());
    let outcome = outcome(400, config, 0, head(407, ""));
    let Some(Err(Cause::ProxyRefused(refusal))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusal.status(), 407);
}

/// Dials a server that refuses with 503 and whose body does not end. Returns when that is reported.
fn refused_after(request: &ConnectRequest, config: &Config, resolver: &Resolver) -> u64 {
    let outcome = run(dial::<FakeNet>(request, config, resolver)).map(|dialled| dialled.map(drop));
    let Some(Err(Cause::Refused(refusal))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusal.status(), 503);
    world(|world| world.now)
}

/// A credential provider or a resolver took most of the time of the attempt.
#[test]
fn slow_start_hides_no_refusal() {
    let answers = |at: u64| {
        let head = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n".to_vec();
        world(|world| {
            *world = World::default();
            world.addresses = vec![("10.0.0.1:80".parse().unwrap(), Connects { after: 0 })];
            world.script = [(at, head), (60_000, b"x".to_vec())].into();
        });
    };
    let config = Config::insecure("ws://backend/").unwrap();
    let mut socket = Socket::new(config.clone(), 1, Time::ZERO);
    socket.connect(Time::ZERO);
    let id = socket.connection_id().unwrap();
    let request = socket.connect_request().unwrap();
    let slow = Resolver::new(|_, _| async {
        wait(9_600).await;
        Ok(vec!["10.0.0.1:80".parse().unwrap()])
    });
    answers(9_700);
    assert_eq!(refused_after(&request, &config, &slow), 9_700);
    socket.handle_dialled(Time::from_millis(9_600), id);
    let request = socket.connect_request().unwrap();
    answers(100);
    assert_eq!(refused_after(&request, &config, &resolver()), 300);
}

/// Dials with this configuration; returns what was tried, and the result.
fn dialled(config: &Config) -> (Vec<String>, Option<Result<(), Cause>>) {
    let request = Socket::new(config.clone(), 1, Time::default()).connect_request().unwrap();
    let outcome =
        run(dial::<FakeNet>(&request, config, &resolver())).map(|dialled| dialled.map(drop));
    let log = world(|world| core::mem::take(&mut world.log));
    (log.into_iter().map(|(_, what)| what).collect(), outcome)
}

fn resolves_to(addresses: &[&str]) {
    world(|world| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        world.addresses = addresses.map(|address| (address, Refuses { after: 1 })).collect();
    });
}

/// Many resolvers look up names below `localhost` in the DNS, so such a name may be remote.
#[test]
fn clear_text_follows_no_remote_name() {
    resolves_to(&["10.0.0.1:80", "127.0.0.1:80", "[::ffff:10.0.0.2]:80", "[::1]:80"]);
    let config = Config::new("ws://a.localhost/").unwrap();
    let (tried, _) = dialled(&config);
    assert_eq!(tried, ["a.localhost", "127.0.0.1:80", "[::1]:80"]);

    resolves_to(&["10.0.0.1:80"]);
    let (tried, outcome) = dialled(&config);
    assert_eq!(tried, ["a.localhost"]);
    let message = message(outcome);
    assert!(message.contains("resolves to 10.0.0.1, which is not this machine"), "{message}");

    let (tried, _) = dialled(&Config::insecure("ws://a.localhost/").unwrap());
    assert_eq!(tried, ["a.localhost", "10.0.0.1:80"]);
}

/// A proxy can read everything that is sent unencrypted.
#[test]
fn clear_text_uses_no_remote_proxy() {
    resolves_to(&["127.0.0.1:80"]);
    let through = |proxy: &str| Proxy::parse(proxy).unwrap();
    let config = Config::new("ws://localhost/").unwrap();
    let (tried, outcome) = dialled(&config.clone().proxy(through("proxy.internal")));
    assert_eq!(tried, [""; 0]);
    let Some(Err(Cause::Unsupported { message })) = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with("ws:// to proxy.internal would send"), "{message}");

    let (tried, _) = dialled(&config.proxy(through("localhost:1")));
    assert_eq!(tried, ["localhost", "127.0.0.1:80"]);
    let insecure = Config::insecure("ws://localhost/").unwrap();
    let (tried, _) = dialled(&insecure.proxy(through("proxy.internal")));
    assert_eq!(tried, ["proxy.internal", "127.0.0.1:80"]);
}

/// With `socks5`, the next address of the server is tried after a failure to reach one. Any other failure
/// concerns the proxy itself, so the proxy is not tried again for each address.
#[test]
fn failed_socks_proxy_is_tried_once() {
    const PROXY: &str = "10.0.0.9:1080";
    let proxy = Proxy::parse(&format!("socks5://{PROXY}")).unwrap();
    let config = Config::insecure("ws://backend/").unwrap().proxy(proxy);
    let tries = |manner, script: &[&[u8]]| {
        resolves_to(&["10.0.0.1:80", "10.0.0.2:80"]);
        world(|world| {
            world.addresses.push((PROXY.parse().unwrap(), manner));
            world.script = script.iter().map(|bytes| (0, bytes.to_vec())).collect();
        });
        let (tried, outcome) = dialled(&config);
        assert!(matches!(outcome, Some(Err(Cause::Dial { .. }))), "{outcome:?}");
        tried.iter().filter(|what| *what == PROXY).count()
    };
    let (accepts, unreached) = (&b"\x05\x00"[..], &b"\x05\x04\x00\x01\0\0\0\0\0\0"[..]);
    assert_eq!(tries(Refuses { after: 1 }, &[]), 1);
    assert_eq!(tries(Connects { after: 0 }, &[accepts]), 1, "it ends the stream");
    assert_eq!(tries(Connects { after: 0 }, &[accepts, unreached, accepts, unreached, accepts]), 3);
}

const SOCKS_ACCEPTS: &[u8] = b"\x05\x00";
const SOCKS_CONNECTED: &[u8] = b"\x05\x00\x00\x01\0\0\0\0\0\0";
const SOCKS_UNREACHABLE: &[u8] = b"\x05\x04\x00\x01\0\0\0\0\0\0";
const SOCKS_CONNECTION_REFUSED: &[u8] = b"\x05\x05\x00\x01\0\0\0\0\0\0";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Dials a host with these addresses through a proxy `socks5`. Each script belongs to one connection to
/// the proxy. Returns the start times of these connections, and the result.
fn through_socks(
    addresses: &[&str],
    manner: Manner,
    scripts: &[&[(u64, &[u8])]],
) -> (Vec<u64>, Option<Result<(), Cause>>) {
    const PROXY: &str = "127.0.0.9:1080";
    let proxy = Proxy::parse(&format!("socks5://{PROXY}")).unwrap();
    let config = Config::insecure("ws://backend/").unwrap().proxy(proxy);
    world(|world| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        world.addresses = addresses.map(|address| (address, Silent)).collect();
        let script = |script: &&[(u64, &[u8])]| {
            script.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect()
        };
        world.scripts = scripts.iter().map(script).collect();
    });
    let resolver = Resolver::new(move |host, _port| {
        let known = world(|world| world.addresses.clone());
        // The address of the proxy is not resolved.
        assert_eq!(host, "backend");
        world(|world| world.addresses.push((PROXY.parse().unwrap(), manner)));
        core::future::ready(Ok(known.into_iter().map(|(address, _)| address).collect()))
    });
    let request = Socket::new(config.clone(), 1, Time::default()).connect_request().unwrap();
    let outcome =
        run(dial::<FakeNet>(&request, &config, &resolver)).map(|dialled| dialled.map(drop));
    let log = world(|world| core::mem::take(&mut world.log));
    (log.into_iter().filter(|(_, what)| what == PROXY).map(|(at, _)| at).collect(), outcome)
}

/// If an address drops packets, the proxy reports that only after its own timeout.
#[test]
fn silent_address_behind_socks_starts_next() {
    let silent: &[(u64, &[u8])] = &[(0, SOCKS_ACCEPTS), (130_000, SOCKS_UNREACHABLE)];
    let works: &[(u64, &[u8])] = &[(0, SOCKS_ACCEPTS), (0, SOCKS_CONNECTED), (0, NOT_FOUND)];
    let addresses = ["10.0.0.1:80", "10.0.0.2:80"];
    let (started, outcome) = through_socks(&addresses, Connects { after: 0 }, &[silent, works]);
    let Some(Err(Cause::Refused(refusal))) = outcome else { panic!("{outcome:?}") };
    assert_eq!((refusal.status(), started), (404, vec![0, 250]));
}

/// A proxy without IPv6 reports every IPv6 address as unreachable.
#[test]
fn unreachable_family_behind_socks_hides_nothing() {
    let unreachable: &[(u64, &[u8])] = &[(0, SOCKS_ACCEPTS), (0, SOCKS_UNREACHABLE)];
    let refused: &[(u64, &[u8])] = &[(0, SOCKS_ACCEPTS), (0, SOCKS_CONNECTION_REFUSED)];
    let addresses = ["[fd00::1]:80", "10.0.0.1:80"];
    let (started, outcome) =
        through_socks(&addresses, Connects { after: 0 }, &[unreachable, refused]);
    let Some(Err(Cause::Dial { kind, message })) = outcome else { panic!("{outcome:?}") };
    assert_eq!((kind, started), (DialKind::Refused, vec![0, 0]), "{message}");
}

/// A proxy may limit the connections of a client. The attempt in progress is not affected.
#[test]
fn slow_tunnel_survives_failure_of_next() {
    let slow: &[(u64, &[u8])] = &[(0, SOCKS_ACCEPTS), (300, SOCKS_CONNECTED), (300, NOT_FOUND)];
    let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let (started, outcome) = through_socks(&addresses, Connects { after: 0 }, &[slow, &[]]);
    let Some(Err(Cause::Refused(refusal))) = outcome else { panic!("{outcome:?}") };
    assert_eq!((refusal.status(), started), (404, vec![0, 250]));
}

/// The proxy takes longer to refuse the client than an address has until the next one is tried.
#[test]
fn slow_socks_refusal_is_asked_once() {
    let refuses: &[(u64, &[u8])] = &[(300, &[5, 0xff])];
    let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let scripts = [refuses; 3];
    let (started, outcome) = through_socks(&addresses, Connects { after: 0 }, &scripts);
    assert_eq!(outcome, Some(Err(Cause::SocksRefused(SocksRefusal::Credentials))));
    assert_eq!(started, [0]);
}

/// An address gets its 250 ms after the proxy has accepted the client.
#[test]
fn slow_socks_proxy_delays_the_race() {
    let silent: &[(u64, &[u8])] = &[(300, SOCKS_ACCEPTS), (130_000, SOCKS_UNREACHABLE)];
    let works: &[(u64, &[u8])] = &[(600, SOCKS_ACCEPTS), (600, SOCKS_CONNECTED), (600, NOT_FOUND)];
    let addresses = ["10.0.0.1:80", "10.0.0.2:80"];
    let (started, outcome) = through_socks(&addresses, Connects { after: 0 }, &[silent, works]);
    let Some(Err(Cause::Refused(refusal))) = outcome else { panic!("{outcome:?}") };
    assert_eq!((refusal.status(), started), (404, vec![0, 550]));
}

#[test]
fn socks_reply_before_request_is_refused() {
    let hasty = [SOCKS_ACCEPTS, SOCKS_CONNECTED].concat();
    let hasty: &[(u64, &[u8])] = &[(0, &hasty)];
    let (_, outcome) = through_socks(&["10.0.0.1:80"], Connects { after: 0 }, &[hasty]);
    let message = message(outcome);
    assert!(message.contains("the response is not SOCKS5"), "{message}");
}

#[test]
fn silent_socks_proxy_is_tried_once() {
    let (started, outcome) = through_socks(&["10.0.0.1:80", "10.0.0.2:80"], Silent, &[]);
    assert_eq!((started, outcome), (vec![0], None));
}

#[test]
fn connect_to_replaces_the_dialled_host() {
    resolves_to(&["10.0.0.1:80"]);
    let config = Config::insecure("ws://backend/").unwrap().connect_to("forwarded:81").unwrap();
    assert_eq!(dialled(&config).0, ["forwarded", "10.0.0.1:80"]);
    // An unusable proxy in the environment is an error only in a request that would use it.
    let bad = |name: &str| (name == "ALL_PROXY").then(|| "ftp://proxy".to_owned());
    let near = Config::insecure("ws://localhost/").unwrap().proxy_from_env(bad).unwrap();
    assert_eq!(dialled(&near).0, ["localhost", "10.0.0.1:80"]);
    let mut request = Socket::new(near.clone(), 1, Time::default()).connect_request().unwrap();
    request.uri = Uri::parse("ws://backend/").unwrap();
    let outcome =
        run(dial::<FakeNet>(&request, &near, &resolver())).map(|dialled| dialled.map(drop));
    let Some(Err(Cause::Unsupported { message })) = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with("invalid ALL_PROXY"), "{message}");
}

/// The manual quotes these parts of the messages, so that a search finds its page. The messages of
/// TLS are in the tests of both adapters.
#[test]
fn manual_quotes_the_messages() {
    let config = |uri: &str| Config::insecure(uri).unwrap();
    let said = |script: &[u8]| {
        resolves_to(&[]);
        world(|world| {
            world.addresses = vec![("10.0.0.1:80".parse().unwrap(), Connects { after: 0 })];
            world.script = [(world.now, script.to_vec())].into();
        });
        message(dialled(&config("ws://backend/")).1)
    };
    let refusal = |status| Cause::Refused(Refusal::new(status, Vec::new(), "")).to_string();
    world(|world| world.unresolvable = Some(io::ErrorKind::NotFound));
    let unresolved = message(dialled(&config("ws://backend/")).1);
    world(|world| world.unresolvable = None);
    let messages = [
        ("could not be resolved", unresolved),
        ("has no address", kind(&[]).1),
        ("refused", kind(&[("10.0.0.1:80", Refuses { after: 0 })]).1),
        ("unreachable", kind(&[("10.0.0.1:80", Fails(io::ErrorKind::NetworkUnreachable))]).1),
        ("took too long", Cause::ConnectTimeout.to_string()),
        ("a wss:// address", said(b"\x15\x03\x03\x00\x02\x02\x46")),
        ("a wss:// address", said(b"")),
        ("/websocket", refusal(404)),
        ("check_origin", refusal(403)),
        ("vsn", refusal(403)),
        ("proxy", Cause::ProxyRefused(Refusal::new(407, Vec::new(), "")).to_string()),
        ("proxy", Cause::SocksRefused(SocksRefusal::Credentials).to_string()),
        ("proxy", refusal(426)),
        ("in the clear", Config::new("ws://backend/").unwrap_err().to_string()),
        ("xn--", Config::new("ws://b\u{fc}cher.example/").unwrap_err().to_string()),
    ];
    let page = include_str!("../../src/manual/when_it_does_not_connect.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for (word, message) in &messages {
        assert!(message.contains(word), "{word}: {message}");
        assert!(rows.iter().any(|row| row.contains(&format!("`{word}`"))), "{word} has no row");
    }
    // Each row links to a heading.
    for row in rows {
        let anchor = row.split("](#").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
        let heading = page.lines().filter_map(|line| line.strip_prefix("# ")).any(|heading| {
            let kept = |c: char| c.is_alphanumeric() || c == ' ' || c == '-' || c == '_';
            let id: String = heading.to_lowercase().chars().filter(|c| kept(*c)).collect();
            id.replace(' ', "-") == anchor
        });
        assert!(heading, "{anchor}");
    }
}
