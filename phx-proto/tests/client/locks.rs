//! No code of the application runs under a lock. Executors that own their wakers, owners of payloads
//! and functions of join parameters may all call their client.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Wake;

use crate::bench::{Bench, next, poll, ready};
use bytes::Bytes;
use phx_proto::client::{CatchUp, ChannelEvent, Client, JoinOptions, MailboxPolicy, Received};
use phx_proto::service::Bus;
use phx_proto::{ChannelStatus, Frame, JoinParams, Payload, PushOptions, Status};
use serde_json::{Value, json};

/// Runs each scenario in a separate thread, so that a deadlock makes the test fail instead of hang.
#[allow(clippy::disallowed_methods, reason = "a deadlock can be seen only from another thread")]
fn must_end(scenarios: impl IntoIterator<Item = (String, impl FnOnce() + Send + 'static)>) {
    let run = |(name, scenario): (String, _)| {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let scenario: Box<dyn FnOnce() + Send> = Box::new(scenario);
            scenario();
            let _ = done.send(());
        });
        (name, wait)
    };
    let running: Vec<_> = scenarios.into_iter().map(run).collect();
    let late = |(name, wait): (String, mpsc::Receiver<()>)| {
        wait.recv_timeout(Duration::from_secs(10)).is_err().then_some(name)
    };
    let late: Vec<String> = running.into_iter().filter_map(late).collect();
    assert!(late.is_empty(), "a deadlock or a panic in {late:?}");
}

/// A value of the application that calls the client when it is dropped.
struct Owner {
    client: Client,
    bus: Option<Bus>,
    bytes: Vec<u8>,
    dropped: Arc<Mutex<usize>>,
}

impl Owner {
    fn new(client: &Client) -> Self {
        let bytes = b"owned".to_vec();
        Self { client: client.clone(), bus: None, bytes, dropped: Arc::default() }
    }

    /// A binary payload, and how often its owner was dropped.
    fn payload(client: &Client) -> (Payload, Arc<Mutex<usize>>) {
        let owner = Self::new(client);
        let dropped = Arc::clone(&owner.dropped);
        (Payload::binary_shared(Bytes::from_owner(owner)), dropped)
    }

    /// A message of the server, in memory that the transport owns.
    fn frame(client: &Client, message: &Value) -> Received {
        let bytes = message.to_string().into_bytes();
        let mut owner = Self::new(client);
        owner.bytes = bytes;
        Received::Frame(Frame::Text(Bytes::from_owner(owner)))
    }
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.client.status();
        let _ = self.client.stats();
        if let Some(bus) = &self.bus {
            let _ = format!("{bus:?}");
        }
        *self.dropped.lock().expect("no panic") += 1;
    }
}

/// An executor whose wakers own their tasks: a task is dropped with its last waker.
impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        let _ = self.client.status();
    }
}

fn owning(client: &Client) -> Waker {
    Waker::from(Arc::new(Owner::new(client)))
}

fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Polls a future so that its waker is replaced by another, then by an equal one, and then dropped.
fn replace_and_forget<F: Future>(client: &Client, future: F) {
    let mut future = Box::pin(future);
    assert!(poll_with(future.as_mut(), &owning(client)).is_pending());
    assert!(poll_with(future.as_mut(), &owning(client)).is_pending());
    let same = owning(client);
    assert!(poll_with(future.as_mut(), &same).is_pending());
    assert!(poll_with(future.as_mut(), &same).is_pending());
    assert!(poll_with(future.as_mut(), Waker::noop()).is_pending());
    assert!(poll_with(future.as_mut(), &owning(client)).is_pending());
    drop(same);
    drop(future);
}

/// A bench with a joined channel, whose server no longer answers.
fn bench() -> (Bench, phx_proto::client::Channel) {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    (bench, room)
}

