//! Credentials that a provider returns before every attempt, over a transport in memory.

use core::future::{pending, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::bench::{Bench, ready};
use crate::hand::{Hand, config, secs};
use phx_proto::client::{ClientEvent, ConnectAttempt, CredentialsFailed, Provided, Setup};
use phx_proto::config::{Backoff, Uri};
use phx_proto::event::{NextStep, Refusal};
use phx_proto::{Cause, Config, Credentials, Ended, Signal, Status};

/// A time that is longer than the delays in the tests that use it.
const LONG: Duration = Duration::from_secs(20);

fn token(text: &str) -> Provided {
    Provided::Use(Credentials::new().param("token", text))
}

/// A setup whose provider calls `answer` for each attempt and stores the attempts.
fn setup(
    config: Config,
    answer: impl Fn(&ConnectAttempt) -> Result<Provided, CredentialsFailed> + Send + Sync + 'static,
) -> (Setup, Arc<Mutex<Vec<ConnectAttempt>>>) {
    let asked: Arc<Mutex<Vec<ConnectAttempt>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let setup = Setup::new(config).credentials(move |attempt| {
        let answer = answer(&attempt);
        seen.lock().expect("no panic under the lock").push(attempt);
        async move { answer }
    });
    (setup, asked)
}

fn queries(bench: &Bench) -> Vec<String> {
    let world = bench.memory.world();
    world.requests.iter().map(|request| request.uri.target()).collect()
}

fn refused(status: u16) -> Cause {
    Cause::Refused(Refusal::new(status, Vec::new(), ""))
}

/// The provider is awaited for every attempt, and its answer replaces the earlier credentials as a
/// whole. Reported in CuatroElixir/slipstream#48, dsrees/JavaPhoenixClient#82,
/// phoenixframework/phoenix#3515, phoenixframework/phoenix#6285 and supabase/supabase-js#2596.
#[test]
fn provider_is_asked_for_every_attempt() {
    let count = AtomicUsize::new(0);
    let mut bench = Bench::new(|config| {
        let config = config.param("old", "1");
        setup(config, move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(token("one")),
            1 => Ok(Provided::Use(Credentials::new())),
            _ => Ok(token("three")),
        })
        .0
    });
    bench.cut();
    bench.advance(LONG);
    bench.cut();
    bench.advance(LONG);
    let queries = queries(&bench);
    assert!(queries[0].contains("token=one") && !queries[0].contains("old="), "{queries:?}");
    assert!(!queries[1].contains("token="), "a token taken away is not sent: {queries:?}");
    assert!(queries[2].contains("token=three"), "{queries:?}");
}

/// The provider receives the cause of the last failure, so it can distinguish a refusal from a
/// network that is down. A 401 is retried with new credentials. Reported in
/// phoenixframework/phoenix#4414 and phoenixframework/phoenix#2847.
#[test]
fn provider_sees_why_the_last_attempt_failed() {
    let mut asked = None;
    let mut bench = Bench::new(|config| {
        let (setup, seen) = setup(config, |_| Ok(token("t")));
        asked = Some(seen);
        setup
    });
    bench.memory.world().failures.push_back(refused(401));
    bench.cut();
    bench.advance(LONG);
    bench.advance(LONG);
    let asked = asked.expect("made").lock().expect("no panic").clone();
    assert_eq!(asked.len(), 3);
    assert_eq!((asked[0].attempt, &asked[0].after), (0, &None));
    assert!(matches!(asked[1].after, Some(Cause::TransportLost { .. })));
    assert!(matches!(&asked[2].after, Some(Cause::Refused(refusal)) if refusal.status() == 401));
    assert_eq!(bench.client.status(), Status::Open);
}

/// After a local `disconnect` during the wait for a retry, the next attempt has no cause.
#[test]
fn provider_sees_no_cause_after_disconnect() {
    let mut asked = None;
    let mut bench = Bench::new(|config| {
        let (setup, seen) = setup(config, |_| Ok(token("t")));
        asked = Some(seen);
        setup
    });
    bench.cut();
    let client = bench.client.clone();
    assert!(matches!(client.status(), Status::Waiting { .. }));
    ready(pin!(client.disconnect()));
    client.connect();
    bench.settle();
    let asked = asked.expect("made").lock().expect("no panic").clone();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[1].attempt, &asked[1].after), (0, &None));
}

