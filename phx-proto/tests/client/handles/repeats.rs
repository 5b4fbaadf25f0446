//! Pushes that are repeated with their idempotency key.

use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;

use phx_proto::Payload;
use phx_proto::client::{Channel, Client, PushFailed, RepeatFailed, Repeated, Unfinished};
use phx_proto::event::{KeyError, NotSentCause, PushErrorKind, RepeatOptions, UnknownCause};
use phx_proto::socket::ChannelStatus;
use phx_proto::testing::{Running, Script, Sent};
use serde_json::{Value, json};

use super::{config, joined, now, settle};
use crate::bench::{Bench, poll, ready};

const LOBBY: &str = "room:lobby";

type Outcome = Result<Repeated, RepeatFailed>;

fn options() -> RepeatOptions {
    RepeatOptions::keyed_by("id")
}

fn order() -> Value {
    json!({"id": "7f3a", "item": "tea"})
}

/// Spawns the push of an order.
fn buy(script: &Script, room: &Channel, options: RepeatOptions) -> Running<Outcome> {
    let room = room.clone();
    let running = script.spawn(async move { room.push_repeating("buy", order(), options).await });
    settle(script);
    running
}

/// The next frame of the order. Every attempt has the same payload, and a ref of its own.
#[track_caller]
fn bought(script: &Script) -> Sent {
    let sent = script.assert_push(LOBBY, "buy");
    assert_eq!(sent.json(), order());
    sent
}

fn unknown(repeats: u32) -> (PushFailed, u32) {
    (PushFailed::Unknown(UnknownCause::Disconnected), repeats)
}

#[track_caller]
fn failed(script: &Script, running: Running<Outcome>) -> (PushFailed, u32) {
    let failed = script.finish(running).expect_err("there is no reply");
    (failed.failed, failed.repeats)
}

/// The order is pushed again after the rejoin, with its key.
#[test]
fn lost_push_is_repeated_after_rejoin() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), LOBBY);
    let running = buy(&script, &room, options());
    bought(&script);
    script.disconnect();
    script.accept_connect();
    let join = script.assert_join(LOBBY);
    script.refute_push(LOBBY, "buy");
    script.reply(&join, "ok", json!({}));
    let again = bought(&script);
    script.reply(&again, "ok", json!({"total": 3}));
    let done = script.finish(running).expect("a reply");
    assert_eq!((done.repeats, done.reply.response.to_value()), (1, Ok(json!({"total": 3}))));
    let stats = client.stats();
    assert_eq!((stats.pushes_repeated, stats.pushes_in_flight, stats.queued_pushes), (1, 0, 0));
}

#[test]
fn answered_push_is_not_repeated() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), LOBBY);
    let running = buy(&script, &room, options());
    let sent = bought(&script);
    // Any status is a reply.
    script.reply(&sent, "error", json!({"reason": "sold out"}));
    let done = script.finish(running).expect("a reply");
    assert_eq!((&*done.reply.status, done.repeats), ("error", 0));
    script.disconnect();
    script.connect_and_assert_join(LOBBY);
    script.refute_push(LOBBY, "buy");
    assert_eq!(client.stats().pushes_repeated, 0);
}

/// The channel is still joined after a timeout, so the repeat follows at once. A reply to the first
/// attempt that comes after the repeat, and a second reply to the repeat, are dropped.
#[test]
fn late_and_second_replies_are_dropped() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), LOBBY);
    let running = buy(&script, &room, options().timeout(Duration::from_secs(2)));
    let first = bought(&script);
    script.advance(Duration::from_secs(2));
    let second = bought(&script);
    script.reply(&first, "ok", json!({"n": 1}));
    assert!(!running.is_finished(), "the first attempt has ended");
    script.reply(&second, "ok", json!({"n": 2}));
    script.reply(&second, "ok", json!({"n": 3}));
    let done = script.finish(running).expect("a reply");
    assert_eq!((done.repeats, done.reply.response.to_value()), (1, Ok(json!({"n": 2}))));
    assert_eq!(client.stats().late_replies, 2);
    script.refute_push(LOBBY, "buy");
}

