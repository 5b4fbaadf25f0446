//! Slow links on virtual time: what they deliver, and how soon a dead link is detected.
//!
//! The server has its idle timeout of 60 s. Other clients had this defect: the reply to a heartbeat
//! is queued behind a transfer, the client declares the connection dead, and the transfer starts
//! again, forever (`phoenixframework/phoenix#6770`, `theturtle32/WebSocket-Node#229`).

use std::time::Duration;

use crate::cases::{cases, regressions};
use crate::hand::{Hand, config, ms, secs};
use phx_proto::event::{DialKind, Progress};
use phx_proto::testing::{ClientId, Direction, World};
use phx_proto::{Cause, Config, Payload, PushOptions, PushOutcome, Signal, Status};
use proptest::prelude::*;
use serde_json::{Value, json};

const LOBBY: &str = "room:lobby";

/// The sum of the defaults of `heartbeat_timeout` and `progress_max`. A dead connection is kept no
/// longer than this after a heartbeat fell due.
const FOUND_WITHIN: Duration = secs(10 + 600);

/// The default of `heartbeat_interval`.
const INTERVAL: Duration = secs(30);

/// A joined client, 20 ms from its server, over a link with these bytes per second in each direction.
fn joined(config: Config, down: u64, up: u64) -> (World, ClientId) {
    joined_in(World::new(7), config, down, up)
}

/// The same over a link that carries bytes, so that the server acknowledges uploads.
#[cfg(feature = "websocket")]
fn joined_over_bytes(config: Config, down: u64, up: u64) -> (World, ClientId) {
    let mut world = World::new(7);
    world.carry_bytes(&phx_proto::websocket::Limits::default());
    joined_in(world, config, down, up)
}

fn joined_in(mut world: World, config: Config, down: u64, up: u64) -> (World, ClientId) {
    world.latency(ms(20)..=ms(20));
    let client = world.client(config);
    world.join(client, LOBBY, json!({}));
    world.run_until(|world| world.is_joined(client, LOBBY));
    world.link(client).bandwidth(Direction::Down, down).bandwidth(Direction::Up, up);
    world.run_for(secs(1));
    (world, client)
}

fn dial_failure() -> Cause {
    Cause::Dial { kind: DialKind::Unreachable, message: "no way".to_owned() }
}

fn big(bytes: usize) -> Value {
    json!("x".repeat(bytes))
}

/// Sends a push that expects a reply, with enough time for it.
fn push(world: &mut World, client: ClientId, event: &str, payload: Value) {
    let options = PushOptions::call().timeout(secs(3_600));
    world.command(client, |s, now| s.push(now, LOBBY, event, payload, options)).unwrap();
}

fn messages(world: &World, client: ClientId) -> usize {
    world.signals(client).filter(|(_, s)| matches!(s, Signal::Message { .. })).count()
}

