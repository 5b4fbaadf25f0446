//! Channels: joins, pushes, mailboxes and their readers.

use core::future::Future as _;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use serde_json::json;

use super::world::{World, calling, config, finish, polled_once, run, with_two_wakers};
use super::{search, search_few, wait};
use crate::client::{
    Channel, ChannelEvent, Client, MailboxOptions, MailboxPolicy, Messages, PushFailed, StreamEnd,
    WeakClient, client,
};
use crate::{ChannelStatus, Status};

fn joined(client: &Client) -> Channel {
    wait(client.join("room:a", json!({}))).expect("joined")
}

/// Reads to the end of the stream. Returns the numbers of the messages, and how many were lost.
async fn read(mut messages: Messages) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    while let Some(event) = messages.next().await {
        match event {
            ChannelEvent::Message(message) => {
                let number = message.payload().to_value().expect("JSON");
                numbers.push(number.as_u64().expect("a number"));
            }
            ChannelEvent::Lagged(count) => lost += count,
            ChannelEvent::Closed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (numbers, lost)
}

/// One of two joins of a topic is cancelled when the answer arrives. The other one stays joined.
#[test]
fn schedule_join_cancelled_as_its_answer_arrives() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let join = |client: Client| async move { client.join("room:a", json!({})).await };
        let (cancelled, kept) = (run(join(client.clone())), run(join(client.clone())));
        cancelled.abort();
        let room = finish(kept).expect("joined");
        let messages = room.messages();
        drop(wait(cancelled));
        world.say("room:a", "msg", json!(1));
        let reader = run(read(messages));
        wait(room.push("ask", json!({}))).expect("answered");
        let _ = wait(room.leave());
        assert_eq!(finish(reader), (vec![1], 0));
        drop(client);
        world.ended();
    });
}

/// When the connection ends, every push gets an outcome, except a push whose future was dropped.
#[test]
fn schedule_push_cancelled_as_the_connection_ends() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let room = joined(&client);
        let push = |room: Channel| async move { room.push("ask", json!({})).await };
        let cancelled = run(push(room.clone()));
        let kept = [0, 1].map(|_| run(push(room.clone())));
        let weak = client.downgrade();
        let redials = run(async move {
            let mut changes = weak.upgrade().expect("a handle").status_changes();
            while let Some(status) = changes.next().await {
                if matches!(status, Status::Waiting { .. }) {
                    weak.upgrade().expect("a handle").connect_now().expect("it waits");
                    return;
                }
            }
        });
        world.cut();
        cancelled.abort();
        finish(redials);
        for push in kept {
            match finish(push) {
                Ok(reply) => assert!(reply.is_ok()),
                Err(PushFailed::Unknown(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        drop(wait(cancelled));
        drop((room, client));
        world.ended();
    });
}

/// Another task leaves a channel while several readers read it. They see the same messages and its
/// end.
#[test]
fn schedule_readers_see_the_end_when_another_leaves() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let room = joined(&client);
        let readers = [0, 1].map(|_| run(read(room.messages())));
        let given_up = run(read(room.messages()));
        let detached = client.channel("room:a").expect("wanted");
        let detaches = run(async move { detached.leave().await });
        for number in 0..3 {
            world.say("room:a", "msg", json!(number));
        }
        given_up.abort();
        let one = client.clone();
        let leaves = run(async move { one.leave_topic("room:a").await.expect("wanted") });
        let _ = finish(detaches);
        finish(leaves);
        let [one, two] = readers.map(finish);
        for (numbers, lost) in [&one, &two] {
            assert!((0..numbers.len() as u64).eq(numbers.iter().copied()), "{numbers:?}");
            assert_eq!(*lost, 0);
        }
        drop((wait(given_up), room, client));
        world.ended();
    });
}

/// A mailbox is filled and read at the same time. Every message is read or counted as lost, in order.
#[test]
fn schedule_full_mailbox_is_drained() {
    search_few(|| {
        for policy in [MailboxPolicy::DropOldest, MailboxPolicy::DropNewest] {
            let world = World::new();
            let client = world.client(|config| config);
            let room = joined(&client);
            // The reader may hold two of the sixteen messages at once.
            let options = MailboxOptions::new().messages(16).policy(policy);
            let reader = run(read(room.on_any_with(["msg"], options)));
            let other = run(read(room.on_any_with(["msg"], options.messages(1))));
            for number in 0..20 {
                world.say("room:a", "msg", json!(number));
            }
            // The answer arrives after the messages.
            wait(room.push("ask", json!({}))).expect("answered");
            let _ = wait(room.leave());
            for (numbers, lost) in [finish(reader), finish(other)] {
                assert_eq!(numbers.len() as u64 + lost, 20, "{numbers:?} and {lost}");
                assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
            }
            drop(client);
            world.ended();
        }
    });
}

