//! The channels of the test server as pure functions: one returns the verdict on a join, and
//! another returns the effects of an event.
//!
//! Nothing here changes state; `effects.rs` carries the effects out.

use core::time::Duration;

use serde_json::{Map, Value, json};

use super::codec::Payload;
use super::handshake::Admission;
use super::ring;

/// The maximum number of messages of one `push_me`, and of bytes of one `big` or `push_me_binary`.
/// A larger request crashes the channel; without the limit, it could crash the test process.
const MESSAGES_MAX: u64 = 100_000;
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The channel module that a topic belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Room,
    SlowJoin,
    Presence,
    Absinthe,
    Ring,
}

/// The outcome of a join callback.
#[derive(Debug)]
pub(super) enum JoinVerdict {
    /// No channel matches the topic.
    Unmatched,
    /// The join was refused, or its callback raised; the reply contains the reason.
    Refused(&'static str),
    /// The join is accepted after `sleep`; until then, the whole socket handles nothing.
    Accepted { kind: Kind, response: Value, sleep: Duration, after: Vec<Effect> },
}

/// An action of a channel.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Answers the push.
    Reply { status: &'static str, response: Payload },
    /// Answers the push later, without blocking the channel.
    ReplyLater { after: Duration, response: Payload },
    /// Blocks the channel: it sleeps, answers the push, and only then handles the next message.
    Block { sleep: Duration, response: Payload },
    /// Sends a message to the channel's own client.
    Push { event: String, payload: Payload },
    /// Sends a message to every client on the topic, or to every other one.
    Broadcast { event: &'static str, payload: Payload, to_self: bool },
    /// Ends the channel with `phx_close`.
    Stop,
    /// Ends the channel with `phx_error`.
    Crash,
    /// Ends the connection without a close frame.
    KillTransport,
    /// Closes every socket with this id.
    Disconnect { id: String },
    /// Tracks a key.
    Track { key: String, meta: Map<String, Value> },
    /// Replaces the meta of the channel's own key.
    UpdateOwn { meta: Map<String, Value> },
    /// Stops tracking the channel's own key.
    UntrackOwn,
    /// Sends `presence_state` to the channel's own client.
    PushState,
    /// Answers the push with the presence state.
    ReplyState,
    /// Adds a GraphQL subscription and answers the push with its id.
    Subscribe,
    /// Ends a GraphQL subscription and answers the push.
    Unsubscribe { subscription: String },
    /// Adds a message to the ring of the topic, broadcasts it, and answers the push with its position.
    Append { payload: Map<String, Value> },
    /// Replays the messages after this position as events.
    Replay { since: Option<u64> },
}

/// The topic of Absinthe's control channel.
pub(super) const ABSINTHE: &str = "__absinthe__:control";

pub(super) fn join(topic: &str, payload: &Payload) -> JoinVerdict {
    let pattern = topic.split_once(':').map(|(prefix, _)| prefix);
    match pattern {
        Some("room") => join_room(topic, payload),
        Some("presence") => join_presence(topic, payload),
        Some("ring") => join_ring(payload),
        Some("slowjoin") => match number(payload, "ms") {
            Some(ms) => JoinVerdict::Accepted {
                kind: Kind::SlowJoin,
                response: json!({ "topic": topic, "slept": ms }),
                sleep: Duration::from_millis(ms),
                after: Vec::new(),
            },
            None => JoinVerdict::Refused("join crashed"),
        },
        _ if topic == ABSINTHE => JoinVerdict::Accepted {
            kind: Kind::Absinthe,
            response: json!({}),
            sleep: Duration::ZERO,
            after: Vec::new(),
        },
        Some("deny") => JoinVerdict::Refused("unauthorized"),
        Some("boom") => JoinVerdict::Refused("join crashed"),
        _ => JoinVerdict::Unmatched,
    }
}

pub(super) fn handle_in(
    kind: Kind,
    event: &str,
    payload: &Payload,
    socket: &Admission,
) -> Vec<Effect> {
    let effects = match kind {
        Kind::Room => room_event(event, payload, socket),
        Kind::Presence => presence_event(event, payload),
        Kind::Absinthe => absinthe_event(event, payload),
        Kind::Ring => ring_event(event, payload),
        Kind::SlowJoin => (event == "echo").then(|| vec![reply("ok", payload.clone())]),
    };
    // The handler has no clause for this event, so it crashes the channel: wire/push_unknown_event.
    effects.unwrap_or_else(|| vec![Effect::Crash])
}

/// The key under which a presence channel tracks itself.
pub(super) fn own_key(payload: &Payload) -> String {
    text(payload, "key").unwrap_or_else(|| "anon".to_owned())
}

fn join_room(topic: &str, payload: &Payload) -> JoinVerdict {
    let params = match payload {
        Payload::Json(value) => value.clone(),
        Payload::Binary(data) => json!({ "binary_bytes": data.len() }),
    };
    let plain = member(payload, "override").and_then(Value::as_str) == Some("plain");
    let response = if plain { json!({}) } else { json!({ "topic": topic, "params": params }) };
    let count = number(payload, "push_after").unwrap_or(0).min(MESSAGES_MAX);
    let after = numbered("joined_push", count).collect();
    JoinVerdict::Accepted { kind: Kind::Room, response, sleep: Duration::ZERO, after }
}

fn join_presence(topic: &str, payload: &Payload) -> JoinVerdict {
    if !matches!(payload, Payload::Json(Value::Object(_))) {
        return JoinVerdict::Refused("join crashed");
    }
    let meta = object(payload, "meta").unwrap_or_default();
    JoinVerdict::Accepted {
        kind: Kind::Presence,
        response: json!({ "topic": topic }),
        sleep: Duration::ZERO,
        after: vec![Effect::Track { key: own_key(payload), meta }, Effect::PushState],
    }
}

/// The position of the client in the parameters of a join.
pub(super) fn since(payload: &Payload) -> Option<u64> {
    number(payload, ring::SINCE)
}

/// The response is the replay, unless the client asks for events.
fn join_ring(payload: &Payload) -> JoinVerdict {
    let in_events = text(payload, "replay").as_deref() == Some("events");
    let after = in_events.then(|| Effect::Replay { since: since(payload) });
    JoinVerdict::Accepted {
        kind: Kind::Ring,
        response: json!({}),
        sleep: Duration::ZERO,
        after: after.into_iter().collect(),
    }
}

fn ring_event(event: &str, payload: &Payload) -> Option<Vec<Effect>> {
    let Payload::Json(Value::Object(members)) = payload else { return None };
    (event == "append").then(|| vec![Effect::Append { payload: members.clone() }])
}

/// The effects of an event; `None` if the handler has no clause for it.
fn room_event(event: &str, payload: &Payload, socket: &Admission) -> Option<Vec<Effect>> {
    let empty = || Payload::Json(json!({}));
    let effects = match event {
        "echo" => vec![reply("ok", payload.clone())],
        "shout" => vec![shout(payload, true), reply("ok", empty())],
        "shout_from" => vec![shout(payload, false)],
        "ack" => vec![reply("ok", empty())],
        "nack" => vec![reply("error", empty())],
        "fail" => vec![match payload {
            Payload::Json(_) => reply("error", Payload::Json(json!({ "reason": "nope" }))),
            Payload::Binary(_) => reply("error", payload.clone()),
        }],
        "odd_status" => {
            vec![reply("maybe", Payload::Json(json!({ "note": "neither ok nor error" })))]
        }
        "noreply" => Vec::new(),
        "push_me" => {
            let count = number(payload, "n").filter(|n| *n <= MESSAGES_MAX)?;
            numbered(&text(payload, "event").unwrap_or_else(|| "pushed".into()), count).collect()
        }
        "push_me_binary" => push_me_binary(payload)?,
        "slow" => {
            let after = Duration::from_millis(number(payload, "ms")?);
            vec![Effect::ReplyLater { after, response: payload.clone() }]
        }
        "block" => {
            let ms = number(payload, "ms")?;
            let response = Payload::Json(json!({ "blocked": ms }));
            vec![Effect::Block { sleep: Duration::from_millis(ms), response }]
        }
        "reply_twice" => {
            let Payload::Json(value) = payload else { return None };
            let nth = |nr: u32| reply("ok", Payload::Json(json!({ "nr": nr, "p": value })));
            vec![nth(1), nth(2)]
        }
        "big" => {
            let size = usize::try_from(number(payload, "bytes").filter(|n| *n <= BYTES_MAX)?);
            let data = "x".repeat(size.ok()?);
            vec![push("big", Payload::Json(json!({ "data": data })))]
        }
        "whoami" => vec![reply("ok", Payload::Json(whoami(socket)))],
        "crash" | "stop_error" | "kill_me" => vec![Effect::Crash],
        "stop" | "stop_shutdown" | "leave_me" => vec![Effect::Stop],
        "stop_reply" => {
            vec![reply("ok", Payload::Json(json!({ "bye": true }))), Effect::Stop]
        }
        "kill_transport" => vec![Effect::KillTransport],
        "kick" => vec![Effect::Disconnect { id: format!("user:{}", text(payload, "user_id")?) }],
        _ => return None,
    };
    Some(effects)
}

fn presence_event(event: &str, payload: &Payload) -> Option<Vec<Effect>> {
    let ok = || reply("ok", Payload::Json(json!({})));
    // The reply comes before the diff that the event caused: wire/presence_update.
    let effects = match event {
        "update" => vec![ok(), Effect::UpdateOwn { meta: object(payload, "meta")? }],
        "untrack" => vec![ok(), Effect::UntrackOwn],
        "track_extra" => {
            let meta = object(payload, "meta").unwrap_or_default();
            vec![ok(), Effect::Track { key: text(payload, "key")?, meta }]
        }
        "list" => vec![Effect::ReplyState],
        "push_state" => vec![Effect::PushState, ok()],
        _ => return None,
    };
    Some(effects)
}

/// Documents are not parsed: a query that begins with `subscription` is one.
fn absinthe_event(event: &str, payload: &Payload) -> Option<Vec<Effect>> {
    let error = |text: &str| {
        vec![reply("error", Payload::Json(json!({ "errors": [{ "message": text }] })))]
    };
    let effects = match event {
        "doc" => match member(payload, "variables") {
            Some(variables) if !(variables.is_object() || variables.is_null()) => {
                let text = "Could not parse variables as map";
                vec![reply("error", Payload::Json(json!({ "error": text })))]
            }
            _ if text(payload, "query")?.trim_start().starts_with("subscription") => {
                vec![Effect::Subscribe]
            }
            _ => error("the test server has only subscriptions"),
        },
        "unsubscribe" => {
            vec![Effect::Unsubscribe { subscription: text(payload, "subscriptionId")? }]
        }
        _ => return None,
    };
    Some(effects)
}

fn push_me_binary(payload: &Payload) -> Option<Vec<Effect>> {
    let count = number(payload, "n")?;
    let size = number(payload, "size").unwrap_or(4);
    if count > MESSAGES_MAX || size > BYTES_MAX || count.saturating_mul(size) > BYTES_MAX {
        return None;
    }
    let event = text(payload, "event").unwrap_or_else(|| "pushed_bin".into());
    let size = usize::try_from(size).ok()?;
    let nth = |i: u64| push(&event, Payload::Binary(vec![i.to_le_bytes()[0]; size]));
    let mut effects: Vec<Effect> = (1..=count).map(nth).collect();
    effects.push(reply("ok", Payload::Json(json!({}))));
    Some(effects)
}

fn whoami(socket: &Admission) -> Value {
    json!({
        "params": socket.params,
        "x_headers": socket.x_headers,
        "auth_token": socket.auth_token,
        "has_peer_data": true,
        "transport": "websocket",
    })
}

fn reply(status: &'static str, response: Payload) -> Effect {
    Effect::Reply { status, response }
}

fn push(event: &str, payload: Payload) -> Effect {
    Effect::Push { event: event.to_owned(), payload }
}

fn numbered(event: &str, count: u64) -> impl Iterator<Item = Effect> {
    (1..=count).map(move |i| push(event, Payload::Json(json!({ "i": i }))))
}

/// A broadcast accepts a map or binary data; with any other payload, the sender raises.
fn shout(payload: &Payload, to_self: bool) -> Effect {
    match payload {
        Payload::Json(Value::Object(_)) | Payload::Binary(_) => {
            Effect::Broadcast { event: "shout", payload: payload.clone(), to_self }
        }
        Payload::Json(_) => Effect::Crash,
    }
}

fn member<'a>(payload: &'a Payload, name: &str) -> Option<&'a Value> {
    match payload {
        Payload::Json(value) => value.as_object()?.get(name),
        Payload::Binary(_) => None,
    }
}

fn number(payload: &Payload, name: &str) -> Option<u64> {
    member(payload, name)?.as_u64()
}

fn text(payload: &Payload, name: &str) -> Option<String> {
    member(payload, name)?.as_str().map(str::to_owned)
}

fn object(payload: &Payload, name: &str) -> Option<Map<String, Value>> {
    member(payload, name)?.as_object().cloned()
}