fn replies(world: &World, client: ClientId) -> usize {
    let replied =
        |s: &Signal| matches!(s, Signal::PushEnded { outcome: PushOutcome::Reply(_), .. });
    world.signals(client).filter(|(_, s)| replied(s)).count()
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

fn assert_one_connection(world: &World, client: ClientId) {
    assert_eq!(causes(world, client), [], "{}", world.trace_tail());
    assert_eq!(world.socket(client).stats().connections, 1);
}

/// A broadcast of 1.5 MB over 30 kB/s, one of 6 MB over 1 Mbit/s, and one of 600 kB over 1.1 kB/s,
/// which takes a little less than `progress_max`.
#[test]
fn large_broadcast_arrives_over_slow_link() {
    for (bytes, down) in [(1_500_000, 30_000), (6_000_000, 125_000), (600_000, 1_100)] {
        let (mut world, client) = joined(config(), down, 0);
        world.broadcast(LOBBY, "big", big(bytes));
        world.run_until(|world| messages(world, client) == 1);
        world.run_for(secs(60));
        assert_one_connection(&world, client);
    }
}

/// Twenty messages, a quarter of a second apart, that take 50 s together.
#[test]
fn many_messages_arrive_over_slow_link() {
    let (mut world, client) = joined(config(), 30_000, 0);
    for _ in 0..20 {
        world.broadcast(LOBBY, "part", big(75_000));
        world.run_for(ms(250));
    }
    world.run_until(|world| messages(world, client) == 20);
    assert_one_connection(&world, client);
}

/// Pushes that take one to eight minutes, in which the server has nothing to send.
#[test]
fn large_push_arrives_over_slow_link() {
    for (bytes, up) in [(1_200_000, 20_000), (1_200_000, 8_500), (4_000_000, 8_200)] {
        let (mut world, client) = joined(config(), 0, up);
        push(&mut world, client, "ack", big(bytes));
        world.run_until(|world| replies(world, client) == 1);
        world.run_for(secs(60));
        assert_one_connection(&world, client);
    }
}

/// Forty pushes that take eight minutes together, and delay many heartbeats.
#[test]
fn many_pushes_arrive_over_slow_link() {
    let (mut world, client) = joined(config(), 0, 8_500);
    for _ in 0..40 {
        push(&mut world, client, "ack", big(100_000));
    }
    world.run_until(|world| replies(world, client) == 40);
    assert_one_connection(&world, client);
}

/// A push that takes longer than `progress_max`. Written bytes do not extend a deadline for that long,
/// but acknowledged bytes do.
#[cfg(feature = "websocket")]
#[test]
fn acknowledged_upload_outlasts_progress_max() {
    let config = config().progress_max(secs(30));
    let (mut world, client) = joined(config.clone(), 0, 8_500);
    push(&mut world, client, "ack", big(700_000));
    world.run_for(secs(100));
    assert_eq!(causes(&world, client), [Cause::HeartbeatTimeout]);

    let (mut world, client) = joined_over_bytes(config, 0, 8_500);
    push(&mut world, client, "ack", big(700_000));
    world.run_until(|world| replies(world, client) == 1);
    world.run_for(secs(60));
    assert_one_connection(&world, client);
}

/// A join behind an upload that takes longer than `join_block_max` and `progress_max` together.
#[cfg(feature = "websocket")]
#[test]
fn join_waits_for_acknowledged_upload() {
    let config = config().progress_max(secs(30)).join_block_max(secs(20)).join_timeout(secs(15));
    let (mut world, client) = joined_over_bytes(config, 0, 8_500);
    for _ in 0..10 {
        push(&mut world, client, "ack", big(60_000));
    }
    world.join(client, "room:other", json!({}));
    world.run_until(|world| world.is_joined(client, "room:other"));
    world.run_until(|world| replies(world, client) == 10);
    assert_one_connection(&world, client);
}

/// With heartbeats off, acknowledged bytes keep a connection alive whose transport accepts no frame.
#[cfg(feature = "websocket")]
#[test]
fn write_stall_waits_for_acknowledged_bytes() {
    let off = config().heartbeat_interval(Duration::ZERO).progress_max(secs(20));
    let (mut world, client) = joined_over_bytes(off, 0, 8_500);
    push(&mut world, client, "ack", big(700_000));
    world.run_until(|world| replies(world, client) == 1);
    assert_one_connection(&world, client);
}

/// The operating system accepts megabytes for a server that no longer reads them. Once the server has
/// acknowledged bytes, bytes after the oldest unanswered ping do not extend a deadline.
#[cfg(feature = "websocket")]
#[test]
fn swallowed_upload_is_detected_like_idle_link() {
    for heartbeats in [true, false] {
        let found = |joined: fn(Config, u64, u64) -> (World, ClientId)| {
            let interval = if heartbeats { INTERVAL } else { Duration::ZERO };
            let (mut world, client) = joined(config().heartbeat_interval(interval), 0, 50_000);
            world.link(client).send_buffer(4 << 20).buffer(3);
            for _ in 0..3 {
                push(&mut world, client, "ack", big(1_000_000));
            }
            world.run_for(secs(10));
            assert_eq!(causes(&world, client), []);
            // Otherwise the server would close the connection after its idle timeout.
            world.link(client).half_open(Direction::Up).half_open(Direction::Down);
            let from = world.now();
            world.run_until(|world| !causes(world, client).is_empty());
            world.now().since(from)
        };
        // `heartbeat_interval` and `heartbeat_timeout`, or `write_stall_timeout`.
        let bound = if heartbeats { secs(30 + 10) } else { secs(30) };
        let at_least_rate = Duration::from_millis((64 << 10) * 1_000 / 8_192);
        let (by_bytes, by_frames) = (found(joined_over_bytes), found(joined));
        assert!(by_bytes <= bound + at_least_rate, "{heartbeats}: {by_bytes:?}");
        // The clock of a write stall is not extended by bytes that were written before it started.
        assert!(!heartbeats || by_frames > bound + secs(100), "{by_frames:?}");
    }
}

/// A server, or a proxy in front of it, that answers pings and no heartbeats is detected, because
/// acknowledgements of bytes after the heartbeat do not extend its deadline.
#[test]
fn acknowledged_bytes_behind_heartbeat_extend_nothing() {
    let mut hand = beating();
    let from = hand.now;
    report(&mut hand, 0, 10_000, true);
    let mut written = 10_000;
    let died = dies_after(&mut hand, |hand| {
        written += 10_000;
        let acknowledged_next = written - 1_000;
        let acknowledged = acknowledged_next - 8_000;
        let progress = Progress { written, acknowledged, acknowledged_next, ..Progress::default() };
        hand.socket.handle_progress(hand.now, hand.dialled.expect("a dial"), progress);
        hand.drain();
    });
    assert!(died <= secs(10 + 2), "{died:?} after {from:?}");
}

/// A join reply that takes longer than `join_block_max`.
#[test]
fn long_join_reply_arrives_over_slow_link() {
    let (mut world, client) = joined(config(), 20_000, 0);
    world.join(client, "room:other", json!({"state": big(2_000_000)}));
    world.run_until(|world| world.is_joined(client, "room:other"));
    assert_one_connection(&world, client);
    assert!(!world.trace().contains("JoinTimedOut"), "{}", world.trace_tail());
}

/// With heartbeats off, written bytes keep a connection alive whose transport accepts no frame.
#[test]
fn write_stall_waits_for_bytes() {
    let off = config().heartbeat_interval(Duration::ZERO);
    let (mut world, client) = joined(off, 0, 10_000);
    push(&mut world, client, "ack", big(1_500_000));
    world.run_until(|world| replies(world, client) == 1);
    assert_one_connection(&world, client);
}

/// While a transfer delays the reply of a heartbeat, further ones are sent, so that the server
/// receives something every minute (`wire/idle_timeout_close`).
#[test]
fn heartbeats_go_on_during_transfer() {
    let (mut world, client) = joined(config(), 30_000, 0);
    world.broadcast(LOBBY, "big", big(6_000_000));
    world.run_until(|world| messages(world, client) == 1);
    let trace = world.trace();
    let is_beat = |line: &&str| line.contains("-> ") && line.contains("heartbeat");
    let sent = trace.lines().filter(is_beat).count();
    assert!(sent >= 6, "{sent} heartbeats in 200 s");
    assert_one_connection(&world, client);
}

/// A dead direction is detected within the bound, even if the other one carries data.
#[test]
fn dead_direction_is_found_within_bound() {
    for dead in [Direction::Down, Direction::Up] {
        for busy in [false, true] {
            let (mut world, client) = joined(config(), 50_000, 50_000);
            world.link(client).half_open(dead);
            let from = world.now();
            let lost = |world: &World| !causes(world, client).is_empty();
            while !lost(&world) && world.now().since(from) < secs(1_000) {
                if busy {
                    world.broadcast(LOBBY, "tick", big(5_000));
                    let cast = |s: &mut phx_proto::Socket, now| {
                        s.push(now, LOBBY, "noreply", big(5_000), PushOptions::cast())
                    };
                    let _ = world.command(client, cast);
                }
                world.run_for(secs(1));
            }
            let cause = causes(&world, client).swap_remove(0);
            // The server receives nothing any more, and times out while its broadcasts still extend
            // the client's deadline.
            let idle = Cause::RemoteClose { code: Some(1002), reason: String::new() };
            let closed = dead == Direction::Up && busy && cause == idle;
            assert!(closed || cause == Cause::HeartbeatTimeout, "{dead:?} {busy}: {cause:?}");
            let found = world.now().since(from);
            assert!(found <= INTERVAL + FOUND_WITHIN + secs(1), "{dead:?} {busy}: {found:?}");
            // Bytes after the heartbeat extend nothing, so the short bound holds.
            if dead == Direction::Down {
                assert!(found <= INTERVAL + secs(10 + 40), "{busy}: {found:?}");
            }
        }
    }
}

/// An event on a link, and its size.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Broadcast(usize),
    Push(usize),
    Cast(usize),
    Join(usize),
    Pause(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let size = || prop_oneof![3 => 0_usize..2_000, 2 => 0_usize..60_000, 1 => 0_usize..300_000];
    prop_oneof![
        3 => size().prop_map(Happening::Broadcast),
        3 => size().prop_map(Happening::Push),
        1 => size().prop_map(Happening::Cast),
        1 => size().prop_map(Happening::Join),
        3 => (0_u64..40_000).prop_map(Happening::Pause),
    ]
}

/// A long upload, or something between two of them.
#[cfg(feature = "websocket")]
fn upload() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0_usize..300_000).prop_map(Happening::Push),
        1 => (0_usize..300_000).prop_map(Happening::Cast),
        1 => (0_usize..10_000).prop_map(Happening::Join),
        1 => (0_usize..500).prop_map(Happening::Broadcast),
    ]
}