/// A mailbox with the policy to rejoin when it is full: the reader starts over, and loses no message
/// after the rejoin.
#[test]
fn schedule_overflow_joins_again() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let room = joined(&client);
        let options = MailboxOptions::new().messages(2).policy(MailboxPolicy::Rejoin);
        let mut messages = room.on_any_with(["msg", "last"], options);
        let reader = run(async move {
            let mut interrupted = false;
            while let Some(event) = messages.next().await {
                match event {
                    ChannelEvent::Interrupted { .. } => interrupted = true,
                    ChannelEvent::Resumed { .. } => interrupted = false,
                    ChannelEvent::Message(message) => {
                        assert!(!interrupted);
                        if message.event() == "last" {
                            return;
                        }
                    }
                    ChannelEvent::Lagged(_) => {}
                    ChannelEvent::Closed(end) => panic!("{end:?}"),
                    event @ (ChannelEvent::CaughtUp | ChannelEvent::GapRemains { .. }) => {
                        panic!("no handle catches up: {event:?}")
                    }
                }
            }
        });
        for number in 0..4 {
            world.say("room:a", "msg", json!(number));
        }
        // The push is answered at once, or after the rejoin.
        let one = room.clone();
        let asks = run(async move { one.push("ask", json!({})).await });
        while !asks.is_finished() && room.status() == ChannelStatus::Joined {
            shuttle::thread::yield_now();
        }
        world.advance(Duration::from_secs(20));
        drop(finish(asks));
        // The mailbox drops messages until the reader has seen the loss and the channel is joined again.
        while !reader.is_finished() {
            world.say("room:a", "last", json!(0));
            world.advance(Duration::from_secs(1));
            shuttle::thread::yield_now();
        }
        finish(reader);
        drop((room, client));
        world.ended();
    });
}

/// The waker of an executor that reads the state of the client when a waker is woken or dropped.
fn asking(client: &WeakClient) -> Waker {
    let client = client.clone();
    calling(move || drop(client.upgrade().map(|client| client.status())))
}

/// Only the waker of the last poll is woken. The wakers of earlier polls call the client when they
/// are woken and dropped.
#[test]
fn schedule_waker_replaced_between_polls() {
    search_few(|| {
        let world = World::new();
        let (client, driver) = client(config(), world.clone());
        let weak = client.downgrade();
        let driver = run(with_two_wakers(asking(&weak), driver));
        client.connect();
        let (one, mut changes, mut signals) =
            (client.clone(), client.status_changes(), client.signals());
        let of = weak.clone();
        let watcher = run(async move {
            while with_two_wakers(asking(&of), changes.next()).await != Some(Status::Closed) {}
        });
        let of = weak.clone();
        let listener = run(async move {
            while with_two_wakers(asking(&of), signals.next()).await.is_some() {}
        });
        let waker = asking(&weak);
        let joins = run(async move { with_two_wakers(waker, one.join("room:a", json!({}))).await });
        let room = finish(joins).expect("joined");
        let mut messages = room.messages();
        let waker = asking(&weak);
        let reader = run(async move { with_two_wakers(waker, messages.next()).await });
        let of = weak.clone();
        let asks = run(async move {
            with_two_wakers(asking(&of), room.push("ask", json!({}))).await.expect("answered");
            with_two_wakers(asking(&of), room.leave()).await
        });
        world.say("room:a", "msg", json!(0));
        drop((finish(reader), finish(asks)));
        wait(with_two_wakers(asking(&weak), client.disconnect()));
        finish(watcher);
        drop(client);
        finish(listener);
        finish(driver);
    });
}