#[test]
fn repeats_are_bounded() {
    for repeats in [0, 1, 2] {
        let script = Script::new();
        let (client, room) = joined(&script, config(), LOBBY);
        let running = buy(&script, &room, options().repeats(repeats));
        for _ in 0..repeats {
            bought(&script);
            script.disconnect();
            script.connect_and_assert_join(LOBBY);
        }
        bought(&script);
        script.disconnect();
        assert_eq!(failed(&script, running), unknown(repeats));
        script.connect_and_assert_join(LOBBY);
        script.refute_push(LOBBY, "buy");
        assert_eq!(client.stats().pushes_repeated, u64::from(repeats));
    }
}

/// A payload without its key is returned, and nothing is sent.
#[test]
fn push_without_key_is_refused() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), LOBBY);
    let member = || "id".to_owned();
    for (payload, error) in [
        (json!({"ID": 1}).into(), KeyError::Missing { member: member() }),
        (json!({"id": null}).into(), KeyError::Invalid { member: member() }),
        (json!(["id"]).into(), KeyError::NotAnObject { member: member() }),
        (Payload::binary("{\"id\":1}"), KeyError::NotAnObject { member: member() }),
    ] {
        let (room, given) = (room.clone(), payload.clone());
        let refused =
            now(&script, async move { room.push_repeating("buy", given, options()).await });
        let RepeatFailed { failed, repeats, .. } = refused.expect_err("it has no key");
        let PushFailed::NotAccepted(refused) = failed else { panic!("{failed:?}") };
        assert_eq!((refused.kind, refused.payload), (PushErrorKind::NoKey(error), payload));
        assert_eq!(repeats, 0);
    }
    script.refute_push(LOBBY, "buy");
}

/// A push that was never written ends like any other, and is safe to push again.
#[test]
fn unsent_push_is_not_repeated() {
    let script = Script::new();
    let client = script.client(config());
    let room = client.want(LOBBY, json!({})).expect("it is accepted");
    let running = buy(&script, &room, options().timeout(Duration::from_secs(2)));
    script.refuse_connect(503);
    script.advance(Duration::from_secs(2));
    assert_eq!(failed(&script, running), (PushFailed::NotSent(NotSentCause::TimedOut), 0));
    let ended = buy(&script, &room, options());
    let left = room.clone();
    now(&script, async move { left.leave().await });
    assert_eq!(failed(&script, ended), (PushFailed::NotSent(NotSentCause::Left), 0));
    let gone = failed(&script, buy(&script, &room, options())).0;
    assert!(matches!(gone, PushFailed::NotAccepted(_)), "{gone:?}");
}

/// The sent frames of an order.
fn orders(bench: &Bench) -> usize {
    bench.memory.world().to_server.iter().filter(|frame| frame[3] == "buy").count()
}

/// Connects and joins again.
fn rejoin(bench: &mut Bench) {
    bench.advance(Duration::from_secs(30));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", json!({}));
}

/// Dropping the future at any point withdraws the attempt and stops the repeats. A shutdown does not
/// wait for it.
#[test]
fn dropped_future_stops_repeats() {
    for point in 0..=6 {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined(LOBBY);
        let mut push = Box::pin(room.push_repeating("buy", order(), options()));
        let steps: [fn(&mut Bench); 6] = [
            |_| {},
            |bench| {
                bench.settle();
            },
            Bench::cut,
            |_| {},
            rejoin,
            |bench| {
                bench.settle();
            },
        ];
        for step in &steps[..point] {
            step(&mut bench);
            assert!(poll(push.as_mut()).is_pending());
        }
        drop(push);
        bench.settle();
        let sent = [0, 0, 1, 1, 1, 1, 2][point];
        assert_eq!(orders(&bench), sent, "{point}");
        if (3..5).contains(&point) {
            rejoin(&mut bench);
        }
        bench.advance(Duration::from_secs(1));
        assert_eq!(orders(&bench), sent, "{point}");
        let stats = bench.client.stats();
        assert_eq!((stats.queued_pushes, stats.pushes_in_flight), (0, 0), "{point}");
        let client = bench.client.clone();
        let mut shutdown = pin!(client.shutdown(Duration::from_secs(5)));
        assert!(poll(shutdown.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave", "{point}");
    }
}

/// The attempt ends with every loss of the channel, and the repeat follows the next join.
#[test]
fn crash_and_resync_are_repeated() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), LOBBY);
    let running = buy(&script, &room, options());
    bought(&script);
    script.crash_channel(LOBBY);
    let join = script.assert_join(LOBBY);
    script.reply(&join, "ok", json!({}));
    bought(&script);
    room.rejoin().expect("it is wanted");
    let join = script.assert_join(LOBBY);
    script.reply(&join, "ok", json!({}));
    let sent = bought(&script);
    script.reply(&sent, "ok", json!({}));
    assert_eq!(script.finish(running).expect("a reply").repeats, 2);
}