type Case = (&'static str, fn(&mut Bench, phx_proto::client::Channel));

/// The waker of the async book's executor owns its task, and everything that the task owns.
#[test]
fn wakers_are_not_dropped_under_a_lock() {
    let cases: &[Case] = &[
        ("join", |bench, _| {
            let client = bench.client.clone();
            replace_and_forget(
                &bench.client,
                async move { client.join("room:b", json!({})).await },
            );
        }),
        ("push", |bench, room| {
            replace_and_forget(&bench.client, async move { room.push("ask", json!({})).await });
        }),
        ("written push", |bench, room| {
            let mut push = Box::pin(room.push("ask", json!({})));
            assert!(poll_with(push.as_mut(), &owning(&bench.client)).is_pending());
            bench.settle();
            assert_eq!(bench.last_sent()[3], "ask");
            assert!(poll_with(push.as_mut(), Waker::noop()).is_pending());
            replace_and_forget(&bench.client, push);
        }),
        ("refused push", |bench, room| {
            bench.cut();
            let options = PushOptions::call().fail_fast();
            let push = pin!(room.push_with("ask", json!({}), options));
            let refused = poll_with(push, &owning(&bench.client));
            assert!(matches!(refused, Poll::Ready(Err(_))));
            bench.advance(Duration::from_secs(3));
        }),
        ("leave", |bench, room| {
            replace_and_forget(&bench.client, async move { room.leave().await });
        }),
        ("status", |bench, _| {
            bench.cut();
            let client = bench.client.clone();
            replace_and_forget(&bench.client, async move { client.wait_connected().await });
            bench.advance(Duration::from_secs(3));
        }),
        ("shutdown", |bench, room| {
            let mut push = Box::pin(room.push("ask", json!({})));
            assert!(poll(push.as_mut()).is_pending());
            let client = bench.client.clone();
            let shutdown = async move { client.shutdown(Duration::from_secs(5)).await };
            replace_and_forget(&bench.client, shutdown);
        }),
        ("signals", |bench, _| {
            let mut signals = bench.client.signals();
            replace_and_forget(&bench.client, async { signals.next().await });
            // A parked message is dropped with its stream.
            let waiting = poll_with(pin!(signals.next()), &owning(&bench.client));
            assert!(waiting.is_pending());
            drop(signals);
        }),
        ("messages", |bench, room| {
            let mut messages = room.messages();
            replace_and_forget(&bench.client, async { messages.next().await });
            let waiting = poll_with(pin!(messages.next()), &owning(&bench.client));
            assert!(waiting.is_pending());
            drop(messages);
        }),
        ("presence", |bench, room| {
            let mut presence = room.presence();
            let interrupted = poll_with(pin!(presence.next()), Waker::noop());
            drop(interrupted);
            bench.settle();
            while poll_with(pin!(presence.next()), Waker::noop()).is_ready() {}
            replace_and_forget(&bench.client, async { presence.next().await });
        }),
        ("bus", |bench, _| {
            let bus = Bus::new();
            let mut events = bus.subscribe("**").expect("a pattern");
            let waker = || {
                let mut owner = Owner::new(&bench.client);
                owner.bus = Some(bus.clone());
                Waker::from(Arc::new(owner))
            };
            assert!(poll_with(pin!(events.next()), &waker()).is_pending());
            assert!(poll_with(pin!(events.next()), &waker()).is_pending());
            drop(events);
        }),
        ("driver", |bench, _| {
            for _ in 0..3 {
                let waker = owning(&bench.client);
                assert!(poll_with(bench.driver.as_mut(), &waker).is_pending());
            }
            assert!(poll_with(bench.driver.as_mut(), Waker::noop()).is_pending());
        }),
    ];
    must_end(cases.iter().map(|(name, case)| {
        let scenario = move || {
            let (mut bench, room) = bench();
            case(&mut bench, room);
            bench.settle();
            assert_eq!(bench.client.status(), Status::Open);
        };
        ((*name).to_owned(), scenario)
    }));
}

/// `Bytes::from_owner` runs the destructor of the owner wherever the last slice is dropped.
#[test]
fn payload_owners_are_not_dropped_under_a_lock() {
    let cases: &[Case] = &[
        ("written", |bench, room| {
            let (payload, dropped) = Owner::payload(&bench.client);
            let mut cast = Box::pin(room.cast("bytes", payload));
            assert!(poll(cast.as_mut()).is_pending());
            bench.settle();
            ready(cast.as_mut()).expect("written");
            drop(cast);
            assert_eq!(*dropped.lock().expect("no panic"), 1);
        }),
        ("timed out", |bench, room| {
            bench.memory.world().blocked = true;
            let (payload, dropped) = Owner::payload(&bench.client);
            let mut push = Box::pin(room.push("bytes", payload));
            assert!(poll(push.as_mut()).is_pending());
            bench.advance(Duration::from_secs(10));
            assert!(ready(push.as_mut()).is_err());
            drop(push);
            assert_eq!(*dropped.lock().expect("no panic"), 1);
            bench.memory.world().blocked = false;
        }),
        ("cancelled", |bench, room| {
            bench.memory.world().blocked = true;
            let (payload, dropped) = Owner::payload(&bench.client);
            let mut push = Box::pin(room.push("bytes", payload));
            assert!(poll(push.as_mut()).is_pending());
            drop(push);
            assert_eq!(*dropped.lock().expect("no panic"), 1);
            bench.memory.world().blocked = false;
        }),
        ("refused", |bench, room| {
            let (payload, dropped) = Owner::payload(&bench.client);
            let options = PushOptions::call().fail_fast();
            bench.cut();
            let mut push = Box::pin(room.push_with("bytes", payload, options));
            assert!(matches!(poll(push.as_mut()), Poll::Ready(Err(_))));
            drop(push);
            assert_eq!(*dropped.lock().expect("no panic"), 1);
            bench.advance(Duration::from_secs(3));
        }),
        ("join parameters", |bench, _| {
            let (payload, dropped) = Owner::payload(&bench.client);
            let client = bench.client.clone();
            let mut join = Box::pin(client.join("room:b", payload));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            drop(join);
            bench.settle();
            bench.reply("ok", json!({}));
            assert_eq!(*dropped.lock().expect("no panic"), 1);
        }),
        ("mailbox", |bench, room| {
            let mut messages = room.messages();
            assert!(poll(pin!(messages.next())).is_pending());
            for policy in 0..2_u64 {
                overflow(bench, policy);
            }
            drop(messages);
        }),
        ("signals", |bench, _| {
            let signals = bench.client.signals();
            overflow(bench, 0);
            drop(signals);
        }),
        ("replies that are copied", |bench, room| {
            let mut calls: Vec<_> = (0..4).map(|_| Box::pin(room.push("msg", json!({})))).collect();
            for call in &mut calls {
                assert!(poll(call.as_mut()).is_pending());
            }
            bench.settle();
            let sent = bench.memory.world().to_server.split_off(1);
            for call in &sent {
                let body = json!({"status": "ok", "response": {"n": 1}});
                let reply = json!([call[0], call[1], call[2], "phx_reply", body]);
                let frame = Owner::frame(&bench.client, &reply);
                bench.memory.world().to_client.push_back(frame);
            }
            bench.settle();
            for call in &mut calls {
                assert!(ready(call.as_mut()).is_ok());
            }
        }),
        ("crash", |bench, _| {
            let client = bench.client.clone();
            let mut join = Box::pin(client.join("room:b", json!({})));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            for _ in 0..3 {
                let sent = bench.last_sent();
                assert_eq!(sent[3], "phx_join");
                let crash = json!([sent[0], sent[0], "room:b", "phx_error", {"n": 1}]);
                let frame = Owner::frame(&bench.client, &crash);
                bench.memory.world().to_client.push_back(frame);
                bench.settle();
                bench.advance(Duration::from_secs(3));
            }
        }),
    ];
    must_end(cases.iter().map(|(name, case)| {
        let scenario = move || {
            let mut bench = Bench::new(|config| config.mailbox(8, 10_000).expect("not zero"));
            let room = bench.joined("room:lobby");
            case(&mut bench, room);
            bench.settle();
            assert_eq!(bench.client.status(), Status::Open);
        };
        ((*name).to_owned(), scenario)
    }));
}

/// Sends more messages than the mailbox holds, in memory that the transport owns, in several batches.
fn overflow(bench: &mut Bench, salt: u64) {
    for n in 0..40 {
        let message = json!([null, null, "room:lobby", "msg", {"n": n, "salt": salt}]);
        let frame = Owner::frame(&bench.client, &message);
        bench.memory.world().to_client.push_back(frame);
        bench.settle();
    }
}

/// The test runs with every policy of a mailbox, and with a mailbox whose reader starts over.
#[test]
fn mailbox_drops_messages_after_the_lock() {
    let policies = [
        MailboxPolicy::DropOldest,
        MailboxPolicy::DropNewest,
        MailboxPolicy::Rejoin,
        MailboxPolicy::Close,
    ];
    let cases = policies.into_iter().flat_map(|policy| [(policy, true), (policy, false)]);
    must_end(cases.map(|(policy, read)| {
        let scenario = move || {
            let mut bench = Bench::new(|config| config.mailbox(4, 10_000).expect("not zero"));
            let client = bench.client.clone();
            let options = JoinOptions::new().mailbox(policy);
            let mut join = Box::pin(client.join_with("room:lobby", json!({}), options));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            bench.reply("ok", json!({}));
            let room = ready(join.as_mut()).expect("joined");
            let messages = read.then(|| room.messages());
            overflow(&mut bench, 0);
            let messages = messages.unwrap_or_else(|| room.messages());
            assert!(bench.client.stats().mailbox_drops > 0);
            drop(messages);
        };
        (format!("{policy:?}, read: {read}"), scenario)
    }));
}

/// A call that a function of join parameters makes to its client when it is first called.
type Function = fn(&Client);

/// A function that makes that call once, and counts how often it is called.
fn calling_back(client: &Client, function: Function) -> (JoinParams, Arc<Mutex<usize>>) {
    let (client, calls) = (client.clone(), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&calls);
    let params = JoinParams::from_fn(move |_| {
        let nth = {
            let mut calls = counted.lock().expect("no panic");
            *calls += 1;
            *calls
        };
        if nth == 1 {
            function(&client);
        }
        Payload::from(json!({ "nth": nth }))
    });
    (params, calls)
}

fn joins_of(bench: &Bench, topic: &str) -> Vec<Value> {
    let world = bench.memory.world();
    let joins = world.to_server.iter().filter(|sent| sent[2] == topic && sent[3] == "phx_join");
    joins.map(|sent| sent[4].clone()).collect()
}

#[test]
fn join_functions_may_call_their_client() {
    // Each case: whether the parameters are still wanted afterwards, and the status of the topic.
    let cases: &[(&str, Function, &[u64], ChannelStatus)] = &[
        ("looks", |client| drop((client.status(), client.stats())), &[1], ChannelStatus::Joining),
        (
            "joins another topic",
            |client| assert!(poll(pin!(client.join("room:c", json!({})))).is_pending()),
            &[1],
            ChannelStatus::Joining,
        ),
        ("probes", |client| client.probe().expect("open"), &[2], ChannelStatus::Joining),
        (
            "replaces its parameters",
            |client| {
                let room = client.channel("room:b").expect("wanted");
                room.set_join_params(json!({"nth": 7})).expect("wanted");
            },
            &[7],
            ChannelStatus::Joining,
        ),
        (
            "leaves its topic",
            |client| drop(poll(pin!(client.leave_topic("room:b")))),
            &[],
            ChannelStatus::Closed,
        ),
        (
            "disconnects",
            |client| assert!(poll(pin!(client.disconnect())).is_pending()),
            &[],
            ChannelStatus::Closed,
        ),
        ("panics", |_| panic!("the application's own bug"), &[], ChannelStatus::Closed),
    ];
    must_end(cases.iter().map(|(name, function, written, status)| {
        let scenario = move || {
            let (mut bench, room) = bench();
            let (params, _) = calling_back(&bench.client, *function);
            let client = bench.client.clone();
            let mut join = Box::pin(client.join("room:b", params));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            let written: Vec<Value> = written.iter().map(|nth| json!({ "nth": nth })).collect();
            assert_eq!(joins_of(&bench, "room:b"), written);
            let wanted = *status == ChannelStatus::Joining;
            assert_eq!(client.channel("room:b").is_ok(), wanted);
            assert_eq!(poll(join.as_mut()).is_pending(), wanted);
            drop(room);
        };
        ((*name).to_owned(), scenario)
    }));
}

/// A consumer locks a mutex that the function locks too, and reads the status while it holds the
/// mutex.
#[test]
#[allow(clippy::disallowed_methods, reason = "a deadlock takes two threads")]
fn join_functions_may_take_consumer_locks() {
    let scenario = || {
        let (mut bench, room) = bench();
        let shared = Arc::new(Mutex::new(0));
        let (called, is_called) = mpsc::channel();
        let held = Arc::clone(&shared);
        let params = JoinParams::from_fn(move |_| {
            let _ = called.send(());
            Payload::from(json!({"seen": *held.lock().expect("no panic")}))
        });
        let guard = shared.lock().expect("no panic");
        let client = bench.client.clone();
        let mut join = Box::pin(client.join("room:b", params));
        assert!(poll(join.as_mut()).is_pending());
        let driver = std::thread::spawn(move || {
            bench.settle();
            bench
        });
        is_called.recv().expect("the function is called");
        assert_eq!(room.status(), ChannelStatus::Joined);
        drop(guard);
        let bench = driver.join().expect("no panic");
        assert_eq!(joins_of(&bench, "room:b"), [json!({"seen": 0})]);
    };
    must_end([("a mutex".to_owned(), scenario)]);
}

/// A function of join parameters that replaces itself at every call.
fn fickle(client: &Client, calls: &Arc<Mutex<usize>>) -> JoinParams {
    let (client, calls) = (client.clone(), Arc::clone(calls));
    JoinParams::from_fn(move |_| {
        *calls.lock().expect("no panic") += 1;
        let room = client.channel("room:b").expect("wanted");
        room.set_join_params(fickle(&client, &calls)).expect("wanted");
        Payload::empty()
    })
}

/// A function that changes its own channel on every call does not block the executor.
#[test]
fn driver_yields_after_two_stale_functions() {
    let scenario = || {
        let (mut bench, _room) = bench();
        let calls = Arc::new(Mutex::new(0));
        let client = bench.client.clone();
        let mut join = Box::pin(client.join("room:b", fickle(&client, &calls)));
        assert!(poll(join.as_mut()).is_pending());
        let woken = Arc::new(Woken::default());
        for polls in 1..4 {
            let waker = Waker::from(Arc::clone(&woken));
            assert!(poll_with(bench.driver.as_mut(), &waker).is_pending());
            assert_eq!(*calls.lock().expect("no panic"), 2 * polls);
            assert!(woken.0.swap(false, core::sync::atomic::Ordering::Relaxed));
        }
        client.channel("room:b").expect("wanted").set_join_params(json!({})).expect("wanted");
        bench.settle();
        assert_eq!(joins_of(&bench, "room:b"), [json!({})]);
    };
    must_end([("fickle".to_owned(), scenario)]);
}

/// Records that it was woken.
#[derive(Default)]
struct Woken(core::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, core::sync::atomic::Ordering::Relaxed);
    }
}

