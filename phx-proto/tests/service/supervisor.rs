//! The supervisor: named connections side by side, on virtual time.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::task::Wake;

use crate::fleet::{Fleet, config, drain, run, subscribe, types};
use phx_proto::client::{ClientEvent, JoinFailed, Setup};
use phx_proto::event::ChannelEnd;
use phx_proto::recording::{Recorder, Recording};
use phx_proto::service::{Connections, Ending, EventIds, Restart, RestartPolicy};
use phx_proto::service::{StartError, Supervised, SupervisedState, Supervisor, UnknownConnection};
use phx_proto::socket::Lifecycle;
use phx_proto::{Cause, Config, JoinParams, Options, Signal, Status};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn supervised(host: &str, restart: Restart) -> Supervised {
    Supervised::new(config(host)).restart(RestartPolicy::new(restart))
}

/// Auto-joins are applied. A server that is down at the start affects no other connection.
#[test]
fn configured_connections_start_with_joined_channels() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let supervisor = fleet.supervisor();
    let mut events = subscribe(supervisor.bus(), "jido.protocol.phoenix.up.**");
    let auto = |host| config(host).auto_join("room:a", JoinParams::from(json!({"x": 1})));
    let connections = Connections::new()
        .with("up", auto("up").expect("no reserved topic"))
        .with("down", auto("down").expect("no reserved topic"));
    supervisor.start_configured(connections).expect("free names");
    fleet.settle();
    assert_eq!(supervisor.list_connections(), ["down", "up"]);
    let status = supervisor.connection_status("up").expect("known");
    assert_eq!(status.lifecycle, Lifecycle::Ready);
    assert_eq!(status.state, SupervisedState::Running(Status::Open));
    let status = supervisor.connection_status("down").expect("known");
    assert_eq!(status.lifecycle, Lifecycle::Initializing);
    assert!(matches!(status.last_cause, Some(Cause::Dial { .. })));
    assert_eq!((supervisor.health().ready(), supervisor.health().is_healthy()), (1, false));
    assert_eq!(
        types(&mut events),
        ["phoenix.connection.connecting", "phoenix.connection.connected", "phoenix.channel.joined",]
    );
    let join = fleet.with_host("up", |host| host.received[0].clone());
    assert_eq!((&join[3], &join[4]), (&json!("phx_join"), &json!({"x": 1})));

    fleet.with_host("down", |host| host.down = false);
    fleet.advance(60 * SECOND);
    assert!(supervisor.health().is_healthy());
}

#[test]
fn names_are_unique_until_connection_ends() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", config("one")).expect("a free name");
    supervisor.start_connection("b", config("one")).expect("one server twice is fine");
    let error = supervisor.start_connection("a", config("two")).expect_err("taken");
    assert_eq!(error, StartError::Duplicate { name: "a".into() });
    let both = Connections::new().with("c", config("one")).with("b", config("one"));
    assert!(supervisor.start_configured(both).is_err());
    assert_eq!(supervisor.list_connections(), ["a", "b"], "none of them was started");
    fleet.settle();
    run(&fleet, supervisor.stop_connection("a")).expect("known");
    assert_eq!(supervisor.list_connections(), ["b"]);
    supervisor.start_connection("a", config("two")).expect("free again");
    let unknown = UnknownConnection::new("z");
    assert_eq!(supervisor.connection_status("z"), Err(unknown.clone()));
    assert_eq!(run(&fleet, supervisor.stop_connection("z")), Err(unknown));
}

/// While the connections of a document are started, another thread starts one with the name of the second.
/// All connections of the document start, or none.
#[test]
fn connections_of_document_start_together() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let other = supervisor.clone();
    let started = Arc::new(Mutex::new(None));
    let outcome = Arc::clone(&started);
    fleet.state().on_spawn = Some(Box::new(move || {
        let start = other.start_connection("b", config("other"));
        *outcome.lock().expect("no panic") = Some(start);
    }));
    let both = Connections::new().with("a", config("one")).with("b", config("one"));
    supervisor.start_configured(both).expect("free names");
    let taken = Err(StartError::Duplicate { name: "b".into() });
    assert_eq!(*started.lock().expect("no panic"), Some(taken));
    fleet.settle();
    assert_eq!((fleet.dials("one"), fleet.dials("other")), (2, 0));

    // A spawn panics: the names that were not started are free.
    let outside = fleet.clone();
    fleet.state().on_spawn = Some(Box::new(move || outside.state().outside = true));
    let three = Connections::new().with("c", config("one")).with("d", config("one"));
    let three = three.with("e", config("one"));
    let start = || supervisor.start_configured(three);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)).is_err());
    assert_eq!(supervisor.list_connections(), ["a", "b", "c"]);
}