fn happen(world: &mut World, client: ClientId, happening: Happening) {
    match happening {
        Happening::Broadcast(size) => world.broadcast(LOBBY, "message", big(size)),
        Happening::Push(size) => push(world, client, "echo", big(size)),
        Happening::Cast(size) => {
            let cast = PushOptions::cast().timeout(secs(3_600));
            let cast =
                world.command(client, |s, now| s.push(now, LOBBY, "noreply", big(size), cast));
            cast.unwrap();
        }
        Happening::Join(size) => {
            let topic = format!("room:{}", world.draw(1_000_000));
            world.join(client, topic, json!({"pad": big(size)}));
        }
        Happening::Pause(length) => world.run_for(ms(length)),
    }
}

proptest! {
    #![proptest_config(cases(60, regressions!("slow_links")))]

    /// A link that carries at least the minimum rates, and on which no answer is outstanding for
    /// longer than `progress_max`, is never declared dead.
    #[test]
    fn slow_link_is_never_declared_dead(
        seed in any::<u64>(),
        down in 1_024_u64..40_000,
        up in 8_192_u64..80_000,
        interval in 2_u64..40,
        happenings in prop::collection::vec(happening(), 1..25),
    ) {
        // All bytes must arrive within `progress_max`.
        let (mut below, mut above) = (0_u64, 0_u64);
        let mut taken = Vec::new();
        for happening in happenings {
            let (received, sent) = match happening {
                Happening::Broadcast(size) => (size, 0),
                Happening::Push(size) | Happening::Join(size) => (size, size),
                Happening::Cast(size) => (0, size),
                Happening::Pause(_) => (0, 0),
            };
            (below, above) = (below + received as u64 + 500, above + sent as u64 + 500);
            if below / down + above / up > 500 {
                break;
            }
            taken.push(happening);
        }
        let mut world = World::new(seed);
        world.latency(ms(0)..=ms(300));
        let config = config().heartbeat_interval(secs(interval)).queued_bytes_max(64 << 20);
        let client = world.client(config);
        world.join(client, LOBBY, json!({}));
        world.run_until(|world| world.is_joined(client, LOBBY));
        world.link(client).bandwidth(Direction::Down, down).bandwidth(Direction::Up, up);
        for happening in taken {
            happen(&mut world, client, happening);
        }
        world.run_for(secs(900));
        prop_assert_eq!(causes(&world, client), [], "{}", world.trace_tail());
        let pushes = world.socket(client).stats();
        prop_assert_eq!(pushes.pushes_in_flight + pushes.queued_pushes, 0, "all have arrived");
    }

    /// A link that carries at least the minimum rate, and over which the server acknowledges the client's
    /// bytes, is never declared dead, however long the uploads take.
    #[cfg(feature = "websocket")]
    #[test]
    fn acknowledged_upload_is_never_cut(
        seed in any::<u64>(),
        up in 8_192_u64..30_000,
        interval in 0_u64..40,
        fragment_bytes in prop_oneof![1_000_usize..4_000, Just(32 << 10)],
        // A smaller buffer than the bytes under way limits the rate: 300 ms at 30,000 bytes/s are 9 kB.
        send_buffer in prop_oneof![Just(64_u64 << 10), 10_000_u64..4 << 20],
        uploads in prop::collection::vec((upload(), 0_u64..20_000), 1..12),
    ) {
        let mut server = phx_proto::testing::ServerConfig::default();
        if interval == 0 {
            // Without heartbeats the server would rightly close the connection after the uploads, when it is
            // idle (`wire/idle_timeout_close`).
            server = server.idle_timeout(secs(3_600));
        }
        let mut world = World::with_server(seed, server);
        let limits = phx_proto::websocket::Limits { fragment_bytes, ..Default::default() };
        world.latency(ms(0)..=ms(300)).carry_bytes(&limits);
        let config = config().heartbeat_interval(secs(interval)).queued_bytes_max(64 << 20);
        let config = config.progress_max(secs(15)).join_block_max(secs(20));
        let client = world.client(config);
        world.join(client, LOBBY, json!({}));
        world.run_until(|world| world.is_joined(client, LOBBY));
        world.link(client).bandwidth(Direction::Up, up).send_buffer(send_buffer);
        // Long enough for the first acknowledgements. Before them, the limit is `progress_max`.
        push(&mut world, client, "ack", big(2 * fragment_bytes));
        world.run_for(secs(20));
        let mut left = 700_000;
        for (happening, pause) in uploads {
            if let Happening::Push(size) | Happening::Cast(size) | Happening::Join(size) = happening {
                if size > left {
                    break;
                }
                left -= size;
            }
            happen(&mut world, client, happening);
            world.run_for(ms(pause));
        }
        world.run_for(secs(200));
        prop_assert_eq!(causes(&world, client), [], "{}", world.trace_tail());
        let pushes = world.socket(client).stats();
        prop_assert_eq!(pushes.pushes_in_flight + pushes.queued_pushes, 0, "all have arrived");
    }

    /// A link with a dead direction is declared dead no later than `heartbeat_timeout` plus `progress_max`
    /// after a heartbeat fell due.
    #[test]
    fn dead_link_is_found_within_bound(
        seed in any::<u64>(),
        down in 1_u64..100_000,
        up in 1_u64..100_000,
        dead in prop_oneof![Just(Direction::Down), Just(Direction::Up)],
        before in prop::collection::vec(happening(), 0..8),
        after in prop::collection::vec(happening(), 0..8),
    ) {
        let mut world = World::new(seed);
        world.latency(ms(0)..=ms(300));
        let client = world.client(config());
        world.join(client, LOBBY, json!({}));
        world.run_until(|world| world.is_joined(client, LOBBY));
        world.link(client).bandwidth(Direction::Down, down).bandwidth(Direction::Up, up);
        for happening in before {
            happen(&mut world, client, happening);
        }
        let lost_before = causes(&world, client).len();
        prop_assume!(world.socket(client).status() == Status::Open);
        world.link(client).half_open(dead);
        let from = world.now();
        for happening in after {
            if world.socket(client).status() == Status::Open {
                happen(&mut world, client, happening);
            }
        }
        // An answered heartbeat does not delay the next one.
        let bound = INTERVAL + FOUND_WITHIN + secs(1);
        let found = world.runs_into(bound, |world| causes(world, client).len() > lost_before);
        prop_assert!(found, "not within {bound:?} of {from}:\n{}", world.trace_tail());
    }
}

