//! The connection: handles, the driver, watchers, and functions of the application.

use core::future::{Future as _, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::world::{World, calling, config, finish, run};
use super::{search, search_few, wait};
use crate::client::{
    Client, ClientEvent, Clock as _, Received, Runtime as _, Setup, Timer as _, Transport as _,
};
use crate::event::signal::Signal;
use crate::recording::{Recorder, Recording};
use crate::sync::Mutex;
use crate::testing::Script;
use crate::{JoinParams, Payload, Socket, Status, Time};

/// When the last handle is dropped, on any task and at any time, the connection is closed and the
/// driver ends.
#[test]
fn schedule_handles_dropped_while_driver_polls() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let tasks = [0, 1, 2].map(|number| {
            let client = client.clone();
            run(async move {
                let weak = client.downgrade();
                if number == 0 {
                    drop(client.want("room:a", json!({})).expect("a topic"));
                }
                drop(client);
                drop(weak.upgrade().map(|client| client.status()));
            })
        });
        drop(client);
        tasks.into_iter().for_each(finish);
        world.ended();
    });
}

/// When the driver is dropped, for example with its runtime, every waiting future ends.
#[test]
fn schedule_driver_dropped_ends_all_that_wait() {
    search(|| {
        let world = World::new();
        let (client, driver) = world.client_and_driver();
        let with = |client: &Client| client.clone();
        let one = with(&client);
        let joins = run(async move {
            let Ok(room) = one.join("room:a", json!({})).await else { return };
            let mut messages = room.messages();
            drop(room.push("ask", json!({})).await);
            while messages.next().await.is_some() {}
        });
        let one = with(&client);
        let signals = run(async move {
            let mut signals = one.signals();
            while signals.next().await.is_some() {}
        });
        let one = with(&client);
        let status = run(async move {
            let mut changes = one.status_changes();
            let mut last = None;
            while let Some(status) = changes.next().await {
                last = Some(status);
            }
            last
        });
        let one = with(&client);
        let waits = run(async move { drop(one.wait_connected().await) });
        let one = with(&client);
        let shuts_down = run(async move {
            let _ = one.shutdown(Duration::from_secs(1)).await;
        });
        driver.abort();
        drop(wait(driver));
        [joins, signals, waits, shuts_down].into_iter().for_each(finish);
        assert!(matches!(finish(status), Some(Status::Closed | Status::Idle)));
    });
}

/// A watcher sees the last state and the end of the driver.
#[test]
fn schedule_watchers_see_the_last_state() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let tasks = [0, 1].map(|_| {
            let mut changes = client.status_changes();
            run(async move {
                let mut seen = Vec::new();
                while let Some(status) = changes.next().await {
                    seen.push(status);
                }
                seen
            })
        });
        let mut given_up = client.status_changes();
        let given_up = run(async move { given_up.next().await });
        let one = client.clone();
        let closes = run(async move { one.disconnect().await });
        given_up.abort();
        finish(closes);
        client.connect();
        wait(client.wait_connected()).expect("it is answered at once");
        drop((client, given_up));
        for task in tasks {
            let seen = finish(task);
            assert_eq!(seen.last(), Some(&Status::Closed), "{seen:?}");
        }
        world.ended();
    });
}

/// A stream of signals yields every signal or a count of the lost ones, and then ends.
#[test]
fn schedule_signals_are_counted_or_seen() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config.mailbox(4, 100_000).expect("not zero"));
        let count = |mut signals: crate::client::Signals| async move {
            let (mut messages, mut lagged) = (0, 0);
            while let Some(event) = signals.next().await {
                match event {
                    ClientEvent::Signal(Signal::Message { .. }) => messages += 1,
                    ClientEvent::Lagged(count) => lagged += count,
                    _ => {}
                }
            }
            (messages, lagged)
        };
        let room = wait(client.join("room:a", json!({}))).expect("joined");
        let readers = [0, 1].map(|_| run(count(client.signals())));
        let given_up = run(count(client.signals()));
        for number in 0..6 {
            world.say("room:a", "msg", json!(number));
        }
        given_up.abort();
        drop(wait(room.push("ask", json!({}))));
        drop((room, client, given_up));
        for reader in readers {
            // States may be lost too.
            let (messages, lagged) = finish(reader);
            assert!(messages <= 6 && messages + lagged >= 6, "{messages} and {lagged}");
        }
        world.ended();
    });
}

/// A function of join parameters and a consumer lock the same mutex of the application.
#[test]
fn schedule_join_function_locks_what_a_consumer_holds() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let application = Arc::new(Mutex::new(0));
        let (shared, weak) = (Arc::clone(&application), client.downgrade());
        let called = Arc::new(Mutex::new(0));
        let calls = Arc::clone(&called);
        let params = JoinParams::from_fn(move |_| {
            let mut count = shared.lock();
            *count += 1;
            drop(weak.upgrade().map(|client| client.status()));
            // If the function panics, for example because of a deadlock, this line is not reached.
            *calls.lock() += 1;
            Payload::from(json!({"count": *count}))
        });
        let one = client.clone();
        let consumer = run(async move {
            let mut changes = one.status_changes();
            while changes.next().await != Some(Status::Open) {
                let guard = application.lock();
                drop((one.status(), one.stats()));
                drop(guard);
            }
            let guard = application.lock();
            drop((one.status(), one.stats()));
            drop(guard);
        });
        let room = wait(client.join("room:a", params)).expect("joined");
        finish(consumer);
        room.rejoin().expect("wanted");
        world.advance(Duration::from_secs(20));
        wait(room.joined()).expect("joined");
        drop((room, client));
        world.ended();
        let (called, sent) = (*called.lock(), world.sent("phx_join").len());
        assert!(called >= sent && sent >= 1, "{called} calls, {sent} joins");
    });
}

