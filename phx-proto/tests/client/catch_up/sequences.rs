//! Unusual sequences: handles that come and go during a replay, and positions at the ends of their range.

use core::time::Duration;

use phx_proto::client::MailboxPolicy;

use super::*;

/// A handle with a smaller position is dropped between two parts of the replay.
#[test]
fn handle_dropped_during_replay_leaves_others_complete() {
    let script = Script::new();
    let client = script.client(config());
    let one = want(&client, catch_up(Cursor::at(5)).contract(in_events())).messages();
    let two = want(&client, catch_up(Cursor::at(3)).contract(in_events())).messages();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(3));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([4, 5, 6]));
    let (two, seen) = taken(&script, two, 2);
    assert_eq!(seen, ["4", "5"]);
    drop(two);
    live(&script, [8]);
    script.push("orders", "missed", missed([7]));
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6, 7, 8]));
    script.push("orders", "caught_up", json!({}));
    let (one, seen) = taken(&script, one, 6);
    assert_eq!(seen, ["6", "7", "interrupted", "resumed", "8", "caught up"]);
    drop(idle(&script, one));
}

/// The largest positions, and a cursor that is beyond everything that the server has.
#[test]
fn largest_positions_are_ordered() {
    const MAX: u64 = u64::MAX;
    for contract in [Contract::in_response(), Contract::in_response().contiguous()] {
        let script = Script::new();
        let client = script.client(config());
        let messages = want(&client, catch_up(Cursor::at(MAX - 3)).contract(contract)).messages();
        let join = join_of(&script);
        assert_eq!(since(&join), Some(MAX - 3));
        script.reply(&join, "ok", missed([MAX - 2]));
        live(&script, [MAX - 2, MAX - 1, MAX]);
        let (messages, seen) = taken(&script, messages, 4);
        let text = |back: u64| (MAX - back).to_string();
        assert_eq!(seen, [text(2), "caught up".to_owned(), text(1), text(0)]);
        script.disconnect();
        let join = join_of(&script);
        assert_eq!(since(&join), Some(MAX));
        script.reply(&join, "ok", json!({"messages": [], "oldest": MAX, "newest": MAX}));
        live(&script, [MAX]);
        let (messages, seen) = taken(&script, messages, 3);
        assert_eq!(seen, ["interrupted", "resumed", "caught up"]);
        drop(idle(&script, messages));
    }
}

/// Messages of the old instance and broadcasts between the two joins are dropped, because the replay of
/// the second join brings them.
#[test]
fn handle_made_during_leave_sees_each_message_once() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)));
    let messages = orders.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([6]));
    let (messages, seen) = taken(&script, messages, 2);
    assert_eq!(seen, ["6", "caught up"]);
    let cursor = messages.cursor().expect("it catches up");
    drop(messages);
    let leaving = script.spawn(orders.leave());
    let leave = script.assert_leave("orders");
    let again = want(&client, catch_up(cursor)).messages();
    live(&script, [7]);
    script.reply(&leave, "ok", json!({}));
    script.finish(leaving);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(6));
    live(&script, [8]);
    script.reply(&join, "ok", missed([7, 8]));
    live(&script, [8, 9]);
    let (again, seen) = taken(&script, again, 4);
    assert_eq!(seen, ["7", "8", "caught up", "9"]);
    drop(idle(&script, again));
}

/// The last message of the replay is also the first of the messages that were held back, and the mailbox
/// holds one message.
#[test]
fn held_copy_of_last_replayed_message_is_dropped() {
    for policy in [MailboxPolicy::DropOldest, MailboxPolicy::DropNewest, MailboxPolicy::Rejoin] {
        let script = Script::new();
        let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
        let options = options(catch_up(Cursor::at(5)).contract(in_events())).mailbox(policy);
        let orders = client.want_with("orders", json!({"user": 7}), options).expect("accepted");
        let mut messages = orders.messages();
        let join = join_of(&script);
        script.reply(&join, "ok", json!({}));
        let mut all = Vec::new();
        let frames: [&dyn Fn(); 5] = [
            &|| live(&script, [7]),
            &|| script.push("orders", "missed", missed([6, 7])),
            &|| script.push("orders", "caught_up", json!({"newest": 7})),
            &|| live(&script, [7]),
            &|| live(&script, [8]),
        ];
        for send in frames {
            send();
            settle(&script);
            let (rest, seen) = drained(messages);
            messages = rest;
            all.extend(seen);
        }
        assert_eq!(all, ["6", "7", "caught up", "8"], "{policy:?}");
        script.refute_join("orders");
    }
}