fn report(hand: &mut Hand, read: u64, written: u64, flushed: bool) {
    let id = hand.dialled.expect("a dial");
    let progress = Progress { read, written, flushed, ..Progress::default() };
    hand.socket.handle_progress(hand.now, id, progress);
    hand.drain();
}

/// An open connection whose heartbeat has just been written.
fn beating() -> Hand {
    let mut hand = Hand::joined(config());
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand
}

/// The time until the connection is declared dead if nothing is answered. `before` is called before each
/// deadline is handled.
fn dies_after(hand: &mut Hand, mut before: impl FnMut(&mut Hand)) -> Duration {
    let from = hand.now;
    while hand.socket.status() == Status::Open {
        let next = hand.socket.poll_timeout().expect("a deadline").at.since(hand.now);
        hand.now += next;
        before(hand);
        hand.socket.handle_timeout(hand.now);
        hand.drain();
        assert!(hand.now.since(from) < secs(10_000), "it is kept for ever");
    }
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
    hand.now.since(from)
}

/// If a proxy sends pings or a few bytes on a dead connection, they extend its deadline only by the
/// time that these bytes take at the minimum rate.
#[test]
fn trickle_extends_dead_connection_by_bytes() {
    let quiet = dies_after(&mut beating(), |_| {});
    assert_eq!(quiet, secs(10));
    for (bytes, bought) in [(1_024, secs(1)), (10_240, secs(10)), (u64::MAX, secs(600))] {
        let died = dies_after(&mut beating(), |hand| report(hand, bytes, 0, true));
        assert_eq!(died, secs(10) + bought, "{bytes}");
    }
    // Pings that never stop arriving add two seconds for each second, up to `progress_max`.
    let mut hand = beating();
    let from = hand.now;
    let died = dies_after(&mut hand, |hand| {
        let read = hand.now.since(from).as_millis() as u64 * 2_048 / 1_000;
        report(hand, read, 0, true);
    });
    assert_eq!(died, FOUND_WITHIN);
}

