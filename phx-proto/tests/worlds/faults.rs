//! Each fault of a link or a server, and the guarantee that it tests.

use std::time::Duration;

use phx_proto::event::{NotSentCause, UnknownCause};
use phx_proto::testing::{ClientId, Cut, Direction, HttpRefusal, TraceEvent, What, World};
use phx_proto::{
    Action, Cause, ChannelStatus, Config, PushId, PushOptions, PushOutcome, Signal, Status, Time,
};
use serde_json::json;

const LOBBY: &str = "room:lobby";

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

/// A joined client, 10 ms from its server.
fn joined() -> (World, ClientId) {
    let mut world = World::new(7);
    world.latency(ms(10)..=ms(10));
    let client = world.client(config());
    world.join(client, LOBBY, json!({}));
    world.run_until(|world| world.is_joined(client, LOBBY));
    // Longer than `stable_after`, so that earlier losses do not count in the test.
    world.run_for(secs(11));
    (world, client)
}

fn outcome(world: &World, client: ClientId, push: PushId) -> Option<PushOutcome> {
    world.signals(client).find_map(|(_, signal)| match signal {
        Signal::PushEnded { id, outcome, .. } if *id == push => Some(outcome.clone()),
        _ => None,
    })
}

/// The times at which the client dialled.
fn dials(world: &World) -> Vec<Time> {
    let is_dial = |e: &&TraceEvent| matches!(e.what, What::Action(Action::Connect { .. }));
    world.events().iter().filter(is_dial).map(|event| event.at).collect()
}

/// The cause of each end of a connection or of an attempt.
fn causes(world: &World, client: ClientId) -> Vec<Cause> {
    let cause = |(_, signal): (_, &Signal)| match signal {
        Signal::ConnectFailed { cause, .. } | Signal::Disconnected { cause, .. } => {
            Some(cause.clone())
        }
        _ => None,
    };
    world.signals(client).filter_map(cause).collect()
}

#[test]
fn varying_latency_never_reorders() {
    let (mut world, client) = joined();
    world.link(client).latency(ms(0)..=ms(3_000));
    let pushes: Vec<PushId> = (0..50)
        .map(|number| {
            world.broadcast(LOBBY, "news", json!({"number": number}));
            world.run_for(ms(20));
            world.push(client, LOBBY, "echo", json!({"number": number}))
        })
        .collect();
    world.run_for(secs(10));
    let mut replied = Vec::new();
    let mut heard = Vec::new();
    for (_, signal) in world.signals(client) {
        match signal {
            Signal::PushEnded { id, .. } => replied.push(*id),
            Signal::Message { payload, .. } => {
                heard.push(payload.to_value().expect("JSON")["number"].as_u64().expect("a number"));
            }
            _ => {}
        }
    }
    assert_eq!(replied, pushes);
    assert!(heard.into_iter().eq(0..50));
}

/// A stall that is shorter than the heartbeat's timeout only delays messages.
#[test]
fn short_stall_only_delays() {
    let (mut world, client) = joined();
    world.link(client).stall(secs(9));
    let push = world.push(client, LOBBY, "echo", json!({}));
    world.run_for(secs(60));
    assert!(matches!(outcome(&world, client, push), Some(PushOutcome::Reply(_))));
    assert_eq!(causes(&world, client), []);
}

/// After an endless stall, the connection is declared dead and the push has an unknown outcome.
#[test]
fn endless_stall_ends_push_unknown() {
    let (mut world, client) = joined();
    world.link(client).stall(secs(3_600));
    let push = world.command(client, |socket, now| {
        let patient = PushOptions::call().timeout(secs(600));
        socket.push(now, LOBBY, "echo", json!({}), patient).expect("it is accepted")
    });
    world.run_for(secs(41));
    let unknown = PushOutcome::Unknown(UnknownCause::Disconnected);
    assert_eq!(outcome(&world, client, push), Some(unknown));
    assert_eq!(causes(&world, client)[0], Cause::HeartbeatTimeout);
}

/// A direction that fails silently is detected within an interval and a timeout.
#[test]
fn silent_direction_is_detected_by_heartbeat() {
    for direction in [Direction::Up, Direction::Down] {
        let (mut world, client) = joined();
        let died = world.now();
        world.link(client).half_open(direction);
        world.run_until(|world| world.socket(client).status() != Status::Open);
        assert!(world.now().since(died) <= secs(40), "{direction:?}: {}", world.trace());
        assert_eq!(causes(&world, client), [Cause::HeartbeatTimeout]);
        world.run_until(|world| world.is_joined(client, LOBBY));
        // The server detects its dead connection by itself, and then has only the new one.
        world.run_for(secs(70));
        assert_eq!(world.server().joined(LOBBY), 1);
    }
}