/// After a 401 or a 403, the answer `Unchanged` is final. At any other time the attempt continues.
/// Reported in tinyhumansai/openhuman#2892.
#[test]
fn unchanged_is_final_after_refusal() {
    for (failure, is_final) in [
        (refused(401), true),
        (refused(403), true),
        (refused(503), false),
        (
            Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "no route".into() },
            false,
        ),
    ] {
        let mut bench = Bench::new(|config| setup(config, |_| Ok(Provided::Unchanged)).0);
        assert_eq!(bench.client.status(), Status::Open, "with the configured credentials");
        bench.memory.world().failures.push_back(failure.clone());
        bench.cut();
        bench.advance(LONG);
        bench.advance(LONG);
        let status = bench.client.status();
        let gave_up = status == Status::GaveUp { cause: Cause::CredentialsUnchanged };
        assert_eq!(gave_up, is_final, "{failure:?}: {status:?}");
        assert_eq!(status == Status::Open, !is_final, "{failure:?}: {status:?}");
    }
}

/// After the provider has given up, the client does not dial.
#[test]
fn provider_giving_up_is_final() {
    let bench = Bench::new(|config| setup(config, |_| Ok(Provided::GiveUp("revoked".into()))).0);
    let cause = Cause::CredentialsGaveUp { reason: "revoked".into() };
    assert_eq!(bench.client.status(), Status::GaveUp { cause });
    assert_eq!(bench.memory.world().dials, 0);
}

/// An error of the provider is a failed attempt, and the next attempt calls the provider again.
#[test]
fn provider_error_is_a_failed_attempt() {
    let count = AtomicUsize::new(0);
    let mut bench = Bench::new(|config| {
        setup(config, move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Err(CredentialsFailed::new("the vault is sealed")),
            _ => Ok(token("t")),
        })
        .0
    });
    let Status::Waiting { cause, .. } = bench.client.status() else { panic!("not waiting") };
    assert_eq!(cause, Cause::CredentialsFailed { message: "the vault is sealed".into() });
    assert_eq!(bench.memory.world().dials, 0);
    bench.advance(LONG);
    assert_eq!(bench.client.status(), Status::Open);
}

#[test]
fn provider_address_not_allowed_fails_the_attempt() {
    let bench = Bench::new(|config| {
        let uri = Uri::parse("ws://example.com/socket/websocket").expect("a URI");
        setup(config, move |_| Ok(Provided::Use(Credentials::new().uri(uri.clone())))).0
    });
    let Status::Waiting { cause, .. } = bench.client.status() else { panic!("not waiting") };
    assert!(matches!(cause, Cause::CredentialsFailed { .. }), "{cause:?}");
    assert_eq!(bench.memory.world().dials, 0);
}

#[test]
fn provider_panic_is_a_failed_attempt() {
    let count = AtomicUsize::new(0);
    let mut bench = Bench::new(|config| {
        setup(config, move |_| {
            assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
            Ok(token("t"))
        })
        .0
    });
    assert!(matches!(bench.client.status(), Status::Waiting { .. }));
    bench.advance(LONG);
    assert_eq!(bench.client.status(), Status::Open);
}

/// The connect timeout covers the whole attempt, the provider included. Reported in
/// firezone/firezone#11591.
#[test]
fn connect_timeout_covers_the_provider() {
    let mut bench = Bench::new(|config| {
        Setup::new(config.connect_timeout(Duration::from_secs(3)))
            .credentials(|_| pending::<Result<Provided, CredentialsFailed>>())
    });
    bench.advance(Duration::from_millis(2_999));
    assert_eq!(bench.client.status(), Status::Connecting { attempt: 0 });
    bench.advance(Duration::from_millis(1));
    let Status::Waiting { cause, .. } = bench.client.status() else { panic!("not waiting") };
    assert_eq!(cause, Cause::ConnectTimeout);
}

/// A disconnect while the provider is pending closes the client, and nothing is dialled. Reported in
/// phoenixframework/phoenix#1841 and phoenixframework/phoenix#2187.
#[test]
fn disconnect_wins_over_pending_provider() {
    let mut bench = Bench::new(|config| {
        Setup::new(config).credentials(|_| pending::<Result<Provided, CredentialsFailed>>())
    });
    let client = bench.client.clone();
    crate::bench::ready(core::pin::pin!(async {
        let mut disconnect = core::pin::pin!(client.disconnect());
        let _ = crate::bench::poll(disconnect.as_mut());
    }));
    bench.settle();
    assert_eq!(bench.client.status(), Status::Closed);
    bench.advance(LONG);
    assert_eq!(bench.memory.world().dials, 0);
}

/// The dial learns how much of the timeout the provider has left.
#[test]
fn slow_provider_leaves_less_to_the_dial() {
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::clone(&done);
    let mut bench = Bench::new(|config| {
        Setup::new(config.connect_timeout(secs(10))).credentials(move |_| {
            let answered = Arc::clone(&answered);
            poll_fn(move |_| match answered.load(Ordering::Relaxed) {
                true => Poll::Ready(Ok(Provided::Unchanged)),
                false => Poll::Pending,
            })
        })
    });
    bench.advance(secs(8));
    assert_eq!(queries(&bench), Vec::<String>::new());
    done.store(true, Ordering::Relaxed);
    bench.advance(Duration::from_millis(500));
    let world = bench.memory.world();
    let timeouts: Vec<_> = world.requests.iter().map(|request| request.timeout).collect();
    assert_eq!(timeouts, [Duration::from_millis(1_500)]);
}