/// A repeat that leaves the queue unwritten is not counted as a repeat. The transport takes no
/// frame when the connection is lost again.
#[test]
fn interrupted_repeat_waits_for_next_join() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined(LOBBY);
    let options = options().repeats(1).deadline(Duration::MAX);
    let mut push = pin!(room.push_repeating("buy", order(), options));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    bench.cut();
    assert!(poll(push.as_mut()).is_pending());
    rejoin(&mut bench);
    bench.memory.world().blocked = true;
    bench.settle();
    assert!(poll(push.as_mut()).is_pending());
    assert_eq!((bench.client.stats().queued_pushes, orders(&bench)), (1, 1));
    bench.cut();
    assert_eq!(bench.client.stats().queued_pushes, 0, "it fails fast");
    assert!(poll(push.as_mut()).is_pending());
    bench.memory.world().blocked = false;
    rejoin(&mut bench);
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!(orders(&bench), 2);
    bench.reply("ok", json!({}));
    assert_eq!(ready(push.as_mut()).expect("a reply").repeats, 1);
}

/// The channel is lost again after its rejoin, before the task of the push runs.
#[test]
fn join_lost_before_repeat_is_awaited_again() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined(LOBBY);
    let options = options().deadline(Duration::MAX);
    let mut push = pin!(room.push_repeating("buy", order(), options));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    bench.cut();
    assert!(poll(push.as_mut()).is_pending());
    rejoin(&mut bench);
    bench.cut();
    assert!(poll(push.as_mut()).is_pending());
    rejoin(&mut bench);
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!(orders(&bench), 2);
    bench.reply("ok", json!({}));
    assert_eq!(ready(push.as_mut()).expect("a reply").repeats, 1);
}

/// A flag that a waker sets.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A repeat waits while the push queue is full, up to the deadline.
#[test]
fn repeat_waits_for_space_in_queue() {
    for in_time in [true, false] {
        let mut bench = Bench::new(|config| config.queued_pushes_max(1));
        let room = bench.joined(LOBBY);
        let options = options().timeout(Duration::from_secs(2)).deadline(Duration::from_secs(5));
        let mut push = pin!(room.push_repeating("buy", order(), options));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        bench.memory.world().blocked = true;
        bench.settle();
        let mut cast = pin!(room.cast("typing", json!({})));
        assert!(poll(cast.as_mut()).is_pending());
        bench.advance(Duration::from_secs(2));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(push.as_mut().poll(&mut cx).is_pending(), "the queue is full");
        assert!(!woken.0.load(Ordering::Relaxed));
        assert_eq!(orders(&bench), 1);
        if in_time {
            bench.memory.world().blocked = false;
            bench.settle();
            assert!(woken.0.load(Ordering::Relaxed));
            assert!(push.as_mut().poll(&mut cx).is_pending());
            bench.settle();
            assert_eq!(orders(&bench), 2);
            bench.reply("ok", json!({}));
            assert_eq!(ready(push.as_mut()).expect("a reply").repeats, 1);
        } else {
            bench.advance(Duration::from_secs(3));
            assert!(woken.0.load(Ordering::Relaxed), "the deadline wakes it");
            let failed = ready(push.as_mut()).expect_err("late");
            assert_eq!((failed.failed, failed.repeats), (PushFailed::TimedOut, 0));
        }
    }
}