/// A push whose connection is cut ends at once, and is never written again.
#[test]
fn cut_off_push_ends_unknown() {
    for (direction, cut) in [
        (Direction::Up, Cut::Lost),
        (Direction::Down, Cut::Lost),
        (Direction::Up, Cut::Close(1012)),
        (Direction::Down, Cut::Close(1000)),
    ] {
        let (mut world, client) = joined();
        // With `Up`, the link is cut after the push has arrived, so its reply is lost. With `Down`, it
        // is cut after the broadcast, which comes before the reply.
        world.link(client).cut_after(direction, 1, cut);
        let push = world.push(client, LOBBY, "shout", json!({"number": 1}));
        world.run_until(|world| world.socket(client).stats().lost_connections == 1);
        let unknown = PushOutcome::Unknown(UnknownCause::Disconnected);
        assert_eq!(outcome(&world, client, push), Some(unknown), "{direction:?} {cut:?}");
        world.run_for(secs(60));
        assert!(world.is_joined(client, LOBBY), "whatever the close code");
        assert_eq!(
            world.trace().matches("\"shout\",{\"number\":1}]").count(),
            match direction {
                Direction::Up => 1,
                Direction::Down => 2,
            }
        );
    }
}

/// A push during an outage is written once. If its timeout comes first, it ends as not sent.
/// A cut that is planned before or during an attempt waits until an attempt succeeds.
#[test]
fn planned_cut_waits_for_open() {
    let failures: [fn(&mut World, ClientId); 4] = [
        |world, client| _ = world.link(client).refuse_connects(1),
        |world, client| _ = world.link(client).refuse_upgrades(1, 503, None),
        |world, client| _ = world.link(client).ignore_connects(1),
        |world, _| world.server().refuse_next(HttpRefusal::new(503, "busy")),
    ];
    for (number, fail) in failures.iter().enumerate() {
        for is_during in [false, true] {
            let mut world = World::new(7);
            world.latency(ms(10)..=ms(10));
            let client = world.idle_client(config());
            world.join(client, LOBBY, json!({}));
            fail(&mut world, client);
            if is_during {
                world.connect(client);
            }
            world.link(client).cut_after(Direction::Down, 1, Cut::Lost);
            world.connect(client);
            world.run_for(secs(60));
            let lost = world.socket(client).stats().lost_connections;
            assert_eq!(lost, 1, "failure {number}, during the attempt: {is_during}");
            assert!(world.is_joined(client, LOBBY));
        }
    }
}

/// A connection that is about to end does not use up a cut.
#[test]
fn planned_cut_skips_ended_connections() {
    let ends: [fn(&mut World, ClientId); 3] = [
        |world, client| _ = world.link(client).cut(Cut::Lost),
        |world, client| _ = world.link(client).drop_connects(1).cut(Cut::Lost),
        // The client has ended its stream, and the server has not received that yet.
        |world, client| {
            world.link(client).half_open(Direction::Down);
            world.disconnect(client);
            world.run_until(|world| world.socket(client).status() == Status::Closed);
        },
    ];
    for (number, (end, lost)) in ends.iter().zip([2, 3, 1]).enumerate() {
        let (mut world, client) = joined();
        end(&mut world, client);
        world.link(client).cut_after(Direction::Up, 1, Cut::Lost);
        world.connect(client);
        world.run_for(secs(60));
        assert_eq!(world.socket(client).stats().lost_connections, lost, "end {number}");
        assert_eq!(world.socket(client).status(), Status::Open);
    }
}

#[test]
fn push_during_outage_is_written_once() {
    let (mut world, client) = joined();
    world.kill_server();
    world.restart_server_after(secs(20));
    world.run_for(secs(5));
    let impatient = world.push(client, LOBBY, "echo", json!({"number": 1}));
    let patient = world.command(client, |socket, now| {
        let patient = PushOptions::call().timeout(secs(60));
        socket.push(now, LOBBY, "echo", json!({"number": 2}), patient).expect("it is accepted")
    });
    world.run_for(secs(30));
    let timed_out = PushOutcome::NotSent(NotSentCause::TimedOut);
    assert_eq!(outcome(&world, client, impatient), Some(timed_out));
    assert!(matches!(outcome(&world, client, patient), Some(PushOutcome::Reply(_))));
    assert!(!world.trace().contains("{\"number\":1}"), "it was never written");
}

#[test]
fn refused_connects_retry_with_growing_delays() {
    let (mut world, client) = joined();
    world.link(client).refuse_connects(8).cut(Cut::Lost);
    world.run_until(|world| world.socket(client).status() != Status::Open);
    world.run_until(|world| world.is_joined(client, LOBBY));
    let dials = dials(&world);
    let waits: Vec<Duration> = dials.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    // After the first dial of all: eight refused dials, and one that was accepted.
    assert_eq!(dials.len(), 10);
    // A refused dial takes no time here. An accepted dial takes at most the latency of the link.
    let within = |wait: &Duration, from: u64, to: u64| *wait >= ms(from) && *wait <= ms(to + 100);
    assert!(within(&waits[1], 1_000, 2_000), "{waits:?}");
    assert!(waits[2..].iter().all(|wait| within(wait, 2_500, 5_000)), "{waits:?}");
}