#[test]
fn bytes_read_before_heartbeat_extend_nothing() {
    let mut hand = Hand::joined(config());
    report(&mut hand, 1 << 30, 0, true);
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(dies_after(&mut hand, |hand| report(hand, 1 << 30, 0, true)), secs(10));
}

#[test]
fn bytes_written_before_heartbeat_extend_deadline() {
    let mut hand = Hand::joined(config());
    report(&mut hand, 0, 81_920, true);
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    // Bytes that are flushed together with the heartbeat count; bytes after it do not.
    report(&mut hand, 0, 163_840, true);
    assert_eq!(dies_after(&mut hand, |hand| report(hand, 0, 1 << 30, true)), secs(10 + 10 + 10));
}

/// An answered ref proves that everything written before it has arrived: those bytes extend no
/// later deadline.
#[test]
fn answer_covers_earlier_bytes() {
    let mut hand = Hand::joined(config());
    report(&mut hand, 0, 81_920, true);
    let payload = Payload::from(json!({}));
    hand.socket.push(hand.now, "room:a", "e", payload, PushOptions::call()).unwrap();
    hand.drain();
    hand.answer("room:a", "e", "ok", json!({}));
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(dies_after(&mut hand, |hand| report(hand, 0, 81_920, true)), secs(10));
}