/// Topics that were joined by hand are rejoined, and the other connections are not affected.
#[test]
fn loss_affects_one_connection() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    for name in ["a", "b"] {
        supervisor.start_connection(name, config(name)).expect("a free name");
    }
    fleet.settle();
    let client = supervisor.client("a").expect("it runs");
    assert_eq!(client.name(), Some("a"));
    let room = run(&fleet, client.join("room:x", json!({}))).expect("joined");
    let mut of_b = subscribe(supervisor.bus(), "jido.protocol.phoenix.b.**");
    let mut of_a = subscribe(supervisor.bus(), "jido.protocol.phoenix.a.**");
    fleet.cut("a");
    let status = supervisor.connection_status("a").expect("known");
    assert!(matches!(status.last_cause, Some(Cause::TransportLost { .. })), "{status:?}");
    fleet.advance(5 * SECOND);
    let seen = types(&mut of_a);
    assert!(seen.contains(&"phoenix.channel.interrupted".to_owned()), "{seen:?}");
    assert!(seen.contains(&"phoenix.channel.resumed".to_owned()), "{seen:?}");
    assert_eq!(types(&mut of_b), Vec::<String>::new());
    assert_eq!((fleet.dials("a"), fleet.dials("b")), (2, 1));
    drop(room);
}

/// Under the default policy, a connection that has spent its retries is not restarted.
#[test]
fn spent_retries_are_final_unless_permanent() {
    for (restart, restarted) in
        [(Restart::Transient, false), (Restart::Temporary, false), (Restart::Permanent, true)]
    {
        let fleet = Fleet::new();
        fleet.with_host("a", |host| host.down = true);
        let supervisor = fleet.supervisor();
        let setup = Supervised::new(config("a").max_retries(Some(2)));
        let policy = RestartPolicy::new(restart);
        supervisor.start_connection("a", setup.restart(policy)).expect("a free name");
        fleet.advance(2 * SECOND);
        assert_eq!(fleet.dials("a"), 3, "one attempt and two retries");
        let status = supervisor.connection_status("a").expect("it answers in every state");
        if restarted {
            assert!(matches!(status.state, SupervisedState::Restarting { .. }), "{status:?}");
            assert_eq!(status.lifecycle, Lifecycle::Initializing);
            fleet.with_host("a", |host| host.down = false);
            fleet.advance(5 * SECOND);
            let status = supervisor.connection_status("a").expect("known");
            assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Ready, 1));
        } else {
            let ending = Ending::GaveUp;
            let exhausted = false;
            assert_eq!(status.state, SupervisedState::Ended { ending, exhausted });
            assert_eq!(status.lifecycle, Lifecycle::Terminated);
            assert!(matches!(status.last_cause, Some(Cause::Dial { .. })));
            fleet.advance(600 * SECOND);
            assert_eq!(fleet.dials("a"), 3, "and nothing is tried any more");
            assert_eq!(fleet.tasks(), 0);
            assert!(supervisor.client("a").is_err());
            supervisor.start_connection("a", config("b")).expect("the name is free again");
        }
    }
}

/// A panic restarts only its own connection, and too many panics end that connection.
#[test]
fn panic_restarts_its_connection_within_limits() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let policy = RestartPolicy::new(Restart::Transient).intensity(2, 60 * SECOND);
    let auto = config("a").auto_join("room:a", JoinParams::none()).expect("no reserved topic");
    let setup = Supervised::new(auto).restart(policy);
    supervisor.start_connection("a", setup).expect("a free name");
    supervisor.start_connection("b", config("b")).expect("a free name");
    fleet.settle();
    let mut events = subscribe(supervisor.bus(), "jido.protocol.phoenix.a.**");
    for round in 1..=2 {
        let client = supervisor.client("a").expect("it runs");
        fleet.with_host("a", |host| host.panics = true);
        fleet.settle();
        let seen = types(&mut events);
        assert!(seen.contains(&"phoenix.channel.closed".to_owned()), "it is reported: {seen:?}");
        assert!(client.status() != Status::Open, "the old client is of no use");
        fleet.advance(2 * SECOND);
        let status = supervisor.connection_status("a").expect("known");
        assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Ready, round));
        let seen = types(&mut events);
        assert!(seen.contains(&"phoenix.channel.joined".to_owned()), "auto-joins come back");
    }
    fleet.with_host("a", |host| host.panics = true);
    fleet.advance(2 * SECOND);
    let status = supervisor.connection_status("a").expect("known");
    let ending = Ending::Crashed;
    assert_eq!(status.state, SupervisedState::Ended { ending, exhausted: true });
    let status = supervisor.connection_status("b").expect("known");
    assert_eq!(status.lifecycle, Lifecycle::Ready, "the other connection never noticed");
    assert_eq!(fleet.dials("b"), 1);
}

