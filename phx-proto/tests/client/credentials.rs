//! Credentials asked for before every attempt, over a transport in memory.

use core::future::pending;
use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::bench::Bench;
use phx_proto::client::{ConnectAttempt, CredentialsFailed, Provided, Setup};
use phx_proto::config::Uri;
use phx_proto::event::Refusal;
use phx_proto::{Cause, Config, Credentials, Status};

/// Longer than any delay of the schedules in here.
const LONG: Duration = Duration::from_secs(20);

fn token(text: &str) -> Provided {
    Provided::Use(Credentials::new().param("token", text))
}

/// A setup whose provider answers with what `answer` says of the attempt, and keeps the attempts.
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

/// User pain 11: asked per attempt.
/// User pain 12: and awaited.
/// User pain 14: replaced as a whole.
#[test]
fn every_attempt_uses_what_the_provider_says_then_in_place_of_all_before() {
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

/// User pain 16: the provider can tell a refusal from a network that is down.
#[test]
fn the_provider_sees_why_the_last_attempt_failed_and_a_401_is_tried_with_new_ones() {
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

/// User pain 18.
#[test]
fn unchanged_is_final_right_after_a_refusal_and_goes_on_otherwise() {
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
        assert_eq!(bench.client.status(), Status::Open, "unchanged at first means the configured");
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

#[test]
fn giving_up_is_final_and_dials_nothing() {
    let bench = Bench::new(|config| setup(config, |_| Ok(Provided::GiveUp("revoked".into()))).0);
    let cause = Cause::CredentialsGaveUp { reason: "revoked".into() };
    assert_eq!(bench.client.status(), Status::GaveUp { cause });
    assert_eq!(bench.memory.world().dials, 0);
}

#[test]
fn an_error_is_a_failed_attempt_and_the_next_one_asks_again() {
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
fn an_address_that_may_not_be_dialled_is_a_failed_attempt() {
    let bench = Bench::new(|config| {
        let uri = Uri::parse("ws://example.com/socket/websocket").expect("a URI");
        setup(config, move |_| Ok(Provided::Use(Credentials::new().uri(uri.clone())))).0
    });
    let Status::Waiting { cause, .. } = bench.client.status() else { panic!("not waiting") };
    assert!(matches!(cause, Cause::CredentialsFailed { .. }), "{cause:?}");
    assert_eq!(bench.memory.world().dials, 0);
}

#[test]
fn a_panic_of_the_provider_is_a_failed_attempt() {
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

/// User pain 31: one deadline for everything.
#[test]
fn a_provider_that_never_answers_is_cut_off_by_the_connect_timeout() {
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

/// User pain 27.
#[test]
fn disconnect_wins_over_a_provider_that_has_not_answered() {
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

/// The driver dials nothing that the core refuses, and does not try again: no retry changes it.
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