/// Each end of the wait for the rejoin gives the outcome of the attempt that was written.
#[test]
fn wait_for_rejoin_ends() {
    let ends: [fn(&Script, &Client); 4] = [
        // The deadline passes.
        |script, _| script.advance(Duration::from_secs(60)),
        |script, client| {
            let client = client.clone();
            drop(script.spawn(async move { client.leave_topic(LOBBY).await }));
            settle(script);
        },
        |script, client| {
            let client = client.clone();
            drop(script.spawn(async move { client.disconnect().await }));
            settle(script);
        },
        |script, _| {
            script.accept_connect();
            script.assert_join(LOBBY);
            script.close_channel(LOBBY);
        },
    ];
    for (nth, end) in ends.iter().enumerate() {
        let script = Script::new();
        let (client, room) = joined(&script, config(), LOBBY);
        let running = buy(&script, &room, options());
        bought(&script);
        script.disconnect();
        settle(&script);
        assert!(!running.is_finished());
        end(&script, &client);
        assert!(running.is_finished(), "{nth}: {}", script.log());
        assert_eq!(failed(&script, running), unknown(0), "{nth}");
    }
}

/// A shutdown waits for a push that waits for its repeat, and counts it after the grace period.
#[test]
fn shutdown_waits_for_repeats() {
    for in_time in [true, false] {
        let script = Script::new();
        let (client, room) = joined(&script, config(), LOBBY);
        let running = buy(&script, &room, options());
        bought(&script);
        script.disconnect();
        let shutdown = script.spawn(async move { client.shutdown(Duration::from_secs(30)).await });
        settle(&script);
        assert!(!shutdown.is_finished() && !running.is_finished());
        if in_time {
            script.connect_and_assert_join(LOBBY);
            script.refute_leave(LOBBY);
            let sent = bought(&script);
            script.reply(&sent, "ok", json!({}));
            assert_eq!(script.finish(running).expect("a reply").repeats, 1);
            let leave = script.assert_leave(LOBBY);
            script.reply(&leave, "ok", json!({}));
            assert_eq!(script.finish(shutdown), Unfinished::default());
        } else {
            script.advance(Duration::from_secs(31));
            let unfinished = script.finish(shutdown);
            assert_eq!((unfinished.pushes, unfinished.leaves.len()), (1, 0));
            assert_eq!(failed(&script, running), unknown(0));
        }
    }
}

/// The attempts of an order end while its future is not polled. A shutdown waits for it only if a repeat may
/// follow.
#[test]
fn shutdown_skips_orders_with_outcome() {
    let timeout = Duration::from_secs(2);
    let answered: fn(&mut Bench) = |bench| bench.reply("ok", json!({}));
    let timed_out: fn(&mut Bench) = |bench| bench.advance(Duration::from_secs(2));
    for (end, repeats, waits) in [(answered, 3, false), (timed_out, 0, false), (timed_out, 1, true)]
    {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined(LOBBY);
        let options = options().timeout(timeout).repeats(repeats);
        let mut push = pin!(room.push_repeating("buy", order(), options));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        end(&mut bench);
        let client = bench.client.clone();
        let mut shutdown = pin!(client.shutdown(Duration::from_secs(5)));
        assert!(poll(shutdown.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3] != "phx_leave", waits, "{repeats} repeats");
        if waits {
            assert!(poll(push.as_mut()).is_pending(), "it waits for the join");
            assert!(poll(push.as_mut()).is_pending(), "it is accepted");
            bench.settle();
            bench.reply("ok", json!({}));
            assert!(poll(shutdown.as_mut()).is_pending());
            bench.settle();
        }
        assert_eq!(bench.last_sent()[3], "phx_leave", "{repeats} repeats");
        bench.reply("ok", json!({}));
        assert!(poll(shutdown.as_mut()).is_pending());
        bench.settle();
        assert_eq!(ready(shutdown.as_mut()), Unfinished::default());
        assert_eq!(ready(push.as_mut()).is_ok(), repeats > 0);
    }
}

/// The channel of an order ends before or after its repeat is due, and its future is not polled. No repeat can
/// follow.
#[test]
fn shutdown_skips_orders_of_ended_channels() {
    for polled in [false, true] {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined(LOBBY);
        let mut push = pin!(room.push_repeating("buy", order(), options()));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        if polled {
            bench.cut();
            assert!(poll(push.as_mut()).is_pending(), "it waits for the join");
        }
        let client = bench.client.clone();
        let mut leave = pin!(client.leave_topic(LOBBY));
        assert_eq!(poll(leave.as_mut()).is_ready(), polled);
        bench.settle();
        let mut shutdown = pin!(client.shutdown(Duration::from_secs(5)));
        if !polled {
            bench.reply("ok", json!({}));
            assert!(poll(shutdown.as_mut()).is_pending(), "the close handshake");
            bench.settle();
        }
        assert_eq!(ready(shutdown.as_mut()), Unfinished::default(), "{polled}");
        assert!(ready(push.as_mut()).is_err());
    }
}