/// Parameters are replaced while the function before them is evaluated. In the end the server has the
/// new ones.
#[test]
fn schedule_params_replaced_during_evaluation() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let slow = JoinParams::from_fn(|_| {
            shuttle::thread::yield_now();
            Payload::from(json!("old"))
        });
        let room = client.want("room:a", slow).expect("a topic");
        let other = client.channel("room:a").expect("wanted");
        let replaces = run(async move { other.set_join_params(json!("new")) });
        wait(room.joined()).expect("joined");
        finish(replaces).expect("wanted");
        room.rejoin().expect("wanted");
        world.advance(Duration::from_secs(20));
        wait(room.joined()).expect("joined");
        let joins = world.sent("phx_join");
        assert_eq!(joins.last().expect("a join")[4], "new", "{joins:?}");
        drop((room, client));
        world.ended();
    });
}

/// A value of the application calls the client when it is dropped, on any task.
#[test]
fn schedule_payload_owners_call_the_client() {
    struct Owner(Client);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"owned"
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            drop(self.0.status());
        }
    }
    search(|| {
        let world = World::new();
        let client = world.client(|config| config.queued_pushes_max(2));
        let room = wait(client.join("room:a", json!({}))).expect("joined");
        let pushes = [0, 1, 2].map(|_| {
            let (room, client) = (room.clone(), client.clone());
            run(async move {
                let payload = Payload::binary_shared(Bytes::from_owner(Owner(client)));
                drop(room.cast("bytes", payload).await);
            })
        });
        pushes[0].abort();
        world.cut();
        for push in &pushes[1..] {
            push.abort();
        }
        pushes.into_iter().for_each(|push| drop(wait(push)));
        drop((room, client));
        world.ended();
    });
}

/// The lines of a recording are in the order of the core's events, whichever task writes them.
#[test]
fn schedule_recording_has_the_order_of_the_core() {
    search_few(|| {
        let world = World::new();
        let lines = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&lines);
        let recorder = Recorder::new(move |line| {
            let mut lines = written.lock();
            lines.push_str(line);
            lines.push('\n');
        });
        let client = world.client(|config| Setup::from(config).record(recorder));
        let tasks = ["room:a", "room:b"].map(|topic| {
            let client = client.clone();
            run(async move {
                let room = client.join(topic, json!({})).await.expect("joined");
                drop(room.push("ask", json!({})).await.expect("answered"));
            })
        });
        drop(client);
        tasks.into_iter().for_each(finish);
        world.ended();
        let text = lines.lock().clone();
        let recording = Recording::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for line in recording.replay() {
            line.unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    });
}

/// A shutdown runs at the same time as disconnects and connects. All of them complete, and the
/// driver ends.
#[test]
fn schedule_shutdown_beside_disconnect_and_connect() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let room = wait(client.join("room:a", json!({}))).expect("joined");
        let push = run(async move { drop(room.push("ask", json!({})).await) });
        let (one, two, three) = (client.clone(), client.clone(), client.clone());
        let orderly = run(async move { one.shutdown(Duration::from_secs(5)).await });
        let disorderly = run(async move { two.disconnect().await });
        let cancelled = run(async move {
            let _ = three.shutdown(Duration::ZERO).await;
        });
        cancelled.abort();
        drop(wait(cancelled));
        finish(disorderly);
        drop(finish(orderly));
        finish(push);
        drop(client);
        world.ended();
    });
}

/// The runtime of a script clones, wakes and drops wakers without holding its lock, because the
/// wakers of an executor may use the script.
#[test]
fn schedule_script_calls_no_waker_under_its_lock() {
    /// Polls with two wakers: the first is replaced, and the second stays.
    fn twice<T>(script: &Script, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) {
        for _ in 0..2 {
            let runtime = script.runtime();
            let waker = calling(move || _ = runtime.now());
            assert!(poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    search(|| {
        let script = Script::new();
        let other = script.clone();
        let looks = run(async move { drop(other.log()) });
        let runtime = script.runtime();
        let socket = Socket::new(config(), 1, Time::ZERO);
        let dial = || {
            let request = socket.connect_request().expect("a valid URI");
            let mut dial = runtime.connect(request, socket.config());
            twice(&script, |cx| Pin::new(&mut dial).poll(cx));
            dial
        };
        drop(dial());
        let dialled = dial();
        script.accept_connect();
        let Ok((mut transport, _)) = wait(dialled) else { panic!("it was accepted") };
        twice(&script, |cx| transport.poll_receive(cx));
        transport.close(1000, "");
        assert!(matches!(wait(poll_fn(|cx| transport.poll_receive(cx))), Received::Ended(_)));
        twice(&script, |cx| transport.poll_receive(cx));
        drop(transport);
        let mut timer = runtime.timer();
        for _ in 0..2 {
            timer.reset(Some(Time::from_millis(1_000)));
            twice(&script, |cx| timer.poll_expired(cx));
        }
        script.advance(Duration::from_millis(999));
        drop(timer);
        finish(looks);
    });
}
