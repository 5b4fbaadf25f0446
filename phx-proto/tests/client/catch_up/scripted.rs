//! The contract of catching up, step by step.

use core::future::Future as _;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;

use phx_proto::JoinParams;
use phx_proto::catch_up::Contract;
use phx_proto::client::{JoinOptions, MailboxOptions, MailboxPolicy};
use phx_proto::event::JoinError;

use super::*;

/// The replay is in the response of the join, and the position goes into the next join after a
/// reconnect.
#[test]
fn replay_in_response_fills_gap() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)));
    let messages = orders.messages();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", missed([6, 7]));
    live(&script, [7, 8]);
    let (messages, seen) = taken(&script, messages, 4);
    assert_eq!(seen, ["6", "7", "caught up", "8"]);
    assert_eq!(messages.cursor(), Some(Cursor::at(8)));

    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(8));
    script.reply(&join, "ok", missed([9, 10]));
    let (messages, seen) = taken(&script, messages, 5);
    assert_eq!(seen, ["interrupted", "resumed", "9", "10", "caught up"]);
    assert_eq!(orders.cursor(), Some(Cursor::at(10)));
    drop(idle(&script, messages));
}

/// The replay comes as events, and the live messages are held back until its end.
#[test]
fn replay_in_events_fills_gap() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)).contract(in_events()));
    let messages = orders.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [9]);
    script.push("orders", "missed", missed([6, 7]));
    live(&script, [10]);
    let (messages, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["6", "7"]);
    let messages = idle(&script, messages);
    script.push("orders", "missed", missed([8, 9]));
    script.push("orders", "caught_up", json!({}));
    live(&script, [11]);
    let (messages, seen) = taken(&script, messages, 5);
    assert_eq!(seen, ["8", "9", "caught up", "10", "11"]);
    assert_eq!(messages.cursor(), Some(Cursor::at(11)));
}

/// The position is that of the last message that the consumer took, not of the last that arrived.
#[test]
fn position_advances_when_message_is_taken() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::new()));
    let messages = orders.messages();
    let join = join_of(&script);
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", missed([]));
    live(&script, 1..=5);
    let (messages, seen) = taken(&script, messages, 3);
    assert_eq!(seen, ["caught up", "1", "2"]);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(2));
    script.reply(&join, "ok", missed(3..=6));
    let (_, seen) = taken(&script, messages, 7);
    assert_eq!(seen, ["3", "4", "5", "interrupted", "resumed", "6", "caught up"]);
}

/// A full mailbox keeps what it holds, and the channel is joined again when the consumer has taken
/// that. `Lagged` counts only what is not replayed. Reported in phoenixframework/phoenix#3083 as lost
/// messages of slow clients.
#[test]
fn overflow_is_replayed_whatever_the_policy() {
    let policies = [MailboxPolicy::DropOldest, MailboxPolicy::DropNewest, MailboxPolicy::Rejoin];
    for (policy, contract) in policies.into_iter().flat_map(|policy| {
        [Contract::in_response(), in_events()].map(|contract| (policy, contract))
    }) {
        let script = Script::new();
        let client = script.client(config().mailbox(2, 1 << 20).expect("two"));
        let in_response = contract == Contract::in_response();
        let options = options(catch_up(Cursor::at(0)).contract(contract)).mailbox(policy);
        let orders = client.want_with("orders", json!({"user": 7}), options).expect("accepted");
        let mut messages = orders.messages();
        let join = join_of(&script);
        script.reply(&join, "ok", missed([]));
        if !in_response {
            script.push("orders", "caught_up", json!({}));
            (messages, _) = taken(&script, messages, 1);
        }
        live(&script, 1..=4);
        script.push("orders", "typing", json!({}));
        // A consumer that does not read causes no join.
        script.refute_join("orders");
        let (messages, seen) = taken(&script, messages, 2 + usize::from(in_response));
        assert_eq!(seen.last().map(String::as_str), Some("2"), "{seen:?}");
        script.refute_join("orders");
        let reading = take(&script, messages, 6);
        let join = script.assert_join("orders");
        assert_eq!(since(&join), Some(2));
        if in_response {
            script.reply(&join, "ok", missed([3, 4]));
        } else {
            script.reply(&join, "ok", json!({}));
            script.push("orders", "missed", missed([3, 4]));
            script.push("orders", "caught_up", json!({}));
        }
        let (_, seen) = script.finish(reading);
        let expected = ["lagged 1", "interrupted", "resumed", "3", "4", "caught up"];
        assert_eq!(seen, expected, "{policy:?}");
    }
}