/// After the grace period, an order whose repeat is unanswered counts once.
#[test]
fn shutdown_counts_written_repeat_once() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), LOBBY);
    let running = buy(&script, &room, options());
    bought(&script);
    script.disconnect();
    script.connect_and_assert_join(LOBBY);
    bought(&script);
    let shutdown = script.spawn(async move { client.shutdown(Duration::from_secs(5)).await });
    script.advance(Duration::from_secs(6));
    assert_eq!(script.finish(shutdown).pushes, 1);
    assert_eq!(failed(&script, running), unknown(1));
}

/// Two pushes with one key are two pushes for the client: replies are matched by ref.
#[test]
fn pushes_with_one_key_have_own_replies() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), LOBBY);
    let (one, other) = (buy(&script, &room, options()), buy(&script, &room, options()));
    let (first, second) = (bought(&script), bought(&script));
    script.reply(&second, "ok", json!({"n": 2}));
    script.disconnect();
    script.connect_and_assert_join(LOBBY);
    let again = bought(&script);
    script.reply(&again, "ok", json!({"n": 1}));
    let (one, other) =
        (script.finish(one).expect("a reply"), script.finish(other).expect("a reply"));
    assert_eq!((one.repeats, one.reply.response.to_value()), (1, Ok(json!({"n": 1}))));
    assert_eq!((other.repeats, other.reply.response.to_value()), (0, Ok(json!({"n": 2}))));
    assert_ne!(first, again);
}

/// When the driver is dropped, every push that may be repeated ends.
#[test]
fn dropped_driver_ends_repeats() {
    for connected in [true, false] {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined(LOBBY);
        let mut push = pin!(room.push_repeating("buy", order(), options()));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        if !connected {
            bench.cut();
            assert!(poll(push.as_mut()).is_pending());
        }
        drop(bench.driver);
        let failed = ready(push.as_mut()).expect_err("no reply");
        assert_eq!((failed.failed, failed.repeats), unknown(0));
    }
}

/// A push of the random test. Its future is dropped when it is over.
struct Buying<'a> {
    repeats_max: u32,
    future: Option<Pin<Box<dyn Future<Output = Outcome> + 'a>>>,
    outcome: Option<Outcome>,
    /// The number of frames with the key when the future was dropped.
    dropped_at: Option<usize>,
}

fn frames_of(bench: &Bench, key: usize) -> Vec<Value> {
    let world = bench.memory.world();
    let frames = world.to_server.iter();
    frames.filter(|frame| frame[4]["id"] == json!(key)).cloned().collect()
}

/// Replies to the newest join. If that join was answered before, the client ignores the reply.
fn answer_join(bench: &mut Bench) {
    let frames = bench.memory.world().to_server.clone();
    if let Some(join) = frames.iter().rfind(|frame| frame[3] == "phx_join") {
        let body = json!({"status": "ok", "response": {}});
        bench.server_sends(&json!([join[0], join[1], LOBBY, "phx_reply", body]));
    }
}

fn answer(bench: &mut Bench, frame: &Value) {
    let body = json!({"status": "ok", "response": frame[4]});
    bench.server_sends(&json!([frame[0], frame[1], LOBBY, "phx_reply", body]));
}