/// A value of the application that panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// A value of the application panics when it is dropped, in a command and on the driver's task. The
/// streams that the same event has ended are woken all the same.
#[test]
fn panicking_drop_loses_no_wakeup() {
    type End = fn(&mut Bench);
    let ends: [End; 2] = [
        |bench| drop(poll(pin!(bench.client.leave_topic("room:a")))),
        |bench| bench.server_sends(&json!([null, null, "room:a", "phx_close", {}])),
    ];
    for end in ends {
        let mut bench = Bench::new(|config| config);
        let (client, fragile) = (bench.client.clone(), Fragile);
        let params = JoinParams::from_fn(move |_| {
            let _ = &fragile;
            Payload::empty()
        });
        let streams = [(); 2].map(|()| client.want("room:a", params.clone()).expect("accepted"));
        drop(params);
        let mut streams = streams.map(|channel| channel.messages());
        bench.settle();
        bench.reply("ok", json!({}));
        let woken = [(); 2].map(|()| Arc::new(Woken::default()));
        for (stream, woken) in streams.iter_mut().zip(&woken) {
            let waker = Waker::from(Arc::clone(woken));
            assert!(poll_with(pin!(stream.next()), &waker).is_pending());
        }
        let ended = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| end(&mut bench)));
        assert!(ended.is_err(), "the value was dropped");
        drop(bench);
        let woken = woken.map(|woken| woken.0.load(core::sync::atomic::Ordering::Relaxed));
        assert_eq!(woken, [true, true]);
    }
}