/// The connection is lost while the mailbox is full. The replay of the next join brings what the mailbox
/// dropped, so no further join follows.
#[test]
fn overflow_before_interruption_causes_one_join() {
    let script = Script::new();
    let client = script.client(config().mailbox(2, 1 << 20).expect("two"));
    let messages = want(&client, catch_up(Cursor::at(0))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, 1..=4);
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(0));
    script.reply(&join, "ok", missed(1..=5));
    let (messages, seen) = taken(&script, messages, 9);
    let expected = ["caught up", "1", "2", "interrupted", "resumed", "3", "4", "5", "caught up"];
    assert_eq!(seen, expected);
    drop(idle(&script, messages));
    script.refute_join("orders");
}

#[test]
fn close_policy_still_ends_stream() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let options = options(catch_up(Cursor::at(0))).mailbox(MailboxPolicy::Close);
    let orders = client.want_with("orders", json!({"user": 7}), options).expect("accepted");
    let messages = orders.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, 1..=3);
    let (_, seen) = taken(&script, messages, 4);
    assert_eq!(seen[..3], ["caught up", "1", "lagged 1"]);
    assert!(seen[3].starts_with("closed: the mailbox was full"), "{seen:?}");
}

/// A stream whose mailbox was full finds a hole before its end. A join could bring it nothing, so the other
/// handle is not interrupted.
#[test]
fn closed_stream_does_not_rejoin() {
    let script = Script::new();
    let client = script.client(config());
    let contract = Contract::in_response().contiguous();
    let mailbox = MailboxOptions::new().messages(2).policy(MailboxPolicy::Close);
    let options = options(catch_up(Cursor::at(5)).contract(contract)).mailbox(mailbox);
    let orders = client.want_with("orders", json!({"user": 7}), options).expect("accepted");
    let plain = client.want("orders", json!({"user": 7})).expect("the same parameters").messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    let (messages, seen) = taken(&script, orders.messages(), 1);
    assert_eq!(seen, ["caught up"]);
    live(&script, [6, 8, 9]);
    let (_, seen) = taken(&script, messages, 4);
    assert_eq!(seen[..2], ["6", "lagged 1"]);
    assert!(seen[2].starts_with("closed: the mailbox was full"), "{seen:?}");
    script.refute_join("orders");
    let (plain, seen) = taken(&script, plain, 3);
    assert_eq!(seen, ["6", "8", "9"]);
    drop(idle(&script, plain));
}

/// The mailbox of a handle without a stream fills too.
#[test]
fn overflow_before_first_stream_is_replayed() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::at(0)));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([1]));
    live(&script, 2..=9);
    let reading = take(&script, orders.messages(), 8);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(2));
    script.reply(&join, "ok", missed(3..=4));
    let (_, seen) = script.finish(reading);
    let expected = ["1", "caught up", "2", "interrupted", "resumed", "3", "4", "caught up"];
    assert_eq!(seen, expected);
}

#[test]
fn forgotten_messages_are_gap() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5))).messages();
    let join = join_of(&script);
    let mut replay = missed([9]);
    replay["oldest"] = 8.into();
    script.reply(&join, "ok", replay);
    let (messages, seen) = taken(&script, messages, 1);
    assert_eq!(seen, ["gap 5..=8"]);
    assert_eq!(messages.cursor(), Some(Cursor::at(8)), "the gap is reported once");
    let (_, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["9", "caught up"]);
}

/// The smallest position of all consumers goes into the join, and each consumer skips what it has seen.
#[test]
fn several_handles_share_replay() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5))).messages();
    let two = want(&client, catch_up(Cursor::at(3))).messages();
    // A handle that does not catch up shares the join too.
    let plain = client.want("orders", json!({"user": 7})).expect("the same parameters");
    let join = join_of(&script);
    assert_eq!(since(&join), Some(3));
    script.reply(&join, "ok", missed(4..=6));
    let (one, seen) = taken(&script, one, 2);
    assert_eq!(seen, ["6", "caught up"]);
    let (two, seen) = taken(&script, two, 1);
    assert_eq!(seen, ["4"]);

    // The position of a stream that was dropped goes into no join.
    drop(two);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(6));
    script.reply(&join, "ok", missed([]));
    drop(one);
    script.disconnect();
    assert_eq!(since(&join_of(&script)), None);
    drop(plain);
}