fn poll_all(pushes: &mut [Buying<'_>]) {
    for push in pushes {
        let Some(future) = &mut push.future else { continue };
        if let Poll::Ready(outcome) = poll(Pin::new(future)) {
            (push.outcome, push.future) = (Some(outcome), None);
        }
    }
}

/// Random losses, crashes, timeouts, late and repeated replies, a transport that takes no frames, and
/// dropped futures. Every push ends once, its frames have its key and are bounded, and the number of
/// repeats is one less than the number of its frames.
#[test]
fn random_faults_keep_repeats_bounded() {
    let mut repeats = 0;
    for seed in 1..=25_u64 {
        let mut state = seed;
        let mut draw = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut bench = Bench::new(|config| config.queued_pushes_max(3));
        let room = bench.joined(LOBBY);
        let mut pushes: Vec<Buying<'_>> = Vec::new();
        for _ in 0..80 {
            match draw(11) {
                0 | 1 if pushes.len() < 6 => {
                    let (key, repeats_max) = (pushes.len(), u32::try_from(draw(4)).expect("few"));
                    let timeout = Duration::from_millis(500 + 100 * draw(40) as u64);
                    let options = options().repeats(repeats_max).timeout(timeout);
                    let payload = json!({"id": key});
                    let future = Box::pin(room.push_repeating("buy", payload, options));
                    let (future, outcome, dropped_at) = (Some(future as _), None, None);
                    pushes.push(Buying { repeats_max, future, outcome, dropped_at });
                }
                2 => bench.cut(),
                3 | 4 => bench.advance(Duration::from_millis(draw(3_000) as u64)),
                5 => {
                    let frames = bench.memory.world().to_server.clone();
                    let sent: Vec<_> = frames.iter().filter(|frame| frame[3] == "buy").collect();
                    if !sent.is_empty() {
                        answer(&mut bench, sent[draw(sent.len())]);
                    }
                }
                6 => {
                    let frames = bench.memory.world().to_server.clone();
                    let join = frames.iter().rfind(|frame| frame[3] == "phx_join").expect("one");
                    bench.server_sends(&json!([join[0], join[1], LOBBY, "phx_error", {}]));
                }
                7 if !pushes.is_empty() && draw(3) == 0 => {
                    let key = draw(pushes.len());
                    if pushes[key].future.take().is_some() {
                        pushes[key].dropped_at = Some(frames_of(&bench, key).len());
                    }
                }
                8 => {
                    let blocked = draw(3) == 0;
                    bench.memory.world().blocked = blocked;
                }
                9 => answer_join(&mut bench),
                _ => {}
            }
            if draw(3) > 0 {
                poll_all(&mut pushes);
            }
            if draw(3) > 0 {
                bench.settle();
            }
        }
        bench.memory.world().blocked = false;
        for _ in 0..90 {
            let over = pushes.iter().all(|push| push.future.is_none());
            if over && room.status() == ChannelStatus::Joined {
                break;
            }
            bench.advance(Duration::from_secs(1));
            answer_join(&mut bench);
            poll_all(&mut pushes);
            bench.settle();
            for key in 0..pushes.len() {
                if let Some(frame) = frames_of(&bench, key).last() {
                    answer(&mut bench, frame);
                }
            }
            poll_all(&mut pushes);
        }
        for (key, push) in pushes.iter().enumerate() {
            let frames = frames_of(&bench, key);
            let sent = u32::try_from(frames.len()).expect("few");
            assert!(
                frames.iter().all(|frame| frame[4] == json!({"id": key})),
                "{seed}: {frames:?}"
            );
            assert!(sent <= push.repeats_max + 1, "{seed}: {sent} frames");
            if let Some(before) = push.dropped_at {
                assert_eq!(frames.len(), before, "{seed}: after it was dropped");
                continue;
            }
            match push.outcome.as_ref().unwrap_or_else(|| panic!("{seed}: {key} has no outcome")) {
                Ok(done) => {
                    assert_eq!(done.reply.response.to_value(), Ok(json!({"id": key})), "{seed}");
                    assert_eq!(done.repeats + 1, sent, "{seed}");
                    repeats += done.repeats;
                }
                Err(RepeatFailed { failed: PushFailed::TimedOut, repeats, .. })
                | Err(RepeatFailed { failed: PushFailed::Unknown(_), repeats, .. }) => {
                    assert_eq!(repeats + 1, sent, "{seed}");
                }
                Err(RepeatFailed { repeats, .. }) => assert_eq!((*repeats, sent), (0, 0), "{seed}"),
            }
        }
        let client = bench.client.clone();
        let mut shutdown = pin!(client.shutdown(Duration::from_secs(5)));
        assert!(poll(shutdown.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave", "{seed}: no push is left");
    }
    assert!(repeats > 3, "{repeats} repeats that were answered");
}