/// A consumer of contiguous positions, and a server whose replay is always invalid.
#[test]
fn contiguous_consumer_goes_on_after_invalid_replays() {
    let script = Script::new();
    let client = script.client(config());
    let contract = Contract::in_response().contiguous();
    let messages = want(&client, catch_up(Cursor::at(5)).contract(contract)).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({"messages": [1]}));
    live(&script, [9, 10]);
    assert_eq!(taken(&script, messages, 3).1, ["gap 5..=?", "9", "10"]);
    script.refute_join("orders");
}

/// A consumer of contiguous positions, and a server that keeps no message and names no position.
#[test]
fn contiguous_consumer_goes_on_without_replay() {
    let script = Script::new();
    let client = script.client(config());
    let contract = Contract::in_response().contiguous();
    let messages = want(&client, catch_up(Cursor::at(5)).contract(contract)).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, [9]);
    let reading = take(&script, messages, 6);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", missed([]));
    live(&script, [10]);
    let (_, seen) = script.finish(reading);
    let expected = ["caught up", "interrupted", "resumed", "gap 5..=9", "caught up", "10"];
    assert_eq!(seen, expected);
    script.refute_join("orders");
}

/// The consumer has no position yet and has not read what arrived, so the parameters of the rejoin have
/// none either, and its replay lacks what was sent during the interruption.
#[test]
fn backlog_before_first_position_leaves_no_hole() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::new()));
    let messages = orders.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, 1..=2);
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), None);
    // The server sent 3 meanwhile. Without a position it replays nothing.
    script.reply(&join, "ok", missed([]));
    let (messages, seen) = taken(&script, messages, 5);
    assert_eq!(seen, ["caught up", "1", "2", "interrupted", "resumed"]);
    let reading = take(&script, messages, 4);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(2));
    script.reply(&join, "ok", missed([3]));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["interrupted", "resumed", "3", "caught up"]);
}

/// The consumer reads nothing before the second join, whose parameters therefore have no position. It
/// continues from the newest message at its first join all the same.
#[test]
fn first_join_counts_although_it_was_not_read() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::new()));
    let newest = |newest: u64| json!({"messages": [], "newest": newest});
    for at in [7, 9, 11] {
        let join = join_of(&script);
        assert_eq!(since(&join), None);
        script.reply(&join, "ok", newest(at));
        settle(&script);
        if at < 11 {
            script.disconnect();
        }
    }
    let reading = take(&script, orders.messages(), 8);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(7));
    script.reply(&join, "ok", missed(8..=10));
    let (_, seen) = script.finish(reading);
    let rejoined = ["interrupted", "resumed"];
    assert_eq!(seen, [&["caught up"], &rejoined[..], &rejoined, &["8", "9", "10"]].concat());
}

/// A mailbox of one holds a message without a position, so messages with positions are dropped. The
/// consumer has no position, so the next join has the one before the dropped messages.
#[test]
fn overflow_before_first_position_is_replayed() {
    for (is_cut, is_late) in [(false, false), (true, false), (false, true), (true, true)] {
        let script = Script::new();
        let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
        let plain = client.want("orders", json!({"user": 7})).expect("it is accepted");
        let early = (!is_late).then(|| want(&client, catch_up(Cursor::new())));
        let join = join_of(&script);
        assert_eq!(since(&join), None);
        script.reply(&join, "ok", missed([]));
        settle(&script);
        let orders = early.unwrap_or_else(|| want(&client, catch_up(Cursor::new())));
        let messages = orders.messages();
        script.push("orders", "typing", json!({}));
        live(&script, 3..=4);
        settle(&script);
        if is_cut {
            script.disconnect();
            script.accept_connect();
        }
        let reading = take(&script, messages, if is_late { 6 } else { 7 });
        let join = script.assert_join("orders");
        assert_eq!(since(&join), Some(2), "cut: {is_cut}, late: {is_late}");
        script.reply(&join, "ok", missed(3..=5));
        let (_, seen) = script.finish(reading);
        let expected = ["caught up", "typing", "interrupted", "resumed", "3", "4", "5"];
        assert_eq!(seen, expected[usize::from(is_late)..]);
        drop(plain);
    }
}