/// A consumer with a position needs a replay, so the channel is joined again for it. The other consumers
/// see an interruption, and no message twice.
#[test]
fn late_handle_with_cursor_causes_rejoin() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([6]));
    let (one, seen) = taken(&script, one, 2);
    assert_eq!(seen, ["6", "caught up"]);
    let two = want(&client, catch_up(Cursor::at(4))).messages();
    let three = want(&client, catch_up(Cursor::new())).messages();
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(4));
    script.reply(&join, "ok", missed([5, 6, 7]));
    let (_, seen) = taken(&script, one, 4);
    assert_eq!(seen, ["interrupted", "resumed", "7", "caught up"]);
    let (_, seen) = taken(&script, two, 6);
    assert_eq!(seen, ["interrupted", "resumed", "5", "6", "7", "caught up"]);
    drop(three);
}

/// A join that was on its way before the consumer existed does not have its position.
#[test]
fn handle_during_join_causes_rejoin() {
    let script = Script::new();
    let client = script.client(config());
    let plain = client.want("orders", json!({"user": 7})).expect("it is accepted");
    let join = join_of(&script);
    let messages = want(&client, catch_up(Cursor::at(5))).messages();
    script.reply(&join, "ok", json!({}));
    live(&script, [9]);
    let reading = take(&script, messages, 5);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", missed(6..=9));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["interrupted", "resumed", "6", "7", "8"]);
    drop(plain);
}

/// A consumer without a position begins with the live messages of a channel that is joined already.
#[test]
fn late_handle_without_cursor_begins_live() {
    let script = Script::new();
    let client = script.client(config());
    let plain = client.want("orders", json!({"user": 7})).expect("it is accepted");
    script.connect_and_assert_join("orders");
    settle(&script);
    let messages = want(&client, catch_up(Cursor::new()).contract(in_events())).messages();
    live(&script, [9]);
    let (messages, seen) = taken(&script, messages, 1);
    assert_eq!(seen, ["9"]);
    script.disconnect();
    assert_eq!(since(&join_of(&script)), Some(9));
    drop((messages, plain));
}

/// A consumer without a position begins during the replay for another one. It sees the live messages, and none
/// of the replay.
#[test]
fn late_handle_skips_replay_of_others() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5)).contract(in_events())).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6]));
    settle(&script);
    let late = want(&client, catch_up(Cursor::new()).contract(in_events())).messages();
    live(&script, [8]);
    script.push("orders", "missed", missed([7, 8]));
    script.push("orders", "caught_up", json!({}));
    live(&script, [9]);
    settle(&script);
    assert_eq!(drained(late).1, ["8", "9"]);
    assert_eq!(drained(one).1, ["6", "7", "8", "caught up", "9"]);
}

/// A consumer without a position begins during the replay for another one, and its mailbox is full. What it drops
/// of that replay is not its own, so the next join does not ask for it.
#[test]
fn full_late_handle_skips_replay_of_others() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5)).contract(in_events()));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    settle(&script);
    let full = options(catch_up(Cursor::new()).contract(in_events()))
        .mailbox(MailboxOptions::new().messages(1));
    let late = client.want_with("orders", json!({"user": 7}), full).expect("it is accepted");
    script.push("orders", "typing", json!({}));
    script.push("orders", "missed", missed([6, 7]));
    script.push("orders", "caught_up", json!({}));
    settle(&script);
    let (one, seen) = drained(one.messages());
    assert_eq!(seen, ["typing", "6", "7", "caught up"]);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(7));
    let (late, seen) = drained(late.messages());
    assert_eq!(seen, ["typing", "interrupted"]);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([8]));
    settle(&script);
    assert_eq!(drained(late).1, ["resumed", "8"]);
    drop(one);
}

/// A handle of an auto-join catches up too.
#[test]
fn handle_of_auto_join_catches_up() {
    let script = Script::new();
    let config = config().auto_join("orders", json!({"user": 7})).expect("a topic");
    let client = script.client(config);
    let channel = client.channel_with("orders", options(catch_up(Cursor::at(5))));
    let messages = channel.expect("it is wanted").messages();
    assert!(!messages.starts_now());
    let join = join_of(&script);
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", missed([6]));
    let (messages, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["6", "caught up"]);
    // The parameters of the configuration stay when the handle is gone.
    drop(messages);
    script.disconnect();
    assert_eq!(since(&join_of(&script)), None);
}

/// The join parameters of the application may use the default name for something else.
#[test]
fn position_param_can_be_renamed() {
    let script = Script::new();
    let client = script.client(config());
    let contract = Contract::in_response().param("last_seen");
    let params = json!({"user": 7, "since": "May"});
    let options = options(catch_up(Cursor::at(5)).contract(contract));
    let orders = client.want_with("orders", params, options).expect("it is accepted");
    assert_eq!(join_of(&script).json(), json!({"user": 7, "since": "May", "last_seen": 5}));
    drop(orders);
}