/// A supervisor whose connection `a` has given up and waits for its restart.
fn waiting(fleet: &Fleet, setup: impl Into<Setup>) -> Supervisor {
    fleet.with_host("a", |host| host.down = true);
    let supervisor = fleet.supervisor();
    let permanent = RestartPolicy::new(Restart::Permanent);
    let supervised = Supervised::new(setup).restart(permanent);
    supervisor.start_connection("a", supervised).expect("a free name");
    fleet.settle();
    let status = supervisor.connection_status("a").expect("known");
    assert!(matches!(status.state, SupervisedState::Restarting { .. }), "{status:?}");
    supervisor
}

fn without_retries() -> Config {
    config("a").max_retries(Some(0))
}

fn restart(fleet: &Fleet, supervisor: &Supervisor) {
    fleet.with_host("a", |host| host.down = false);
    fleet.advance(10 * SECOND);
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Ready, 1));
    assert_eq!(status.state, SupervisedState::Running(Status::Open));
}

#[test]
fn handle_survives_restart() {
    let fleet = Fleet::new();
    let auto = without_retries().auto_join("room:auto", JoinParams::none()).expect("no such topic");
    let supervisor = waiting(&fleet, auto);
    let client = supervisor.client("a").expect("it waits");
    assert!(matches!(client.status(), Status::GaveUp { .. }));
    restart(&fleet, &supervisor);
    assert_eq!(client.status(), Status::Open);
    let join = fleet.with_host("a", |host| host.received[0].clone());
    assert_eq!((&join[2], &join[3]), (&json!("room:auto"), &json!("phx_join")));
    run(&fleet, client.join("room:a", json!({}))).expect("joined");
}

#[test]
fn signal_stream_survives_restart() {
    let fleet = Fleet::new();
    let supervisor = waiting(&fleet, without_retries());
    let mut signals = supervisor.client("a").expect("it waits").signals();
    restart(&fleet, &supervisor);
    let connecting = run(&fleet, signals.next());
    assert!(
        matches!(connecting, Some(ClientEvent::Signal(Signal::Connecting { attempt: 0, .. }))),
        "{connecting:?}"
    );
    let connected = run(&fleet, signals.next());
    assert!(
        matches!(connected, Some(ClientEvent::Signal(Signal::Connected { .. }))),
        "{connected:?}"
    );
}