/// The reply to an older heartbeat is late only because of the transfer, so the reply to any
/// heartbeat counts.
#[test]
fn reply_to_any_heartbeat_proves_life() {
    for answered in [0, 1] {
        let mut hand = beating();
        let first = hand.now;
        let mut read = 0;
        while hand.count_sent("phoenix", "heartbeat") < 3 {
            let next = hand.socket.poll_timeout().expect("a deadline").at;
            hand.now = next;
            read += 60_000;
            report(&mut hand, read, 0, true);
            hand.socket.handle_timeout(hand.now);
            hand.drain();
            assert!(hand.now.since(first) < secs(200), "{:?}", hand.socket.status());
        }
        let beats: Vec<_> = hand.sent.iter().filter(|s| s.event == "heartbeat").cloned().collect();
        let ok = json!({"status": "ok", "response": {}});
        let to = &beats[answered];
        hand.receive(&json!([null, to.msg_ref, "phoenix", "phx_reply", ok]));
        let rtt = hand.now.since(to.at);
        assert!(hand.signals.contains(&Signal::HeartbeatAcked { rtt }), "{:?}", hand.signals);
        // The heartbeats after the answered one still need answers, each within its timeout from when
        // it fell due.
        assert!(hand.socket.awaits_answer());
        let last = beats[2].at;
        let _ = dies_after(&mut hand, |_| {});
        if answered == 1 {
            // The reply to the second heartbeat also answered the first, so only the third one
            // counts.
            assert_eq!(hand.now, last + secs(10));
        }
    }
}