/// Futures that are polled once and dropped, with wakers that call the client when they are woken and
/// dropped.
#[test]
fn schedule_wakers_dropped_with_their_futures() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config.queued_pushes_max(1));
        let weak = client.downgrade();
        let room = client.want("room:a", json!({})).expect("a topic");
        let (one, of) = (client.clone(), weak.clone());
        let connection = run(async move {
            let (mut changes, mut signals) = (one.status_changes(), one.signals());
            drop(changes.next().await);
            polled_once(asking(&of), changes.next());
            drop(changes);
            polled_once(asking(&of), signals.next());
            drop(signals);
            polled_once(asking(&of), one.wait_connected());
            polled_once(asking(&of), one.join("room:b", json!({})));
        });
        let (one, of) = (room.clone(), weak.clone());
        let channel = run(async move {
            let mut messages = one.messages();
            polled_once(asking(&of), messages.next());
            drop(messages);
            polled_once(asking(&of), one.push("ask", json!({})));
            polled_once(asking(&of), one.push_when_ready("ask", json!({})));
            polled_once(asking(&of), one.push_when_ready("ask", json!({})));
        });
        world.say("room:a", "msg", json!(0));
        finish(connection);
        finish(channel);
        polled_once(asking(&weak), room.leave());
        drop(client);
        world.ended();
    });
}

/// Pushes wait for a queue with a capacity of one. One of them is dropped at any time, and the others
/// are sent.
#[test]
fn schedule_line_for_the_push_queue_moves_on() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config.queued_pushes_max(1));
        let room = client.want("room:a", json!({})).expect("a topic");
        let push = |room: Channel| async move { room.push_when_ready("ask", json!({})).await };
        let tasks = [0, 1, 2, 3].map(|_| run(push(room.clone())));
        tasks[1].abort();
        for (number, task) in tasks.into_iter().enumerate() {
            if number == 1 {
                drop(wait(task));
            } else {
                assert!(finish(task).expect("answered").is_ok());
            }
        }
        drop((room, client));
        world.ended();
    });
}

/// A push is queued, its future is dropped, and only then the client connects. The push is not sent, and
/// its place in the queue is free for a push that waits in line.
#[test]
fn schedule_dropped_push_leaves_the_queue() {
    search(|| {
        let world = World::new();
        let (client, driver) = client(config().queued_pushes_max(1), world.clone());
        let driver = run(driver);
        let room = client.want("room:a", json!({})).expect("a topic");
        let push =
            |room: Channel, event| async move { room.push_when_ready(event, json!({})).await };
        let dropped = run(push(room.clone(), "dropped"));
        let kept = run(push(room.clone(), "ask"));
        dropped.abort();
        assert!(wait(dropped).is_err(), "it cannot be answered");
        client.connect();
        assert!(finish(kept).expect("answered").is_ok());
        assert_eq!(world.sent("dropped"), [json!(0); 0]);
        drop((room, client));
        finish(driver);
        world.ended();
    });
}

/// Pushes wait for the queue when their channel is left. None of them waits forever.
#[test]
fn schedule_line_ends_with_its_channel() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config.queued_pushes_max(1));
        let room = client.want("room:a", json!({})).expect("a topic");
        let tasks = [0, 1, 2].map(|_| {
            let room = room.clone();
            run(async move { room.cast_when_ready("note", json!({})).await })
        });
        let leaves = run(async move { room.leave().await });
        for task in tasks {
            drop(finish(task));
        }
        let _ = finish(leaves);
        drop(client);
        world.ended();
    });
}

/// A topic is left and joined at the same time. The join is answered, and its stream does not belong
/// to the earlier channel.
#[test]
fn schedule_join_beside_leave() {
    search(|| {
        let world = World::new();
        let client = world.client(|config| config);
        let first = joined(&client);
        let old = run(read(first.messages()));
        let leaves = run(async move { first.leave().await });
        let one = client.clone();
        let joins = run(async move {
            let room = one.join("room:a", json!({})).await.expect("joined");
            let mut messages = room.messages();
            drop(room.push("ask", json!({})).await.expect("answered"));
            let end = pin!(messages.next()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let ended = matches!(
                end,
                Poll::Ready(Some(ChannelEvent::Closed(StreamEnd::Channel(_) | StreamEnd::Gone)))
            );
            assert!(!ended, "{end:?}");
        });
        let _ = finish(leaves);
        finish(joins);
        drop(finish(old));
        drop(client);
        world.ended();
    });
}
