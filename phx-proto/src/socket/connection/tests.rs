//! Tests of the connection machine without a socket: each row of its diagram.

use super::*;

const ATTEMPT: Duration = Duration::from_secs(10);
const CLOSE: Duration = Duration::from_secs(5);

const fn secs(secs: u64) -> Time {
    Time::from_millis(secs * 1_000)
}

const fn attempt(id: u64, number: u32) -> Attempt {
    Attempt { id: ConnectionId(id), number }
}

fn cause() -> Cause {
    Cause::ConnectTimeout
}

fn live(id: ConnectionId) -> Box<Live> {
    let config = crate::config::Config::new("ws://localhost/").unwrap();
    Box::new(Live::new(id, Time::ZERO, &config, Duration::ZERO))
}

fn connecting() -> Connection {
    let mut connection = Connection::new();
    assert_eq!(connection.connect(secs(1), ATTEMPT), Connect::Dial(attempt(1, 0)));
    connection
}

fn open() -> Connection {
    let mut connection = connecting();
    connection.open(live(ConnectionId(1)));
    connection
}

/// A wait from second 2 to second 60 for attempt 3.
fn waiting(may_skip: bool) -> Connection {
    let mut connection = open();
    assert!(connection.take_live().is_some());
    connection.wait(secs(60), 3, cause(), may_skip);
    connection
}

fn closing(then: AfterClose) -> Connection {
    let mut connection = open();
    let id = connection.take_live().expect("it is open").id;
    connection.close(secs(2), id, then, CLOSE);
    connection
}

fn gave_up() -> Connection {
    let mut connection = waiting(true);
    connection.give_up(cause());
    connection
}

fn closed() -> Connection {
    let mut connection = Connection::new();
    assert!(matches!(connection.disconnect(secs(2), CLOSE), Disconnect::Closed));
    connection
}

fn retry() -> AfterClose {
    AfterClose::Retry { cause: cause(), open_for: Duration::from_secs(1) }
}

/// Each phase has at most one deadline; an open connection has its own.
#[test]
fn each_phase_has_its_deadline() {
    let deadlines = [
        (Connection::new(), None),
        (connecting(), Some((TimerKind::Connect, secs(11)))),
        (open(), None),
        (waiting(true), Some((TimerKind::Reconnect, secs(60)))),
        (closing(AfterClose::Stay), Some((TimerKind::Close, secs(7)))),
        (closed(), None),
        (gave_up(), None),
    ];
    for (connection, deadline) in deadlines {
        assert_eq!(connection.deadline(), deadline, "{connection:?}");
    }
}

#[test]
fn only_open_connection_is_live() {
    let id = Some(ConnectionId(1));
    let rows = [
        (Connection::new(), None, false, true),
        (connecting(), id, false, true),
        (open(), id, true, true),
        (waiting(true), None, false, true),
        (closing(AfterClose::Stay), id, false, false),
        (closing(AfterClose::Connect), id, false, true),
        (closing(retry()), id, false, true),
        (closed(), None, false, false),
        (gave_up(), None, false, false),
    ];
    for (mut connection, id, is_live, accepts_joins) in rows {
        assert_eq!((connection.id(), connection.live().is_some()), (id, is_live), "{connection:?}");
        assert_eq!(connection.accepts_joins(), accepts_joins, "{connection:?}");
        let before = connection.status();
        assert_eq!(connection.take_live().is_some(), is_live, "{connection:?}");
        let after = if is_live { Status::Closed } else { before };
        assert_eq!(connection.status(), after, "only an open connection is taken");
    }
}

#[test]
fn connect_dials_or_starts_over() {
    for mut connection in [closed(), gave_up()] {
        let followed = connection.connect(secs(9), ATTEMPT);
        let Connect::StartOver(Some(attempt)) = followed else { panic!("{followed:?}") };
        assert_eq!((attempt.number, connection.id()), (0, Some(attempt.id)));
    }
    for mut connection in [connecting(), open(), waiting(true), closing(retry())] {
        let before = connection.status();
        assert_eq!(connection.connect(secs(9), ATTEMPT), Connect::Kept);
        assert_eq!(connection.status(), before);
    }
    let mut connection = closing(AfterClose::Stay);
    assert_eq!(connection.connect(secs(9), ATTEMPT), Connect::StartOver(None));
    assert_eq!(connection.connect(secs(9), ATTEMPT), Connect::Kept, "remembered once");
    let end = connection.finish_close();
    assert!(matches!(end, Some((ConnectionId(1), AfterClose::Connect))), "{end:?}");
}

#[test]
fn connect_now_replaces_wait_or_attempt() {
    let mut connection = waiting(false);
    let redial = Redial { aborted: None, attempt: attempt(2, 0) };
    assert_eq!(connection.connect_now(secs(9), ATTEMPT), Ok(Some(redial)));
    let redial = Redial { aborted: Some(ConnectionId(2)), attempt: attempt(3, 0) };
    assert_eq!(connection.connect_now(secs(10), ATTEMPT), Ok(Some(redial)));
    assert_eq!(connection.deadline(), Some((TimerKind::Connect, secs(20))));
    assert_eq!(open().connect_now(secs(9), ATTEMPT), Ok(None));
    for mut connection in [Connection::new(), closing(retry()), closed(), gave_up()] {
        assert_eq!(connection.connect_now(secs(9), ATTEMPT), Err(NotRetrying));
        assert!(!matches!(connection.phase(), Phase::Connecting { .. }));
    }
}