/// A restart draws a new seed for the jitter. The recording contains both seeds.
#[test]
fn restart_draws_a_new_seed() {
    let fleet = Fleet::new();
    let tape = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&tape);
    let recorder = Recorder::new(move |line| {
        let mut tape = sink.lock().expect("no panic");
        tape.push_str(line);
        tape.push('\n');
    });
    let supervisor = waiting(&fleet, Setup::new(without_retries()).record(recorder));
    let drawn = fleet.state().seeds;
    restart(&fleet, &supervisor);
    assert_eq!(fleet.state().seeds, drawn, "it was drawn when the connection ended");
    let text = tape.lock().expect("no panic").clone();
    assert!(text.contains(&format!(r#"{{"reseed":{{"seed":{drawn}}}}}"#)), "{text}");
    assert!(!text.contains(&format!(r#""start":{{"seed":{drawn},"#)), "{text}");
    let recording = Recording::parse(&text).expect("a recording");
    let replayed: Result<Vec<_>, _> = recording.replay().collect();
    let replayed = replayed.expect("the same again");
    assert!(replayed.iter().any(|line| line.to_string().contains("reseed")));
}

#[test]
fn crashed_client_is_replaced_at_once() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", supervised("a", Restart::Transient)).expect("a free name");
    let old = supervisor.client("a").expect("before its first poll");
    fleet.settle();
    fleet.with_host("a", |host| host.panics = true);
    fleet.settle();
    let client = supervisor.client("a").expect("it waits");
    assert_eq!((client.status(), fleet.dials("a")), (Status::Idle, 1));
    assert_eq!(old.status(), Status::GaveUp { cause: Cause::DriverPanicked });
    let mut join = Box::pin(client.join("room:a", json!({})));
    assert!(poll_once(join.as_mut()).is_pending());
    restart(&fleet, &supervisor);
    assert!(matches!(poll_once(join.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn connect_ends_the_restart_delay() {
    let fleet = Fleet::new();
    let supervisor = waiting(&fleet, without_retries());
    fleet.with_host("a", |host| host.down = false);
    supervisor.client("a").expect("it waits").connect();
    fleet.settle();
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!(status.state, SupervisedState::Running(Status::Open));
    fleet.advance(600 * SECOND);
    assert_eq!(fleet.dials("a"), 2);
}

#[test]
fn disconnect_cancels_a_restart() {
    let fleet = Fleet::new();
    let supervisor = waiting(&fleet, without_retries());
    let client = supervisor.client("a").expect("it waits");
    run(&fleet, client.disconnect());
    fleet.settle();
    let status = supervisor.connection_status("a").expect("known");
    let ending = Ending::Closed;
    assert_eq!(status.state, SupervisedState::Ended { ending, exhausted: false });
    fleet.advance(600 * SECOND);
    assert_eq!((fleet.dials("a"), fleet.tasks()), (1, 0));
}

/// The delays before restarts grow with each crash, and are reset after `stable_after`.
#[test]
fn stable_connection_restarts_sooner() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let policy = RestartPolicy::new(Restart::Transient).intensity(10, 600 * SECOND);
    let supervised = Supervised::new(config("a")).restart(policy);
    supervisor.start_connection("a", supervised).expect("a free name");
    fleet.settle();
    let crash = |attempt| {
        fleet.with_host("a", |host| host.panics = true);
        fleet.settle();
        let status = supervisor.connection_status("a").expect("known");
        let SupervisedState::Restarting { until, .. } = status.state else { panic!("{status:?}") };
        let delay = until.since(fleet.state().now);
        let range = Options::default().rejoin_after.range(attempt);
        assert!((range.min()..=range.max()).contains(&delay), "{attempt}: {delay:?}");
        fleet.advance(2 * SECOND);
    };
    (1..=3).for_each(crash);
    fleet.advance(2 * Options::default().stable_after);
    (1..=2).for_each(crash);
}

/// The counters continue after a restart, because the restart keeps the client.
#[test]
fn metrics_continue_after_restart() {
    let fleet = Fleet::new();
    let supervisor = waiting(&fleet, without_retries());
    assert_eq!(supervisor.metrics()[0].stats, None, "it does not run");
    restart(&fleet, &supervisor);
    let stats = supervisor.metrics()[0].stats.clone().expect("it runs");
    assert_eq!((stats.failed_attempts, stats.connections), (1, 1));
}

#[test]
fn stop_closes_only_its_connection() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    for name in ["a", "b"] {
        supervisor.start_connection(name, supervised(name, Restart::Permanent)).expect("free");
    }
    fleet.settle();
    let mut events = subscribe(supervisor.bus(), "jido.protocol.phoenix.a");
    run(&fleet, supervisor.stop_connection("a")).expect("known");
    assert_eq!(
        types(&mut events),
        ["phoenix.connection.disconnected", "phoenix.connection.closed",]
    );
    fleet.advance(600 * SECOND);
    assert_eq!(fleet.dials("a"), 1, "a permanent connection stays stopped too");
    assert_eq!(supervisor.list_connections(), ["b"]);
    assert_eq!(fleet.tasks(), 1);
}

#[test]
fn connection_awaiting_restart_can_be_stopped() {
    let fleet = Fleet::new();
    fleet.with_host("a", |host| host.down = true);
    let supervisor = fleet.supervisor();
    let policy = RestartPolicy::new(Restart::Permanent);
    let setup = Supervised::new(config("a").max_retries(Some(0))).restart(policy);
    supervisor.start_connection("a", setup).expect("a free name");
    fleet.settle();
    let status = supervisor.connection_status("a").expect("known");
    assert!(matches!(status.state, SupervisedState::Restarting { .. }));
    let mut events = subscribe(supervisor.bus(), "**");
    run(&fleet, supervisor.stop_connection("a")).expect("known");
    assert_eq!(types(&mut events), Vec::<String>::new(), "it had ended before");
    assert_eq!(fleet.tasks(), 0);
    fleet.advance(600 * SECOND);
    assert_eq!(fleet.dials("a"), 1);
}

#[test]
fn graceful_stop_ends_one_connection() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    for name in ["a", "b"] {
        let auto = config(name).auto_join("room:a", JoinParams::none()).expect("no such topic");
        supervisor.start_connection(name, auto).expect("a free name");
    }
    fleet.settle();
    let unfinished = run(&fleet, supervisor.shutdown_connection("a", 5 * SECOND)).expect("known");
    assert!(unfinished.is_empty());
    let left = fleet.with_host("a", |host| host.received.last().cloned()).expect("a leave");
    assert_eq!(left[3], "phx_leave", "stop_connection would have closed the socket at once");
    assert_eq!((supervisor.list_connections(), fleet.tasks()), (vec!["b".to_owned()], 1));
    assert_eq!(fleet.dials("b"), 1);
    supervisor.start_connection("a", config("a")).expect("the name is free again");
    fleet.settle();
    assert!(supervisor.health().is_healthy());
    let gone = run(&fleet, supervisor.shutdown_connection("z", SECOND));
    assert_eq!(gone, Err(UnknownConnection::new("z")));
}

/// A shutdown reports the work that did not finish.
#[test]
fn shutdown_ends_in_order_and_reports() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    for name in ["a", "b"] {
        let auto = config(name).auto_join("room:a", JoinParams::none()).expect("no such topic");
        supervisor.start_connection(name, auto).expect("a free name");
    }
    fleet.settle();
    fleet.with_host("b", |host| host.silent = true);
    let mut events = subscribe(supervisor.bus(), "**");
    let mut shutdown = Box::pin(supervisor.shutdown(5 * SECOND));
    let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
    let mut unfinished = None;
    for _ in 0..20 {
        if let core::task::Poll::Ready(report) = shutdown.as_mut().poll(&mut cx) {
            unfinished = Some(report);
            break;
        }
        fleet.advance(SECOND);
    }
    let unfinished = unfinished.expect("it ends");
    assert_eq!(unfinished.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(unfinished["b"].leaves, [phx_proto::Topic::from("room:a")]);
    let left = fleet.with_host("a", |host| host.received.last().cloned()).expect("a leave");
    assert_eq!(left[3], "phx_leave");
    assert_eq!(fleet.tasks(), 0);
    let kinds: Vec<String> = drain(&mut events).into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "phoenix.connection.closed").count(), 2);
    assert_eq!(run(&fleet, events.next()), None, "the bus is closed");
    assert!(supervisor.list_connections().is_empty());
}

#[test]
fn dropped_supervisor_closes_its_connections() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", config("a")).expect("a free name");
    fleet.settle();
    drop(supervisor);
    fleet.settle();
    assert_eq!(fleet.tasks(), 0);
}

/// `connection_status` reports every state of a connection.
#[test]
fn status_answers_in_every_state() {
    let fleet = Fleet::new();
    fleet.with_host("a", |host| host.down = true);
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", config("a")).expect("a free name");
    let status = || supervisor.connection_status("a").expect("known");
    assert_eq!(status().lifecycle, Lifecycle::Initializing, "before it was polled");
    fleet.settle();
    assert!(matches!(status().state, SupervisedState::Running(Status::Waiting { .. })));
    fleet.with_host("a", |host| host.down = false);
    fleet.advance(2 * SECOND);
    assert_eq!(status().state, SupervisedState::Running(Status::Open));
    fleet.with_host("a", |host| host.silent = true);
    let client = supervisor.client("a").expect("it runs");
    let mut disconnect = Box::pin(client.disconnect());
    let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
    assert!(disconnect.as_mut().poll(&mut cx).is_pending());
    fleet.settle();
    assert_eq!(status().lifecycle, Lifecycle::Closing);
    fleet.advance(5 * SECOND);
    assert_eq!(status().lifecycle, Lifecycle::Terminated);
}

/// Metrics are counted per connection.
#[test]
fn metrics_end_with_their_connection() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", supervised("a", Restart::Transient)).expect("a free name");
    let spent = Supervised::new(config("down").max_retries(Some(0)));
    supervisor.start_connection("down", spent).expect("a free name");
    fleet.settle();
    let metrics = supervisor.metrics();
    let [a, down] = &metrics[..] else { panic!("{metrics:?}") };
    assert_eq!((&*a.name, a.lifecycle), ("a", Lifecycle::Ready));
    assert_eq!(a.stats.as_ref().expect("it runs").connections, 1);
    assert_eq!((&*down.name, down.lifecycle), ("down", Lifecycle::Terminated));
    assert_eq!(down.stats, None);
    let page = phx_proto::service::metrics::openmetrics(&metrics);
    assert!(page.contains("phx_connections_opened_total{connection=\"a\"} 1\n"), "{page}");
}

/// Event ids ascend across connections. The time of an event is that of the clock.
#[test]
fn event_ids_are_unique_and_sorted() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let mut events = subscribe(supervisor.bus(), "**");
    for name in ["a", "b", "c"] {
        supervisor.start_connection(name, config(name)).expect("a free name");
    }
    fleet.settle();
    let events = drain(&mut events);
    assert_eq!(events.len(), 6);
    assert!(events.is_sorted_by(|one, other| one.id < other.id));
    assert!(events.iter().all(|event| event.time == "2023-11-14T22:13:20.000Z"));
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// If a connection is started during a shutdown, it must not leak. It used to leave the supervisor's
/// list and continue to run, and could not be stopped.
#[test]
fn connection_started_during_shutdown_does_not_leak() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", config("a")).expect("a free name");
    fleet.settle();
    fleet.with_host("a", |host| host.silent = true);
    let mut shutdown = Box::pin(supervisor.shutdown(5 * SECOND));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    let late = supervisor.start_connection("late", config("late"));
    assert_eq!(late, Err(StartError::ShutDown { name: "late".into() }));
    let several = Connections::new().with("later", config("later"));
    assert!(matches!(supervisor.start_configured(several), Err(StartError::ShutDown { .. })));
    let _ = run(&fleet, shutdown);
    fleet.settle();
    assert_eq!((fleet.tasks(), fleet.dials("late")), (0, 0));
    let after = supervisor.start_connection("after", config("a"));
    assert_eq!(after, Err(StartError::ShutDown { name: "after".into() }));
}

