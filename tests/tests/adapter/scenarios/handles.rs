//! Scenarios of a service's handles: wanted topics, status changes, typed calls, and streams of some
//! events.

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::{FusedStream as _, select_all};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::stage::{Stage, until};
use super::{HOUR, echoes, json_of, ok};
use crate::rt::phx::client::{CallFailed, JoinFailed, MailboxOptions, PushFailed};
use crate::rt::phx::event::{ChannelEnd, JoinError, PushErrorKind};
use crate::rt::phx::socket::Status;
use crate::rt::phx::{ChannelEvent, JoinOptions, JoinParams, Payload};

/// A topic that is wanted before the server starts is joined when the server has started, and again
/// after a restart.
pub(in super::super) async fn want_before_server_starts(stage: &mut Stage) {
    stage.server().kill().await;
    let (client, signals) = stage.start_watched(stage.config());
    let room = client.want(stage.topic("room", ""), json!({"user": 7})).unwrap();
    let (mut changes, mut seen) = (client.status_changes(), Vec::new());
    until("it retries", || client.stats().failed_attempts > 1).await;
    assert_eq!(room.join_response(), None);
    let (joined, ()) = futures_util::join!(room.joined(), async { stage.restart().await });
    joined.unwrap();
    echoes(&room, json!({"n": 1})).await;
    assert_eq!(client.retry_in(), None);
    // The stream of a slow reader starts with the current state.
    seen.extend(changes.next().await);
    assert_eq!(seen, [Status::Open]);

    stage.server().kill().await;
    assert!(!matches!(changes.next().await, None | Some(Status::Open)));
    let (joined, ()) = futures_util::join!(room.joined(), async { stage.restart().await });
    joined.unwrap();
    echoes(&room, json!({"n": 2})).await;
    drop(signals);
}

/// Conflicting and replaced join parameters, a rejected topic, and a disconnect.
pub(in super::super) async fn wanted_topics(stage: &mut Stage) {
    let client = stage.connect().await;
    let topic = stage.topic("room", "");
    let params = |by: &'static str| JoinParams::from_fn(move |_| Payload::from(json!({"by": by})));
    let room = client.want(topic.as_str(), params("one")).unwrap();
    room.joined().await.unwrap();
    assert_eq!(json_of(&room.join_response().unwrap())["params"], json!({"by": "one"}));

    let conflict = client.want(topic.as_str(), params("two")).unwrap_err();
    assert!(matches!(conflict, JoinError::ConflictingParams { .. }), "{conflict}");
    let options = JoinOptions::new().replace_params().no_deadline();
    let other = client.join_with(topic.as_str(), params("two"), options.clone()).await.unwrap();
    let mut messages = other.messages();
    room.rejoin().unwrap();
    assert!(matches!(messages.next().await, Some(ChannelEvent::Interrupted { .. })));
    room.joined().await.unwrap();
    assert_eq!(json_of(&room.join_response().unwrap())["params"], json!({"by": "two"}));
    drop((room, messages));
    other.leave().await;
    assert!(client.channel_with(topic.as_str(), options).is_err());

    let refused = client.want(stage.topic("deny", ""), json!({})).unwrap();
    let failed = refused.joined().await.unwrap_err();
    assert_eq!(failed.to_string(), "the server refused the join: unauthorized");
    assert!(failed.is_refused());

    let room = client.want(topic, json!({})).unwrap();
    room.joined().await.unwrap();
    client.disconnect().await;
    assert_eq!(room.joined().await, Err(JoinFailed::Ended(ChannelEnd::Disconnected)));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    item: String,
}

/// Typed calls, and pushes that wait for capacity in the queue.
pub(in super::super) async fn typed_calls(stage: &mut Stage) {
    let client = stage.connect_with(stage.config().queued_pushes_max(2)).await.unwrap();
    let room = client.want(stage.topic("room", ""), json!({})).unwrap();
    room.joined().await.unwrap();
    let order = Order { id: 7, item: "tea\u{2028}".to_owned() };
    assert_eq!(room.call::<Order>("echo", &order).await.as_ref(), Ok(&order));
    let failed = room.call::<Order>("fail", &order).await.unwrap_err();
    assert!(failed.is_refused() && failed.to_string().ends_with(": nope"), "{failed}");
    let failed = room.call::<u32>("echo", &order).await.unwrap_err();
    assert!(matches!(failed, CallFailed::Response { .. }), "{failed}");

    // The test makes ten times as many pushes as fit into the queue. Those that wait for capacity
    // are all sent.
    let casts = (0..20).map(|n| room.cast_when_ready("ack", json!({ "n": n })));
    let calls = (0..20).map(|n| room.push_when_ready("echo", json!({ "n": n })));
    let (casts, calls) = futures_util::join!(join_all(casts), join_all(calls));
    assert!(casts.iter().all(Result::is_ok), "{casts:?}");
    for (n, reply) in calls.into_iter().enumerate() {
        assert_eq!(json_of(&reply.unwrap().response), json!({ "n": n }));
    }
    // Pushes that do not wait are refused.
    let plain = join_all((0..20).map(|n| room.cast("ack", json!({ "n": n })))).await;
    let full = |result: &Result<(), PushFailed>| match result {
        Err(PushFailed::NotAccepted(error)) => {
            matches!(error.kind, PushErrorKind::QueueFull { .. })
        }
        _ => false,
    };
    assert!(plain.iter().any(full), "{plain:?}");

    let unanswered = async {
        let call = room.call::<Order>("kill_transport", &order).await;
        assert!(!call.unwrap_err().is_safe_to_repeat());
    };
    let waiting = room.push_when_ready("noreply", json!({}));
    let (waiting, ()) = futures_util::join!(waiting, unanswered);
    assert!(matches!(waiting, Err(PushFailed::Unknown(_))), "{waiting:?}");
    assert_eq!(room.call::<Order>("echo", &order).await.as_ref(), Ok(&order));
}