#[test]
fn disconnect_wins_in_every_state() {
    let mut connection = open();
    let followed = connection.disconnect(secs(2), CLOSE);
    assert!(matches!(&followed, Disconnect::Close(live) if live.id == ConnectionId(1)));
    assert_eq!(connection.deadline(), Some((TimerKind::Close, secs(7))));
    assert!(matches!(connecting().disconnect(secs(2), CLOSE), Disconnect::Abort(ConnectionId(1))));
    for mut connection in [Connection::new(), waiting(true), gave_up()] {
        assert!(matches!(connection.disconnect(secs(2), CLOSE), Disconnect::Closed));
        assert_eq!(connection.status(), Status::Closed);
    }
    for then in [AfterClose::Stay, AfterClose::Connect, retry()] {
        let mut connection = closing(then);
        assert!(matches!(connection.disconnect(secs(4), CLOSE), Disconnect::Nothing));
        assert_eq!(connection.deadline(), Some((TimerKind::Close, secs(7))), "unchanged");
        assert!(matches!(connection.finish_close(), Some((_, AfterClose::Stay))));
        assert_eq!(connection.status(), Status::Closed);
        assert!(connection.finish_close().is_none());
    }
    assert!(matches!(closed().disconnect(secs(2), CLOSE), Disconnect::Nothing));
}

#[test]
fn only_close_handshake_is_finished() {
    for mut connection in [Connection::new(), connecting(), open(), waiting(true), gave_up()] {
        let before = connection.status();
        assert!(connection.finish_close().is_none());
        assert_eq!(connection.status(), before);
    }
}

#[test]
fn wait_ends_with_its_attempt() {
    let mut connection = waiting(true);
    let status = Status::Waiting { until: secs(60), attempt: 3, cause: cause() };
    assert_eq!(connection.status(), status);
    assert_eq!(connection.dial_again(secs(60), ATTEMPT), Some(attempt(2, 3)));
    assert_eq!(connection.status(), Status::Connecting { attempt: 3 });
    assert_eq!(connection.dial_again(secs(60), ATTEMPT), None);
}

/// A wake-up skips an ordinary wait, at most once a second.
#[test]
fn wake_up_skips_ordinary_wait() {
    let mut connection = waiting(true);
    assert_eq!(connection.wake(secs(9), ATTEMPT), Woken::Dial(attempt(2, 3)));
    connection.wait(secs(60), 4, cause(), true);
    let soon = secs(9) + Duration::from_millis(300);
    assert_eq!(connection.wake(soon, ATTEMPT), Woken::Nothing);
    assert_eq!(connection.deadline(), Some((TimerKind::Reconnect, secs(10))), "shortened");
    assert_eq!(connection.wake(soon, ATTEMPT), Woken::Nothing);
    assert_eq!(connection.deadline(), Some((TimerKind::Reconnect, secs(10))), "only once");
    let mut over = waiting(true);
    assert_eq!(over.wake(secs(60), ATTEMPT), Woken::Nothing, "its deadline has passed anyway");
    let mut asked_for = waiting(false);
    assert_eq!(asked_for.wake(secs(9), ATTEMPT), Woken::Nothing);
    assert_eq!(asked_for.deadline(), Some((TimerKind::Reconnect, secs(60))));
}

/// A wake-up during an attempt skips the wait after it, if the wait may be skipped.
#[test]
fn wake_up_during_attempt_skips_next_wait() {
    for mut connection in [connecting(), closing(retry())] {
        assert_eq!(connection.wake(secs(2), ATTEMPT), Woken::Nothing);
        connection.wait(secs(60), 1, cause(), true);
        let skipped = connection.skip_wait_if_woken(secs(3), ATTEMPT);
        assert_eq!(skipped.map(|attempt| attempt.number), Some(1));
        connection.wait(secs(60), 2, cause(), true);
        assert_eq!(connection.skip_wait_if_woken(secs(9), ATTEMPT), None, "once");
    }
    for forget in [
        |it: &mut Connection| it.open(live(ConnectionId(1))),
        |it: &mut Connection| {
            assert_eq!(it.dial(secs(2), 0, ATTEMPT).id, ConnectionId(2));
        },
    ] {
        let mut connection = connecting();
        assert_eq!(connection.wake(secs(2), ATTEMPT), Woken::Nothing);
        forget(&mut connection);
        connection.wait(secs(60), 1, cause(), true);
        assert_eq!(connection.skip_wait_if_woken(secs(3), ATTEMPT), None);
    }
}

#[test]
fn wake_up_probes_open_connection_each_second() {
    let mut connection = open();
    let woken = [5_000, 5_999, 6_000].map(|at| connection.wake(Time::from_millis(at), ATTEMPT));
    assert_eq!(woken, [Woken::Probe, Woken::Nothing, Woken::Probe]);
    for mut connection in [Connection::new(), closing(AfterClose::Stay), closed(), gave_up()] {
        assert_eq!(connection.wake(secs(9), ATTEMPT), Woken::Nothing);
    }
}

#[test]
fn status_is_shown_in_words() {
    let waiting = Status::Waiting { until: secs(1), attempt: 3, cause: cause() };
    for (status, shown) in [
        (Status::Idle, "not started".to_owned()),
        (Status::Connecting { attempt: 0 }, "connecting".to_owned()),
        (Status::Connecting { attempt: 2 }, "connecting (retry 2)".to_owned()),
        (Status::Open, "open".to_owned()),
        (waiting, format!("waiting for retry 3: {}", cause())),
        (Status::Closing, "closing".to_owned()),
        (Status::Closed, "closed".to_owned()),
        (Status::GaveUp { cause: cause() }, format!("gave up: {}", cause())),
    ] {
        assert_eq!(status.to_string(), shown);
    }
}