/// If a runtime ends right after the start, no call hangs.
#[test]
fn keeper_dropped_unpolled_blocks_no_call() {
    for polls in [0, 1] {
        let fleet = Fleet::new();
        let supervisor = fleet.supervisor();
        supervisor.start_connection("a", config("a")).expect("a free name");
        (0..polls).for_each(|_| fleet.settle());
        fleet.drop_tasks();
        let status = supervisor.connection_status("a").expect("known");
        assert_eq!(status.lifecycle, Lifecycle::Terminated, "{polls} polls");
        assert!(matches!(status.state, SupervisedState::Ended { .. }), "{:?}", status.state);
        supervisor.start_connection("a", config("a")).expect("the name is free");
        fleet.drop_tasks();
        run(&fleet, supervisor.stop_connection("a")).expect("known");
        assert!(supervisor.list_connections().is_empty());
    }
}

/// A waker that counts its calls.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The end of a connection wakes the futures that wait for it. A future that is dropped leaves
/// nothing behind.
#[test]
fn end_wakes_waits_and_dropped_ones_leave() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", config("a")).expect("a free name");
    fleet.settle();
    let (kept, dropped) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
    let mut stops: Vec<_> = [&kept, &dropped]
        .map(|calls| {
            let mut stop = Box::pin(supervisor.stop_connection("a"));
            let waker = Waker::from(Arc::clone(calls));
            assert!(stop.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            stop
        })
        .into();
    drop(stops.pop());
    assert_eq!(Arc::strong_count(&dropped), 1, "its waker is released");
    fleet.settle();
    assert_eq!(fleet.tasks(), 0);
    assert_eq!(kept.0.load(Ordering::Relaxed), 1, "the end of the task wakes it");
    assert_eq!(dropped.0.load(Ordering::Relaxed), 0);
    assert_eq!(run(&fleet, stops.remove(0)), Ok(()));
}