#[test]
fn accept_and_drop_server_is_not_hammered() {
    let mut world = World::new(7);
    let client = world.idle_client(config());
    world.link(client).drop_connects(1_000);
    world.connect(client);
    world.run_for(secs(60));
    let attempts = dials(&world).len();
    assert!((15..=35).contains(&attempts), "{attempts} attempts in a minute");
    let opened = world.signals(client).filter(|(_, s)| matches!(s, Signal::Connected { .. }));
    assert_eq!(opened.count(), attempts, "each of them opened");
}

/// The client dials soon after the time that the server asked for.
#[test]
fn retry_after_is_obeyed_closely() {
    let mut world = World::new(7);
    let client = world.idle_client(config());
    world.link(client).refuse_upgrades(1, 429, Some("30"));
    world.connect(client);
    world.run_until(|world| world.socket(client).status() == Status::Open);
    let now = world.now();
    assert!((Time::ZERO + secs(30)..=Time::ZERO + secs(36)).contains(&now), "{now}");
}

/// After 401 the client gives up, after 403 it waits long before it retries, and after 503 it retries
/// soon.
#[test]
fn refusals_retry_by_status() {
    let first_wait = |status| {
        let mut world = World::new(7);
        let client = world.idle_client(config());
        world.link(client).refuse_upgrades(1, status, None);
        world.connect(client);
        world.run_for(secs(60));
        let dials = dials(&world);
        dials.get(1).map(|second| second.since(dials[0]))
    };
    assert_eq!(first_wait(401), None);
    assert!(first_wait(403).is_some_and(|wait| wait >= ms(2_500) && wait <= secs(5)));
    assert!(first_wait(503).is_some_and(|wait| wait <= ms(500)));
}

#[test]
fn unanswered_attempt_ends_at_connect_timeout() {
    let mut world = World::new(7);
    let client = world.idle_client(config());
    world.link(client).ignore_connects(1);
    world.connect(client);
    world.run_for(secs(9));
    assert_eq!(world.socket(client).status(), Status::Connecting { attempt: 0 });
    world.run_for(secs(2));
    assert_eq!(causes(&world, client), [Cause::ConnectTimeout]);
    assert_eq!(world.socket(client).status(), Status::Open);
}

#[test]
fn full_buffer_holds_frames_back() {
    let (mut world, client) = joined();
    world.link(client).buffer(2).stall(secs(5));
    let pushes: Vec<PushId> =
        (0..20).map(|n| world.push(client, LOBBY, "echo", json!({"number": n}))).collect();
    assert_eq!(world.socket(client).stats().queued_pushes, 18, "two are on their way");
    world.run_for(secs(8));
    let replied =
        |push: &PushId| matches!(outcome(&world, client, *push), Some(PushOutcome::Reply(_)));
    assert!(pushes.iter().all(replied), "{}", world.trace());
    assert_eq!(causes(&world, client), []);
}

/// A crashed channel is joined again on the same connection, and a closed one is not.
#[test]
fn crashed_channel_rejoins_closed_does_not() {
    let (mut world, client) = joined();
    world.crash_channel(LOBBY);
    world.run_until(|world| !world.is_joined(client, LOBBY));
    world.run_until(|world| world.is_joined(client, LOBBY));
    world.close_channel(LOBBY);
    world.run_for(secs(60));
    assert_eq!(world.socket(client).channel_status(LOBBY), ChannelStatus::Closed);
    assert_eq!(causes(&world, client), []);
}

/// When the client closes the connection, the server learns of it and the client does not reconnect.
#[test]
fn client_close_reaches_the_server() {
    let (mut world, client) = joined();
    world.disconnect(client);
    world.run_for(secs(60));
    assert_eq!(world.server().peers(), []);
    let last = world.signals(client).last().map(|(_, signal)| signal.clone());
    assert_eq!(last, Some(Signal::Closed));
    assert_eq!(dials(&world).len(), 1);
}

#[test]
fn link_fault_affects_only_its_client() {
    let mut world = World::new(7);
    world.latency(ms(5)..=ms(50));
    let clients: Vec<ClientId> = (0..50).map(|_| world.client(config())).collect();
    for client in &clients {
        world.join(*client, LOBBY, json!({}));
    }
    world.run_until(|world| clients.iter().all(|client| world.is_joined(*client, LOBBY)));
    world.link(clients[20]).cut(Cut::Lost);
    world.run_for(secs(5));
    let cut_off: Vec<&ClientId> =
        clients.iter().filter(|client| !causes(&world, **client).is_empty()).collect();
    assert_eq!(cut_off, [&clients[20]]);
    assert_eq!(world.server().joined(LOBBY), 50, "and that one is back");
}

#[test]
fn restart_spreads_a_thousand_clients() {
    let mut world = World::new(7);
    let clients: Vec<ClientId> = (0..1_000).map(|_| world.client(config())).collect();
    world.run_for(secs(15));
    let killed = world.now();
    world.kill_server();
    world.restart_server();
    world.run_for(secs(5));
    assert!(clients.iter().all(|client| world.socket(*client).status() == Status::Open));
    let mut back: Vec<Time> = dials(&world).into_iter().filter(|at| *at > killed).collect();
    back.sort_unstable();
    back.dedup();
    assert_eq!(back.len(), 1_000, "no two at the same nanosecond");
}