/// A value panics when it is dropped, in the batch in which a consumer that catches up misses a message and
/// its channel ends. The consumer still sees the loss and the end.
#[test]
fn panicking_drop_loses_no_end() {
    let mut bench = Bench::new(|config| config.mailbox(1, 1 << 20).expect("one"));
    let fragile = Fragile;
    let params = JoinParams::from_fn(move |_| {
        let _ = &fragile;
        Payload::empty()
    });
    let other = bench.client.want("room:a", params).expect("accepted");
    bench.settle();
    bench.reply("ok", json!({}));
    let options = JoinOptions::new().catch_up(CatchUp::new(|_| None));
    let room = bench.client.want_with("room:b", json!({}), options).expect("accepted");
    let mut messages = room.messages();
    bench.settle();
    bench.reply("ok", json!({"messages": []}));
    assert_eq!(next(&mut messages), Some(ChannelEvent::CaughtUp));
    for (topic, event) in [
        ("room:b", "typing"),
        ("room:a", "phx_close"),
        ("room:b", "typing"),
        ("room:b", "phx_close"),
    ] {
        let frame = Frame::from(json!([null, null, topic, event, {}]).to_string());
        bench.memory.world().to_client.push_back(Received::Frame(frame));
    }
    let ended = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| bench.settle()));
    assert!(ended.is_err(), "the value was dropped");
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(1)));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Closed(_))));
    drop(other);
}