/// Messages were dropped before the first position, and the server can no longer send them: it has forgotten
/// them, or started its numbers over. The consumer sees that as a gap.
#[test]
fn dropped_messages_that_are_gone_are_a_gap() {
    for restarted in [false, true] {
        let script = Script::new();
        let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
        let orders = want(&client, catch_up(Cursor::new()));
        let join = join_of(&script);
        script.reply(&join, "ok", missed([]));
        script.push("orders", "typing", json!({}));
        live(&script, 101..=102);
        settle(&script);
        let reading = take(&script, orders.messages(), if restarted { 10 } else { 8 });
        let join = script.assert_join("orders");
        assert_eq!(since(&join), Some(100));
        let rejoined = ["interrupted", "resumed"];
        let seen = if restarted {
            script.reply(&join, "ok", json!({"messages": [], "newest": 3}));
            let join = script.assert_join("orders");
            assert_eq!(since(&join), None);
            script.reply(&join, "ok", missed(1..=3));
            [&rejoined[..], &["gap 100..=?"], &rejoined, &["1", "2", "3"]].concat()
        } else {
            let mut replay = missed(111..=112);
            replay["oldest"] = 110.into();
            script.reply(&join, "ok", replay);
            [&rejoined[..], &["gap 100..=110", "111", "112", "caught up"]].concat()
        };
        assert_eq!(script.finish(reading).1, [&["caught up", "typing"], &seen[..]].concat());
    }
}

/// The second join has the position before a dropped message. The server has started its numbers over, and a
/// message of the new numbers is dropped too, before the consumer reads.
#[test]
fn restart_before_second_overflow_is_gap() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::new()));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    script.push("orders", "typing", json!({}));
    live(&script, [101]);
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(100));
    script.reply(&join, "ok", json!({"messages": [], "newest": 3}));
    live(&script, [4]);
    settle(&script);
    let reading = take(&script, orders.messages(), 11);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", missed(1..=4));
    let rejoined = ["interrupted", "resumed"];
    let gap = ["gap 100..=?"];
    let seen = [&["caught up", "typing"], &rejoined[..], &gap, &rejoined, &["1", "2", "3", "4"]];
    assert_eq!(script.finish(reading).1, seen.concat());
}

/// The third join asks for the messages after 2, because 3 was dropped. But the consumer then reaches only 1,
/// because the server sent 2 while the channel was not joined. So one more join asks for the messages after 1.
#[test]
fn overflow_after_hole_is_replayed_from_hole() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::new()));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, [1]);
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), None);
    // The server sent 2 meanwhile.
    script.reply(&join, "ok", missed([]));
    live(&script, [3]);
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(2));
    script.reply(&join, "ok", missed([3]));
    settle(&script);
    let reading = take(&script, orders.messages(), 9);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(1));
    script.reply(&join, "ok", missed(2..=3));
    let (_, seen) = script.finish(reading);
    let rejoined = ["interrupted", "resumed"];
    assert_eq!(
        seen,
        [&["caught up", "1"], &rejoined[..], &rejoined, &["2", "3", "caught up"]].concat()
    );
}

/// A part of the replay is dropped too. Its first message is the one from which the next join continues.
#[test]
fn dropped_part_before_first_position_is_replayed() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "typing", json!({}));
    script.push("orders", "missed", missed([6, 7]));
    script.push("orders", "caught_up", json!({}));
    live(&script, [8]);
    settle(&script);
    let reading = take(&script, orders.messages(), 3);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(5));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed(6..=8));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["typing", "interrupted", "resumed"]);
}