/// A waker that takes the metrics: it is called between the end of a client and the keeper's notice of it.
struct Observer(Supervisor, Mutex<Vec<(Lifecycle, bool)>>);

impl Wake for Observer {
    fn wake(self: Arc<Self>) {
        let metrics = self.0.metrics();
        let seen = metrics.iter().map(|it| (it.lifecycle, it.stats.is_some()));
        self.1.lock().expect("no panic").extend(seen);
    }
}

/// A connection gives up. Metrics taken before its keeper has noticed show the end without counters.
#[test]
fn terminated_connection_has_no_counters() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", without_retries()).expect("a free name");
    fleet.settle();
    let observer = Arc::new(Observer(supervisor.clone(), Mutex::default()));
    let client = supervisor.client("a").expect("it runs");
    let mut statuses = client.status_changes();
    let mut reader = Box::pin(async move { while statuses.next().await.is_some() {} });
    let waker = Waker::from(Arc::clone(&observer));
    let mut cx = Context::from_waker(&waker);
    assert!(reader.as_mut().poll(&mut cx).is_pending());
    fleet.with_host("a", |host| host.down = true);
    fleet.cut("a");
    let ends = (0..60).any(|_| {
        fleet.advance(SECOND);
        reader.as_mut().poll(&mut cx).is_ready()
    });
    assert!(ends, "the client gives up");
    let seen = observer.1.lock().expect("no panic");
    assert!(!seen.is_empty());
    assert!(!seen.contains(&(Lifecycle::Terminated, true)), "{seen:?}");
}

/// There is no executor: outside of a tokio runtime, a spawn panics. The name stays free.
#[test]
fn failed_start_leaves_name_free() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    fleet.state().outside = true;
    let start = || supervisor.start_connection("a", config("a"));
    let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start));
    assert!(started.is_err(), "the caller gets the panic");
    assert!(supervisor.list_connections().is_empty());
    let unfinished = run(&fleet, supervisor.shutdown_connection("a", SECOND));
    assert_eq!(unfinished, Err(UnknownConnection::new("a")));
    fleet.state().outside = false;
    supervisor.start_connection("a", config("a")).expect("a free name");
    fleet.settle();
    assert!(supervisor.health().is_healthy());
}

/// A way to wait for the end of `a`. It returns whether the wait reports that the task is still
/// running.
type Waits = for<'a> fn(&'a Supervisor) -> Pin<Box<dyn Future<Output = Option<bool>> + 'a>>;