/// Streams of selected events, merged streams, and their ends.
pub(in super::super) async fn streams_of_events(stage: &mut Stage) {
    let client = stage.connect().await;
    let topics = [stage.topic("room", "-a"), stage.topic("room", "-b")];
    let rooms = topics
        .each_ref()
        .map(|topic| client.want(topic.as_str(), json!({"push_after": 3})).unwrap());
    for room in &rooms {
        room.joined().await.unwrap();
    }
    // The messages right after the ok are kept for the first stream of all events. Until then, other
    // streams of the channel also start with them.
    let mut welcome = rooms[0].on("joined_push");
    assert!(!welcome.starts_now());
    for i in 1..=3 {
        let Some(ChannelEvent::Message(message)) = welcome.next().await else { panic!("{i}") };
        assert_eq!(json_of(message.payload()), json!({ "i": i }));
    }
    let options = MailboxOptions::new().messages(100);
    let streams = rooms.iter().map(|room| room.on_any_with(["shout"], options).with_topic());
    let mut merged = select_all(streams);
    for (room, topic) in rooms.iter().zip(&topics) {
        ok(room, "shout", json!({"on": topic})).await;
        match merged.next().await {
            Some((of, ChannelEvent::Message(message))) => {
                assert_eq!(
                    (&*of, json_of(message.payload())),
                    (topic.as_str(), json!({"on": topic}))
                );
            }
            other => panic!("{other:?}"),
        }
    }
    rooms[0].push("kill_transport", json!({})).await.unwrap_err();
    let mut gaps = Vec::new();
    while gaps.len() < 4 {
        let (topic, event) = merged.next().await.expect("the stream is open");
        let event = match event {
            ChannelEvent::Interrupted { .. } => "interrupted",
            ChannelEvent::Resumed { .. } => "resumed",
            other => panic!("{topic}: {other:?}"),
        };
        gaps.push((topic.to_string(), event));
    }
    gaps.sort();
    let expected = topics
        .iter()
        .flat_map(|topic| ["interrupted", "resumed"].map(|event| (topic.clone(), event)));
    assert_eq!(gaps, expected.collect::<Vec<_>>());

    let all = rooms[1].messages();
    assert!(!all.starts_now() && rooms[1].messages().starts_now() && rooms[1].on("a").starts_now());
    client.disconnect().await;
    let ends =
        merged.filter(|(_, event)| core::future::ready(matches!(event, ChannelEvent::Closed(_))));
    assert_eq!(ends.count().await, 2);
    assert!(!all.is_terminated());
    // The stream may also have the messages that follow the second join.
    let lifecycle = all.filter(|event| {
        core::future::ready(matches!(
            event,
            ChannelEvent::Interrupted { .. }
                | ChannelEvent::Resumed { .. }
                | ChannelEvent::Closed(_)
        ))
    });
    assert_eq!(lifecycle.count().await, 3);
}

/// Tasks that only observe must not keep a connection open that the program no longer uses.
pub(in super::super) async fn observers_end_with_the_client(stage: &mut Stage) {
    let (client, mut signals) = stage.start_watched(stage.config());
    client.wait_connected().await.unwrap();
    let (mut changes, weak) = (client.status_changes(), client.downgrade());
    assert_eq!(changes.next().await, Some(Status::Open));
    let room = weak.upgrade().unwrap().want(stage.topic("room", ""), json!({})).unwrap();
    room.joined().await.unwrap();
    drop(client);
    assert_eq!(weak.upgrade().map(|client| client.status()), Some(Status::Open));
    drop(room);
    while signals.next().await.is_some() {}
    let mut last = None;
    while let Some(status) = changes.next().await {
        last = Some(status);
    }
    assert_eq!(last, Some(Status::Closed));
    assert!(changes.is_terminated() && signals.is_terminated() && weak.upgrade().is_none());
    until("its driver has ended", || stage.drivers() == 0).await;
    stage.clock().leap(HOUR);
}