/// A flush before the heartbeat could be written does not prove that the heartbeat was written.
#[test]
fn unwritten_heartbeat_is_not_flushed() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    hand.socket.probe(hand.now).unwrap();
    report(&mut hand, 0, 0, true);
    assert_eq!(dies_after(&mut hand, |hand| report(hand, 0, 81_920, true)), secs(10 + 10));
}

/// Further heartbeats are sent only during a long transfer. An interval below the timeout causes no
/// second heartbeat.
#[test]
fn second_heartbeat_waits_for_timeout() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(4)));
    let died = dies_after(&mut hand, |_| {});
    assert!(died <= secs(4 + 10), "{died:?}");
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

/// At most one heartbeat is unwritten, however long the transport is blocked.
#[test]
fn blocked_transport_owes_one_heartbeat() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let mut written = 0;
    for _ in 0..200 {
        written += 10_000;
        report(&mut hand, 0, written, false);
        hand.advance(secs(1));
    }
    assert_eq!(hand.socket.status(), Status::Open);
    hand.writable(true);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

#[test]
fn join_deadlines_wait_for_bytes() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let timed_out = |hand: &Hand| {
        hand.signals.iter().any(|signal| matches!(signal, Signal::JoinTimedOut { .. }))
    };
    let mut read = 0;
    for _ in 0..100 {
        read += 2_048;
        report(&mut hand, read, 0, true);
        hand.advance(secs(1));
    }
    assert!(!timed_out(&hand));
    assert_eq!(hand.socket.status(), Status::Open);
    // At the minimum rate, the 200 KiB extend the deadline by 200 s. Together with `join_timeout`, it
    // ends 210 s after the join.
    hand.advance(secs(109));
    assert!(!timed_out(&hand), "{:?}", hand.signals);
    hand.advance(secs(2));
    assert!(timed_out(&hand));
}

#[test]
fn write_stall_counts_bytes_written_only() {
    let off = || Hand::open(config().heartbeat_interval(Duration::ZERO));
    for (read, written, expected) in [(1 << 20, 0, 30), (0, 81_920, 40)] {
        let mut hand = off();
        hand.writable(false);
        report(&mut hand, read, written, false);
        hand.advance(secs(expected) - ms(1));
        assert!(!hand.has_abort());
        hand.advance(ms(1));
        assert_eq!(hand.reconnect_after().1, Cause::WriteStalled);
    }
}

#[test]
fn rates_of_zero_extend_nothing() {
    for config in
        [config().receive_rate_min(0).send_rate_min(0), config().progress_max(Duration::ZERO)]
    {
        let mut hand = Hand::joined(config);
        hand.socket.probe(hand.now).unwrap();
        hand.drain();
        assert_eq!(dies_after(&mut hand, |hand| report(hand, 1 << 30, 1 << 30, true)), secs(10));
    }
}