/// An executor that no longer polls its tasks must not make the caller hang.
#[test]
fn grace_bounds_every_wait() {
    let close_timeout = 2 * SECOND;
    let waits: &[(&str, Duration, Waits)] = &[
        ("stop_connection", Duration::ZERO, |supervisor| {
            Box::pin(async { supervisor.stop_connection("a").await.ok().map(|()| true) })
        }),
        ("shutdown_connection", 5 * SECOND, |supervisor| {
            Box::pin(async {
                let unfinished = supervisor.shutdown_connection("a", 5 * SECOND).await;
                unfinished.ok().map(|unfinished| unfinished.running)
            })
        }),
        ("shutdown", 5 * SECOND, |supervisor| {
            Box::pin(async {
                let unfinished = supervisor.shutdown(5 * SECOND).await;
                unfinished.get("a").map(|unfinished| unfinished.running)
            })
        }),
    ];
    for polls in [0, 1] {
        for (name, grace, wait) in waits {
            let fleet = Fleet::new();
            let supervisor = fleet.supervisor();
            let auto = config("a").auto_join("room:a", JoinParams::none()).expect("no such topic");
            supervisor.start_connection("a", auto).expect("a free name");
            (0..polls).for_each(|_| fleet.settle());
            // The server does not answer the leave, so a shutdown does not reach its last step.
            fleet.with_host("a", |host| host.silent = true);
            let mut waiting = wait(&supervisor);
            let (start, step) = (fleet.state().now, Duration::from_millis(100));
            let done = loop {
                if let Poll::Ready(done) = poll_once(waiting.as_mut()) {
                    break done;
                }
                fleet.state().now += step;
                let waited = fleet.state().now.since(start);
                assert!(waited <= *grace + close_timeout + 2 * SECOND, "{name}: {waited:?}");
            };
            assert_eq!(done, Some(true), "{name}: it reports that the task did not end");
            assert!(supervisor.list_connections().is_empty(), "{name}");
            // If the executor goes on after all, the connection closes.
            fleet.advance(2 * close_timeout);
            assert_eq!(fleet.tasks(), 0, "{name}: the task ends when it is polled again");
        }
    }
}

/// While a stopped connection closes, another part of the program asks its client to connect again. The
/// connection ends all the same. If it connected again, it would run on without a name.
#[test]
fn stopped_connection_does_not_connect_again() {
    type Stops = fn(&Supervisor) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    let stops: [Stops; 3] = [
        |supervisor| Box::pin(async { supervisor.stop_connection("a").await.expect("known") }),
        |supervisor| {
            Box::pin(async {
                drop(supervisor.shutdown_connection("a", SECOND).await.expect("known"));
            })
        },
        |supervisor| Box::pin(async { drop(supervisor.shutdown(SECOND).await) }),
    ];
    for stop in stops {
        let fleet = Fleet::new();
        let supervisor = fleet.supervisor();
        supervisor.start_connection("a", config("a")).expect("a free name");
        fleet.settle();
        let client = supervisor.client("a").expect("it runs");
        // The server does not answer the close frame.
        fleet.with_host("a", |host| host.silent = true);
        let mut stopping = stop(&supervisor);
        assert!(poll_once(stopping.as_mut()).is_pending());
        assert_eq!(client.status(), Status::Closing);
        client.connect();
        run(&fleet, stopping);
        fleet.advance(10 * SECOND);
        assert_eq!((fleet.tasks(), client.status()), (0, Status::Closed));
    }
}

/// The program disconnects a client that waits for a retry, which ends the connection, and connects it again
/// before the task has noticed. The last event is `phoenix.connection.closed`.
#[test]
fn ended_connection_has_closed_event_last() {
    for down in [true, false] {
        let fleet = Fleet::new();
        let supervisor = fleet.supervisor();
        fleet.with_host("a", |host| host.down = true);
        supervisor.start_connection("a", config("a")).expect("a free name");
        fleet.settle();
        let mut events = subscribe(supervisor.bus(), "jido.signal.phoenix.connection.*");
        let client = supervisor.client("a").expect("it runs");
        assert!(poll_once(Box::pin(client.disconnect()).as_mut()).is_ready());
        client.connect();
        fleet.with_host("a", |host| host.down = down);
        fleet.settle();
        assert_eq!(fleet.tasks(), 0);
        let status = supervisor.connection_status("a").expect("known");
        let ended = SupervisedState::Ended { ending: Ending::Closed, exhausted: false };
        assert_eq!((status.state, client.status()), (ended, Status::Closed));
        let last = types(&mut events).pop();
        assert_eq!(last.as_deref(), Some("phoenix.connection.closed"), "down: {down}");
    }
}