/// The end of the replay is dropped too. The next join continues from the newest position that it names.
#[test]
fn dropped_end_before_first_position_counts() {
    for is_cut in [false, true] {
        let script = Script::new();
        let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
        let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
        let join = join_of(&script);
        script.reply(&join, "ok", json!({}));
        script.push("orders", "typing", json!({}));
        script.push("orders", "caught_up", json!({"newest": 7}));
        settle(&script);
        if is_cut {
            script.disconnect();
            script.accept_connect();
        }
        let reading = take(&script, orders.messages(), 4);
        let join = script.assert_join("orders");
        assert_eq!(since(&join), Some(7), "cut: {is_cut}");
        script.reply(&join, "ok", json!({}));
        script.push("orders", "missed", missed([8]));
        let (_, seen) = script.finish(reading);
        assert_eq!(seen, ["typing", "interrupted", "resumed", "8"]);
    }
}

/// The end of the replay is dropped, and the message that the consumer held back until then is replayed.
#[test]
fn held_message_before_dropped_end_is_replayed() {
    for (is_cut, later) in [(false, None), (true, None), (false, Some(9)), (true, Some(9))] {
        let script = Script::new();
        let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
        let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
        let join = join_of(&script);
        script.reply(&join, "ok", json!({}));
        live(&script, [8]);
        script.push("orders", "caught_up", json!({}));
        live(&script, later);
        settle(&script);
        if is_cut {
            script.disconnect();
            let join = join_of(&script);
            assert_eq!(since(&join), later.map(|later| later - 1));
            script.reply(&join, "ok", json!({}));
            settle(&script);
        }
        let rejoins = if is_cut { 2 } else { 1 };
        let reading = take(&script, orders.messages(), 2 * rejoins + 1);
        let join = script.assert_join("orders");
        assert_eq!(since(&join), Some(7), "cut: {is_cut}, later: {later:?}");
        script.reply(&join, "ok", json!({}));
        script.push("orders", "missed", missed([8]));
        let (_, seen) = script.finish(reading);
        assert_eq!(seen.last().map(String::as_str), Some("8"), "{seen:?}");
    }
}

/// A message is held back during a replay, and the channel is interrupted twice before the consumer reads on.
/// The joins without a position do not serve the consumer, so it requests one that has the position before the
/// message.
#[test]
fn held_message_is_replayed_after_two_interruptions() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
    let mut messages = orders.messages();
    for replay in 0..4 {
        let join = join_of(&script);
        assert_eq!(since(&join), None, "{replay}");
        script.reply(&join, "ok", json!({}));
        match replay {
            0 => script.push("orders", "caught_up", json!({})),
            1 => live(&script, [7]),
            _ => {}
        }
        settle(&script);
        if replay < 2 {
            messages = drained(messages).0;
        }
        if replay < 3 {
            script.disconnect();
        }
    }
    let reading = take(&script, messages, 5);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(6));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([7]));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen.last().map(String::as_str), Some("7"), "{seen:?}");
}

/// The first replay has not ended when a message is dropped, so the next join has no position, and the server
/// chooses again what it replays.
#[test]
fn overflow_during_first_replay_starts_over() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "typing", json!({}));
    live(&script, [8]);
    settle(&script);
    let reading = take(&script, orders.messages(), 4);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6, 7, 8]));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["typing", "interrupted", "resumed", "6"]);
}

/// The end of the first replay does not come in time. Messages that are dropped after that are replayed.
#[test]
fn overflow_after_replay_timeout_is_replayed() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let contract = in_events().end_timeout(Duration::from_secs(20));
    let orders = want(&client, catch_up(Cursor::new()).contract(contract));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "typing", json!({}));
    script.advance(Duration::from_secs(21));
    live(&script, [8]);
    settle(&script);
    let reading = take(&script, orders.messages(), 3);
    assert_eq!(since(&script.assert_join("orders")), Some(7));
    drop(reading);
}

/// A consumer without a position has read nothing when its first replay is interrupted. It begins with the
/// whole second replay, also if it had a live message of the first connection.
#[test]
fn second_replay_begins_before_held_message() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::new()).contract(in_events()));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [8]);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6, 8]));
    script.push("orders", "caught_up", json!({}));
    let (messages, seen) = taken(&script, orders.messages(), 5);
    assert_eq!(seen, ["interrupted", "resumed", "6", "8", "caught up"]);
    drop(idle(&script, messages));
}