/// Parameters that change, are made by a function, or replace others keep the position.
#[test]
fn position_is_added_to_new_params() {
    let script = Script::new();
    let client = script.client(config());
    let function = JoinParams::from_fn(|attempt| payload(json!({"user": 7, "n": attempt.attempt})));
    let options = options(catch_up(Cursor::at(5))).replace_params();
    let orders = client.want_with("orders", function, options).expect("it is accepted");
    let join = join_of(&script);
    assert_eq!((since(&join), &join.json()["n"]), (Some(5), &json!(1)));
    script.reply(&join, "ok", missed([]));
    orders.set_join_params(json!({"user": 7, "b": 1.50})).expect("it is wanted");
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(join.json(), json!({"user": 7, "b": 1.50, "since": 5}));
    let replace = JoinOptions::new().replace_params();
    let other = client.want_with("orders", json!({"user": 7, "c": 2}), replace).expect("accepted");
    script.disconnect();
    assert_eq!(join_of(&script).json(), json!({"user": 7, "c": 2, "since": 5}));
    assert!(matches!(
        client.want("orders", json!({"user": 8})),
        Err(JoinError::ConflictingParams { .. })
    ));
    drop(other);
}

#[test]
fn params_must_be_object() {
    let script = Script::new();
    let client = script.client(config());
    let params = phx_proto::Payload::binary("no object");
    let error = client.want_with("orders", params, options(catch_up(Cursor::new()))).unwrap_err();
    assert!(matches!(error, JoinError::ParamsNotObject { .. }), "{error}");
    assert!(error.to_string().contains("must be a JSON object"), "{error}");
    // A topic that was not accepted is free.
    let orders = want(&client, catch_up(Cursor::at(5)));
    let set = orders.set_join_params(json!([1]));
    assert!(matches!(set, Err(JoinError::ParamsNotObject { .. })), "{set:?}");
    let replace = JoinOptions::new().replace_params();
    let error = client.want_with("orders", json!("text"), replace).unwrap_err();
    assert!(matches!(error, JoinError::ParamsNotObject { .. }), "{error}");
    assert_eq!(since(&join_of(&script)), Some(5));
    // Without a consumer that catches up, any parameters will do.
    let plain = client.want("orders", json!({"user": 7})).expect("the same parameters");
    drop(orders);
    plain.set_join_params(json!([1])).expect("it is wanted");
}

/// Parameters that are too large are refused, and the channel keeps the ones that it has.
#[test]
fn too_large_params_keep_held_ones() {
    let script = Script::new();
    let client = script.client(config().max_push_bytes(200));
    let orders = want(&client, catch_up(Cursor::at(5)));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    let large = || json!({"user": 7, "x": "x".repeat(300)});
    let set = orders.set_join_params(large());
    assert!(matches!(set, Err(JoinError::TooLarge { limit: 200 })), "{set:?}");
    let replace = JoinOptions::new().replace_params();
    let wanted = client.want_with("orders", large(), replace);
    assert!(matches!(wanted, Err(JoinError::TooLarge { limit: 200 })), "{wanted:?}");
    script.disconnect();
    assert_eq!(join_of(&script).json(), json!({"user": 7, "since": 5}));
    // When the consumer has ended, the parameters have no position.
    let plain = client.want("orders", json!({"user": 7})).expect("the same parameters");
    drop(orders);
    script.disconnect();
    assert_eq!(join_of(&script).json(), json!({"user": 7}));
    drop(plain);
}

/// The parameters of an auto-join are not checked again for a handle that catches up.
#[test]
fn array_of_auto_join_ends_channel() {
    let script = Script::new();
    let client = script.client(config().auto_join("orders", json!([1])).expect("a topic"));
    let orders = client.channel_with("orders", options(catch_up(Cursor::at(5)))).expect("wanted");
    script.accept_connect();
    let (_, seen) = taken(&script, orders.messages(), 2);
    assert!(seen[0].starts_with("closed: ") && seen.len() == 1, "{seen:?}");
    script.refute_join("orders");
}

/// Only the first stream of a handle catches up; its other streams show what the server sends.
#[test]
fn further_streams_show_messages_as_they_arrive() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)).contract(in_events()));
    let on = orders.on("order");
    let messages = orders.messages();
    let second = orders.messages();
    assert_eq!((second.cursor(), on.cursor()), (None, None));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [6]);
    script.push("orders", "missed", missed([6]));
    script.push("orders", "caught_up", json!({}));
    assert_eq!(taken(&script, messages, 2).1, ["6", "caught up"]);
    assert_eq!(taken(&script, second, 3).1, ["6", "missed", "caught_up"]);
    let on = taken(&script, on, 1).0;
    drop(idle(&script, on));
}