/// The executor no longer polls its tasks. The report of a shutdown lists the work that was not finished, which
/// the closing of the connection ends.
#[test]
fn report_of_stuck_shutdown_is_complete() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let auto = config("a").auto_join("room:a", JoinParams::none()).expect("no such topic");
    supervisor.start_connection("a", auto).expect("a free name");
    fleet.settle();
    fleet.with_host("a", |host| host.silent = true);
    let client = supervisor.client("a").expect("it runs");
    let mut push = Box::pin(client.push("room:a", "ask", json!({})));
    assert!(poll_once(push.as_mut()).is_pending());
    let mut shutdown = Box::pin(supervisor.shutdown_connection("a", 5 * SECOND));
    let unfinished = loop {
        if let Poll::Ready(unfinished) = poll_once(shutdown.as_mut()) {
            break unfinished.expect("known");
        }
        fleet.state().now += SECOND;
    };
    assert!(unfinished.running);
    assert_eq!((unfinished.pushes, unfinished.leaves), (1, vec!["room:a".into()]));
    assert!(matches!(poll_once(push.as_mut()), Poll::Ready(Err(_))), "it has its outcome");
}

/// `Duration::MAX` means that the shutdown takes as long as it needs.
#[test]
fn longest_grace_is_no_limit() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    for name in ["a", "b"] {
        supervisor.start_connection(name, config(name)).expect("a free name");
    }
    fleet.settle();
    let unfinished = run(&fleet, supervisor.shutdown_connection("a", Duration::MAX));
    assert!(unfinished.expect("known").is_empty());
    assert!(run(&fleet, supervisor.shutdown(Duration::MAX)).is_empty());
    assert_eq!(fleet.tasks(), 0);
}

/// After a panic, waiters get the error of a panic. They used to get the error of a `disconnect`.
#[test]
fn panicked_driver_is_reported_as_panic() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    supervisor.start_connection("a", supervised("a", Restart::Temporary)).expect("a free name");
    fleet.settle();
    fleet.with_host("a", |host| host.silent = true);
    let client = supervisor.client("a").expect("it runs");
    let mut join = Box::pin(client.join("room:a", json!({})));
    assert!(poll_once(join.as_mut()).is_pending());
    fleet.settle();
    let mut events = subscribe(supervisor.bus(), "jido.protocol.phoenix.a.**");
    fleet.with_host("a", |host| host.panics = true);
    fleet.settle();
    assert_eq!(client.status(), Status::GaveUp { cause: Cause::DriverPanicked });
    let ended = JoinFailed::Ended(ChannelEnd::GaveUp(Cause::DriverPanicked));
    let Poll::Ready(Err(failed)) = poll_once(join.as_mut()) else { panic!("it fails") };
    assert_eq!(failed, ended);
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!(status.last_cause, Some(Cause::DriverPanicked));
    assert!(matches!(status.state, SupervisedState::Ended { ending: Ending::Crashed, .. }));
    let events = drain(&mut events);
    let data: Vec<String> = events.iter().map(|event| event.data.to_string()).collect();
    assert!(data.iter().any(|data| data.contains("the driver panicked")), "{data:?}");
    assert!(data.iter().all(|data| !data.contains("disconnect was called")), "{data:?}");
}

/// An event is created only if there is a subscription to it. Otherwise not even an id is drawn.
#[test]
fn ids_are_drawn_for_subscribed_events_only() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let auto =
        config("a").auto_join("room:a", JoinParams::from(json!({}))).expect("no reserved topic");
    supervisor.start_connection("a", auto).expect("a free name");
    fleet.settle();
    let message = |event: &str| fleet.server_sends("a", &json!([null, null, "room:a", event, {}]));
    (0..10).for_each(|_| message("news"));
    let mut others = subscribe(supervisor.bus(), "jido.protocol.phoenix.b.**");
    let mut gave_up = subscribe(supervisor.bus(), "jido.signal.phoenix.connection.gave_up");
    (0..10).for_each(|_| message("news"));

    let mut events = subscribe(supervisor.bus(), "jido.signal.phoenix.a.room_a.wanted");
    message("news");
    message("wanted");
    message("news");
    message("wanted");
    let events = drain(&mut events);
    // The first seed drawn from this runtime is the seed of the ids.
    let (mut ids, at) = (EventIds::new(1), fleet.state().now);
    let drawn: Vec<&str> = events.iter().map(|event| &*event.id).collect();
    assert_eq!(drawn, [ids.next(at), ids.next(at)]);
    assert_eq!((drain(&mut others).len(), drain(&mut gave_up).len()), (0, 0));
}

/// The supervisor also acts on signals that are not routed.
#[test]
fn connection_without_subscribers_is_supervised() {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let supervised = supervised("a", Restart::Permanent);
    supervisor.start_connection("a", supervised).expect("a free name");
    fleet.settle();
    fleet.with_host("a", |host| host.panics = true);
    fleet.settle();
    fleet.advance(60 * SECOND);
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Ready, 1));
    assert_eq!(status.last_cause, Some(Cause::DriverPanicked));
}