#[test]
fn progress_of_other_connection_is_ignored() {
    let mut hand = beating();
    let stale = phx_proto::ConnectionId::from_u64(99);
    let progress = Progress {
        read: 1 << 30,
        written: 1 << 30,
        flushed: true,
        acknowledged: 1 << 20,
        acknowledged_next: 1 << 20,
    };
    hand.socket.handle_progress(hand.now, stale, progress);
    assert_eq!(hand.socket.stats().stale_inputs, 1);
    assert_eq!(dies_after(&mut hand, |_| {}), secs(10));
}

/// A busy process must keep its backoff: a timeout that is handled late does not cause an early dial.
#[test]
fn late_timeout_keeps_reconnect_wait() {
    let step = phx_proto::config::Backoff::steps_msec(&[60_000]).unwrap().jitter(0.0).unwrap();
    let mut hand = Hand::new(config().reconnect_after(step).push_timeout(secs(1)));
    hand.connect();
    hand.socket.join(hand.now, "room:a", json!({})).unwrap();
    hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
    hand.failed(dial_failure());
    // The push's deadline is handled 20 s late.
    hand.now += secs(21);
    hand.socket.handle_timeout(hand.now);
    hand.drain();
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }), "{:?}", hand.socket.status());
}

/// A network change while connecting, and another one 300 ms later, both take effect.
#[test]
fn wake_while_connecting_is_remembered() {
    let step = phx_proto::config::Backoff::steps_msec(&[60_000]).unwrap().jitter(0.0).unwrap();
    let mut hand = Hand::new(config().reconnect_after(step));
    hand.connect();
    hand.socket.handle_wake(hand.now);
    hand.now += ms(300);
    hand.failed(dial_failure());
    assert!(matches!(hand.socket.status(), Status::Connecting { attempt: 1 }));
    // The next wake-up comes within a second of the first: the wait ends when that second is over.
    hand.now += ms(300);
    hand.socket.handle_wake(hand.now);
    hand.failed(dial_failure());
    let Status::Waiting { until, .. } = hand.socket.status() else { panic!("it waits") };
    assert_eq!(until.since(hand.now), ms(700));
    hand.advance(ms(700));
    assert!(matches!(hand.socket.status(), Status::Connecting { attempt: 2 }));
    // Without another wake-up, the wait is that of the schedule.
    hand.failed(dial_failure());
    let Status::Waiting { until, .. } = hand.socket.status() else { panic!("it waits") };
    assert_eq!(until.since(hand.now), secs(60));
}

/// A wake-up less than a second after the last one shortens the wait, so that the wait ends when that
/// second is over.
#[test]
fn second_wake_shortens_wait() {
    let step = phx_proto::config::Backoff::steps_msec(&[60_000]).unwrap().jitter(0.0).unwrap();
    let mut hand = Hand::new(config().reconnect_after(step));
    hand.connect();
    hand.failed(dial_failure());
    hand.socket.handle_wake(hand.now);
    hand.drain();
    hand.failed(dial_failure());
    hand.socket.handle_wake(hand.now);
    let Status::Waiting { until, .. } = hand.socket.status() else { panic!("it waits") };
    assert_eq!(until.since(hand.now), secs(1));
}

/// The answer to a join moves the deadline of an unanswered heartbeat, but not the time of the next
/// heartbeat. Otherwise the server would receive nothing for a minute.
#[test]
fn heartbeats_go_on_after_join() {
    let mut hand = Hand::open(config());
    while hand.count_sent("phoenix", "heartbeat") == 0 {
        hand.advance(ms(100));
    }
    hand.join("room:a");
    for second in 1..=25 {
        report(&mut hand, second * 100_000, 0, true);
        hand.advance(secs(1));
    }
    hand.answer_join("room:a");
    for second in 26..=31 {
        report(&mut hand, second * 100_000, 0, true);
        hand.advance(secs(1));
    }
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 2);
}