/// The driver does not dial an address that the core refuses. It does not retry either, because the
/// result would be the same.
#[test]
fn refused_address_is_not_dialled() {
    let elsewhere =
        Credentials::new().auth_token("t").uri(Uri::parse("ws://example.com/s").unwrap());
    let bench = Bench::new(|config| Setup::new(config.credentials(elsewhere)));
    let status = bench.client.status();
    let Status::GaveUp { cause: Cause::Unsupported { message } } = status else {
        panic!("{status:?}")
    };
    assert!(message.contains("ws:// to example.com"), "{message}");
    assert_eq!(queries(&bench), Vec::<String>::new());
}

/// The provider is called for the attempts after a timer, after a wake-up and after `connect_now`.
/// Reported in supabase/supabase-js#2613.
#[test]
fn provider_is_asked_on_every_path() {
    type Dial = fn(&mut Bench);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let mut bench = Bench::new(|config| {
        let steps = Backoff::steps_msec(&[60_000]).expect("a schedule");
        Setup::new(config.reconnect_after(steps)).credentials(move |_| {
            let nr = count.fetch_add(1, Ordering::Relaxed);
            async move { Ok(Provided::Use(Credentials::new().param("token", format!("t{nr}")))) }
        })
    });
    let ways: [(&str, Dial); 5] = [
        ("timer", |bench| {
            for _ in 0..60 {
                if bench.client.status() != Status::Open {
                    bench.advance(secs(1));
                }
            }
        }),
        ("wake", |bench| {
            bench.memory.world().slept += secs(10);
            bench.settle();
        }),
        ("connect_now", |bench| {
            bench.client.connect_now().expect("a connection is kept");
            bench.settle();
        }),
        ("clock jump", |bench| bench.advance(secs(600))),
        ("disconnect and connect", |bench| {
            bench.client.set_credentials(Credentials::new()).expect("no address in it");
            let client = bench.client.clone();
            let mut disconnect = core::pin::pin!(client.disconnect());
            assert!(crate::bench::poll(disconnect.as_mut()).is_ready(), "nothing is open");
            bench.client.connect();
            bench.settle();
        }),
    ];
    for (round, (way, dial)) in ways.into_iter().enumerate() {
        assert_eq!(bench.client.status(), Status::Open, "before {way}");
        assert_eq!(asked.load(Ordering::Relaxed), 2 * round + 1, "before {way}");
        // A stable connection is lost; the first retry is soon, and fails.
        bench.advance(secs(11));
        let failure =
            Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "no route".into() };
        bench.memory.world().failures.push_back(failure);
        bench.cut();
        bench.advance(secs(2));
        assert!(matches!(bench.client.status(), Status::Waiting { .. }), "before {way}");
        dial(&mut bench);
        assert_eq!(bench.client.status(), Status::Open, "after {way}");
        let world = bench.memory.world();
        let target = world.requests.last().expect("a request").uri.target();
        assert!(target.contains(&format!("token=t{}", 2 * round + 2)), "after {way}: {target}");
    }
}

/// The server's close reason reaches the application, both in the core and through the driver.
/// Reported in firezone/firezone#9289.
#[test]
fn close_reason_is_reported() {
    let reason = "token expired, bye".to_owned();
    let mut hand = Hand::joined(config());
    hand.ended(Ended::CloseFrame { code: Some(4001), reason: reason.clone() });
    let cause = Cause::RemoteClose { code: Some(4001), reason: reason.clone() };
    let (delay, reported) = hand.reconnect_after();
    assert_eq!(reported, cause);
    let id = hand.dialled.expect("a dial");
    let next = NextStep::Retry { delay, attempt: 1 };
    assert!(hand.signals.contains(&Signal::Disconnected { id, cause: cause.clone(), next }));
    assert!(cause.to_string().contains("4001") && cause.to_string().contains("token expired"));

    let mut bench = Bench::new(|config| config);
    let mut signals = bench.client.signals();
    let ended = Ended::CloseFrame { code: Some(4001), reason };
    bench.memory.world().to_client.push_back(phx_proto::client::Received::Ended(ended));
    bench.settle();
    let mut reported = Vec::new();
    while let core::task::Poll::Ready(Some(event)) =
        crate::bench::poll(core::pin::pin!(signals.next()))
    {
        if let ClientEvent::Signal(Signal::Disconnected { cause, .. }) = event {
            reported.push(cause);
        }
    }
    assert_eq!(reported, [cause]);
}