/// A copy of the first mailbox, for a stream of selected events, reports dropped messages as `Lagged`.
#[test]
fn selected_events_lag_in_copy_of_mailbox() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::at(5)));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, 6..=9);
    settle(&script);
    assert_eq!(taken(&script, orders.on("order"), 2).1, ["6", "lagged 3"]);
}

/// The handles of one topic end one after the other.
#[test]
fn leave_removes_position() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5)));
    let two = client.want("orders", json!({"user": 7})).expect("the same parameters");
    let leaving = script.spawn(one.leave());
    assert_eq!(script.finish(leaving), phx_proto::client::Left::Detached);
    assert_eq!(since(&join_of(&script)), None);
    drop(two);
    // The topic is free for other parameters.
    let next = client.want_with("orders", json!({"user": 7}), options(catch_up(Cursor::at(9))));
    script.assert_leave("orders");
    drop(next.expect("it is accepted"));
}

/// If the end of a replay never comes, the consumer sees a gap without an end, and then the live messages.
#[test]
fn replay_without_end_times_out() {
    let script = Script::new();
    let client = script.client(config());
    let contract = in_events().end_timeout(Duration::from_secs(20));
    let messages = want(&client, catch_up(Cursor::at(5)).contract(contract)).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [7]);
    script.advance(Duration::from_secs(19));
    script.push("orders", "missed", missed([6]));
    let (messages, seen) = taken(&script, messages, 1);
    assert_eq!(seen, ["6"]);
    script.advance(Duration::from_secs(19));
    let messages = idle(&script, messages);
    script.advance(Duration::from_secs(2));
    let (messages, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["gap 6..=?", "7"]);
    live(&script, [8]);
    assert_eq!(taken(&script, messages, 1).1, ["8"]);
}

/// A part of the replay is dropped from a full mailbox before the end of the replay is overdue. The join for
/// the dropped messages brings a new replay, so the consumer misses nothing.
#[test]
fn overflow_comes_before_timeout() {
    let script = Script::new();
    let client = script.client(config());
    let contract = in_events().end_timeout(Duration::from_secs(20));
    let mailbox = MailboxOptions::new().messages(4);
    let options = options(catch_up(Cursor::at(5)).contract(contract)).mailbox(mailbox);
    let orders = client.want_with("orders", json!({"user": 7}), options).expect("accepted");
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [100]);
    (6..=9).for_each(|pos| script.push("orders", "missed", missed([pos])));
    script.advance(Duration::from_secs(21));
    let reading = take(&script, orders.messages(), 8);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(8));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([9, 100]));
    script.push("orders", "caught_up", json!({}));
    let expected = ["6", "7", "8", "interrupted", "resumed", "9", "100", "caught up"];
    assert_eq!(script.finish(reading).1, expected);
}

/// A replay that has ended does not time out.
#[test]
fn finished_replay_does_not_time_out() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5)).contract(in_events())).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "caught_up", json!({}));
    script.advance(Duration::from_secs(100));
    assert_eq!(taken(&script, messages, 1).1, ["caught up"]);
}

/// The replay of a join that was lost does not time out, and the replay of the next join has the whole
/// timeout.
#[test]
fn replay_of_lost_join_does_not_time_out() {
    let script = Script::new();
    let client = script.client(config());
    let contract = in_events().end_timeout(Duration::from_secs(20));
    let messages = want(&client, catch_up(Cursor::at(5)).contract(contract)).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6]));
    live(&script, [8]);
    script.advance(Duration::from_secs(19));
    script.disconnect();
    let (messages, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["6", "interrupted"]);
    let (woken, mut messages) = (Arc::new(Count::default()), messages);
    let waker = Waker::from(Arc::clone(&woken));
    assert!(pin!(messages.next()).poll(&mut Context::from_waker(&waker)).is_pending());
    script.advance(Duration::from_secs(100));
    assert_eq!(woken.0.load(Ordering::Relaxed), 0, "the consumer has nothing to read");
    let join = join_of(&script);
    assert_eq!(since(&join), Some(6), "the held message was dropped with its join");
    script.reply(&join, "ok", json!({}));
    let (messages, seen) = taken(&script, messages, 1);
    assert_eq!(seen, ["resumed"]);
    script.advance(Duration::from_secs(19));
    script.push("orders", "missed", missed([7, 8]));
    script.push("orders", "caught_up", json!({}));
    let (messages, seen) = taken(&script, messages, 3);
    assert_eq!(seen, ["7", "8", "caught up"]);
    script.advance(Duration::from_secs(100));
    drop(idle(&script, messages));
}

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
