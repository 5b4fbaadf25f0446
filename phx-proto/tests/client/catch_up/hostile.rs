//! Servers that break the contract, consumers that stop, and functions that panic.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phx_proto::client::{JoinFailed, MailboxOptions, MailboxPolicy};
use phx_proto::event::RejectionKind;

use super::*;

/// A replay with duplicates, out of order, and with more than the client asked for.
#[test]
fn disorder_in_replay_is_sorted() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([3, 9, 7, 7, 6, 8, 5]));
    live(&script, [7, 10]);
    let (messages, seen) = taken(&script, messages, 6);
    assert_eq!(seen, ["6", "7", "8", "9", "caught up", "10"]);
    drop(idle(&script, messages));
}

/// Live messages out of order are late, not lost.
#[test]
fn late_live_messages_are_delivered() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([6]));
    live(&script, [9, 8, 7]);
    let (messages, seen) = taken(&script, messages, 5);
    assert_eq!(seen, ["6", "caught up", "9", "8", "7"]);
    assert_eq!(messages.cursor(), Some(Cursor::at(9)), "the position never goes backwards");
}

/// The server restarts and counts from one again.
#[test]
fn restarted_numbers_are_a_gap() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(500))).messages();
    let join = join_of(&script);
    let mut replay = missed([]);
    replay["newest"] = 2.into();
    script.reply(&join, "ok", replay);
    let reading = take(&script, messages, 6);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", missed([1, 2]));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["gap 500..=?", "interrupted", "resumed", "1", "2", "caught up"]);
}

/// The consumer has seen that the server counts from one again, and its mailbox drops a message before the next
/// join. That join has no position, so the server also sends the messages before the dropped one.
#[test]
fn overflow_after_restarted_numbers_starts_over() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let messages = want(&client, catch_up(Cursor::at(500))).messages();
    let join = join_of(&script);
    let mut replay = missed([]);
    replay["newest"] = 2.into();
    script.reply(&join, "ok", replay);
    let (messages, seen) = taken(&script, messages, 1);
    assert_eq!(seen, ["gap 500..=?"]);
    live(&script, [3, 4]);
    settle(&script);
    let reading = take(&script, messages, 7);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), None);
    script.reply(&join, "ok", missed(1..=4));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["interrupted", "resumed", "1", "2", "3", "4", "caught up"]);
}

/// The server counts from one again, and the channel is joined twice before the consumer reads the first of
/// these joins. Both have the old position, so neither brings the messages of the restarted server.
#[test]
fn join_with_position_before_restart_does_not_count() {
    for contract in [Contract::in_response(), in_events()] {
        let script = Script::new();
        let client = script.client(config());
        let in_response = contract == Contract::in_response();
        let orders = want(&client, catch_up(Cursor::at(500)).contract(contract));
        let answer = |join: &Sent, mut replay: Value, newest: u64| {
            replay["newest"] = newest.into();
            if in_response {
                script.reply(join, "ok", replay);
            } else {
                script.reply(join, "ok", json!({}));
                script.push("orders", "missed", replay);
                script.push("orders", "caught_up", json!({"newest": newest}));
            }
        };
        answer(&join_of(&script), missed([]), 2);
        live(&script, [3]);
        settle(&script);
        script.disconnect();
        let join = join_of(&script);
        assert_eq!(since(&join), Some(500));
        answer(&join, missed([]), 3);
        settle(&script);
        let reading = take(&script, orders.messages(), 9);
        let join = script.assert_join("orders");
        assert_eq!(since(&join), None);
        answer(&join, missed(1..=3), 3);
        let (_, seen) = script.finish(reading);
        let rejoined = ["interrupted", "resumed"];
        let expected = [&["gap 500..=?"], &rejoined[..], &rejoined, &["1", "2", "3", "caught up"]];
        assert_eq!(seen, expected.concat());
    }
}

/// An answer without a replay, such as that of an old server.
#[test]
fn invalid_replay_is_a_gap() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({"missed": []}));
    live(&script, [9]);
    assert_eq!(taken(&script, messages, 2).1, ["gap 5..=?", "9"]);

    let messages = want(&script.client(config()), catch_up(Cursor::at(5)).contract(in_events()));
    let messages = messages.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", json!({"messages": [7]}));
    script.push("orders", "caught_up", json!({}));
    live(&script, [9]);
    assert_eq!(taken(&script, messages, 2).1, ["gap 5..=?", "9"]);
}

/// Joins until the consumer has everything up to `newest`. The server sends each replay in parts of
/// `part` messages, and a new live message after each part, before the consumer reads anything.
fn bursts(mailbox: usize, part: usize, mut newest: u64, most: u64) -> Vec<String> {
    let script = Script::new();
    let client = script.client(config().mailbox(mailbox, 1 << 20).expect("a bound"));
    let mut messages = want(&client, catch_up(Cursor::at(0)).contract(in_events())).messages();
    let mut all = Vec::new();
    let mut join = join_of(&script);
    loop {
        let from = since(&join).expect("it has a position") + 1;
        script.reply(&join, "ok", json!({}));
        for part in (from..=newest).collect::<Vec<_>>().chunks(part) {
            script.push("orders", "missed", missed(part.iter().copied()));
            if newest < most {
                newest += 1;
                live(&script, [newest]);
            }
        }
        script.push("orders", "caught_up", json!({"oldest": 0, "newest": newest}));
        let (rest, seen) = drained(messages);
        messages = rest;
        let caught_up = seen.iter().any(|word| word == "caught up");
        all.extend(seen);
        assert!(all.len() < 1_000, "it makes no progress: {all:?}");
        if !caught_up || since_of(&messages) < newest {
            join = script.assert_join("orders");
        } else if newest < most {
            script.disconnect();
            newest += 1;
            join = join_of(&script);
        } else {
            return all;
        }
    }
}

fn since_of(messages: &Messages) -> u64 {
    messages.cursor().and_then(Cursor::position).expect("a position")
}

fn numbers(seen: &[String]) -> Vec<u64> {
    seen.iter().filter_map(|word| word.parse().ok()).collect()
}

/// A mailbox of one, and a server that sends its replay at once: each join brings the consumer further.
#[test]
fn mailbox_of_one_makes_progress() {
    let seen = bursts(1, 1, 20, 20);
    assert_eq!(numbers(&seen), (1..=20).collect::<Vec<_>>());
    assert_eq!(seen.iter().filter(|word| *word == "resumed").count(), 20, "{seen:?}");
}

/// Replays in parts with live messages between them, for mailboxes of 2 to 64 messages.
#[test]
fn flood_during_replay_loses_nothing() {
    for (mailbox, part) in [(2, 1), (3, 7), (8, 3), (64, 5)] {
        let seen = bursts(mailbox, part, 30, 60);
        assert_eq!(numbers(&seen), (1..=60).collect::<Vec<_>>(), "{mailbox} {part}: {seen:?}");
    }
}

/// A panic of the application's function ends the stream, and nothing else.
#[test]
fn panic_of_position_ends_stream() {
    let script = Script::new();
    let client = script.client(config());
    let fragile = CatchUp::new(|message: &Message| {
        let position = position_of(message);
        assert_ne!(position, Some(8), "a panic of the application");
        position
    });
    let live_panic = want(&client, fragile.clone().cursor(Cursor::at(5)));
    let replay_panic = want(&client, fragile.cursor(Cursor::at(5)));
    let messages = live_panic.messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([6]));
    live(&script, [7, 8, 9]);
    let (_, seen) = taken(&script, messages, 10);
    assert_eq!(seen[..3], ["6", "caught up", "7"]);
    assert!(seen[3].starts_with("closed: the function"), "{seen:?}");
    assert_eq!(seen.len(), 4, "the stream has ended");

    script.disconnect();
    let messages = replay_panic.messages();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(5), "the position of the other stream is gone");
    script.reply(&join, "ok", missed(6..=9));
    let (_, seen) = taken(&script, messages, 20);
    assert!(seen.last().is_some_and(|end| end.starts_with("closed: the function")), "{seen:?}");
    // The channel and the connection go on.
    let push = script.spawn(async move { live_panic.push("echo", json!({})).await });
    let sent = script.assert_push("orders", "echo");
    script.reply(&sent, "ok", json!({}));
    assert!(script.finish(push).is_ok());
}

/// A stream has ended, by a panic or because its mailbox was full, and the program still holds it. The
/// joins no longer have its position, so the other stream is not sent again what it has seen.
#[test]
fn ended_stream_leaves_positions_of_others() {
    let fragile = CatchUp::new(|_: &Message| panic!("on purpose")).cursor(Cursor::at(5));
    let ends = [
        options(fragile),
        options(catch_up(Cursor::at(5)))
            .mailbox(MailboxOptions::new().messages(1).policy(MailboxPolicy::Close)),
    ];
    for ending in ends {
        let script = Script::new();
        let client = script.client(config());
        let ended = client.want_with("orders", json!({"user": 7}), ending).expect("accepted");
        let goes_on = want(&client, catch_up(Cursor::at(5)));
        let join = join_of(&script);
        script.reply(&join, "ok", missed([]));
        live(&script, [6, 7, 8]);
        let (_held, seen) = taken(&script, ended.messages(), 10);
        assert!(seen.last().is_some_and(|end| end.starts_with("closed: ")), "{seen:?}");
        let (_reads, seen) = taken(&script, goes_on.messages(), 4);
        assert_eq!(seen, ["caught up", "6", "7", "8"]);
        script.disconnect();
        assert_eq!(since(&join_of(&script)), Some(8));
    }
}

/// A mailbox was full, which ends its stream, and the program does not read the stream to its end. No replay
/// can continue this stream, so the joins do not have its position.
#[test]
fn unread_overflowed_stream_adds_no_position() {
    let script = Script::new();
    let client = script.client(config());
    let mailbox = MailboxOptions::new().messages(1).policy(MailboxPolicy::Close);
    let ending = options(catch_up(Cursor::at(5))).mailbox(mailbox);
    let ended = client.want_with("orders", json!({"user": 7}), ending).expect("accepted");
    let held = ended.messages();
    let goes_on = want(&client, catch_up(Cursor::at(5)));
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, [6, 7, 8]);
    let (reads, seen) = taken(&script, goes_on.messages(), 4);
    assert_eq!(seen, ["caught up", "6", "7", "8"]);
    script.disconnect();
    assert_eq!(since(&join_of(&script)), Some(8));
    // It still has what came before its end.
    let (_, seen) = taken(&script, held, 10);
    assert_eq!(seen[..3], ["caught up", "6", "lagged 1"]);
    assert!(seen[3].starts_with("closed: the mailbox was full"), "{seen:?}");
    drop((reads, ended));
}

/// The function panics for a message that the driver drops.
#[test]
fn panic_for_dropped_message_is_harmless() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let panics = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&panics);
    let fragile = CatchUp::new(move |message: &Message| {
        assert!(!flag.load(Ordering::Relaxed), "a panic of the application");
        position_of(message)
    });
    let messages = want(&client, fragile.cursor(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([]));
    live(&script, 6..=8);
    settle(&script);
    panics.store(false, Ordering::Relaxed);
    let reading = take(&script, messages, 8);
    let join = script.assert_join("orders");
    script.reply(&join, "ok", missed([7, 8]));
    let (_, seen) = script.finish(reading);
    let expected = ["caught up", "6", "lagged 2", "interrupted", "resumed", "7", "8", "caught up"];
    assert_eq!(seen, expected);
}

/// The function may use the client, because no lock is held while it runs.
#[test]
fn position_function_may_use_client() {
    let script = Script::new();
    let client = script.client(config().mailbox(1, 1 << 20).expect("one"));
    let weak = client.downgrade();
    let curious = CatchUp::new(move |message: &Message| {
        let client = weak.upgrade()?;
        let _ = (client.stats(), client.status(), client.connect_now());
        position_of(message)
    });
    let messages = want(&client, curious.cursor(Cursor::at(5))).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([6]));
    live(&script, 7..=9);
    settle(&script);
    assert_eq!(taken(&script, messages, 3).1, ["6", "caught up", "7"]);
}

/// The function and what it owns are dropped while no lock is held.
#[test]
fn position_function_is_dropped_outside_lock() {
    struct Owned(phx_proto::client::WeakClient, Arc<AtomicBool>);
    impl Drop for Owned {
        fn drop(&mut self) {
            let _ = self.0.upgrade().map(|client| client.stats());
            self.1.store(true, Ordering::Relaxed);
        }
    }
    type End = fn(&Script, Channel, Messages);
    let ends: [End; 4] = [
        |_, orders, messages| drop((orders, messages)),
        |_, orders, messages| drop((messages, orders)),
        |script, orders, messages| {
            drop(messages);
            let leaving = script.spawn(orders.leave());
            let leave = script.assert_leave("orders");
            script.reply(&leave, "ok", json!({}));
            script.finish(leaving);
        },
        |script, orders, messages| {
            script.close_channel("orders");
            settle(script);
            drop((orders, messages));
        },
    ];
    for end in ends {
        let script = Script::new();
        let client = script.client(config());
        let dropped = Arc::new(AtomicBool::new(false));
        let owned = Owned(client.downgrade(), Arc::clone(&dropped));
        let loud = CatchUp::new(move |message: &Message| {
            let _ = &owned;
            position_of(message)
        });
        let orders = want(&client, loud.cursor(Cursor::at(5)));
        let messages = orders.messages();
        let join = join_of(&script);
        script.reply(&join, "ok", missed([6]));
        end(&script, orders, messages);
        settle(&script);
        assert!(dropped.load(Ordering::Relaxed), "the function is gone");
    }
}

/// A replay of more messages than are read at once is read in several joins.
#[test]
fn huge_replay_takes_several_joins() {
    let script = Script::new();
    let client = script.client(config());
    let mut messages = want(&client, catch_up(Cursor::at(0))).messages();
    let mut join = join_of(&script);
    let (newest, mut all) = (40_000, Vec::new());
    for joins in 1..=3 {
        let from = since(&join).expect("it has a position") + 1;
        script.reply(&join, "ok", missed(from..=newest));
        let (rest, seen) = drained(messages);
        messages = rest;
        all.extend(numbers(&seen));
        if joins < 3 {
            join = script.assert_join("orders");
        } else {
            assert_eq!(seen.last().map(String::as_str), Some("caught up"));
        }
    }
    assert!(all == (1..=newest).collect::<Vec<_>>(), "{} messages", all.len());
}

/// The connection is lost during the replay, and the next join is refused for a while.
#[test]
fn refused_rejoin_during_replay_loses_nothing() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5)).contract(in_events())).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    live(&script, [9]);
    script.push("orders", "missed", missed([6]));
    settle(&script);
    script.disconnect();
    let join = join_of(&script);
    assert_eq!(since(&join), Some(5), "nothing was taken yet");
    script.reply(&join, "error", json!({"reason": "busy"}));
    let reading = take(&script, messages, 7);
    let join = script.assert_join("orders");
    assert_eq!(since(&join), Some(6));
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed(7..=9));
    script.push("orders", "caught_up", json!({}));
    let (_, seen) = script.finish(reading);
    assert_eq!(seen, ["6", "interrupted", "resumed", "7", "8", "9", "caught up"]);
}

#[test]
fn final_refusal_ends_stream_with_cursor() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)));
    let messages = orders.messages();
    let join = join_of(&script);
    script.reply(&join, "error", json!({"reason": "forbidden"}));
    let (messages, seen) = taken(&script, messages, 1);
    assert!(seen[0].starts_with("closed: "), "{seen:?}");
    assert_eq!(messages.cursor(), Some(Cursor::at(5)), "the position stays readable");
    let joined = script.spawn(async move { orders.joined().await });
    let Err(JoinFailed::Rejected(rejection)) = script.finish(joined) else { panic!("refused") };
    assert_eq!(rejection.kind, RejectionKind::Application);
}

/// A handle that is dropped during a replay leaves the topic, and takes its position with it.
#[test]
fn handle_dropped_during_replay_leaves() {
    let script = Script::new();
    let client = script.client(config());
    let orders = want(&client, catch_up(Cursor::at(5)).contract(in_events()));
    let join = join_of(&script);
    script.reply(&join, "ok", json!({}));
    script.push("orders", "missed", missed([6]));
    let (messages, _) = taken(&script, orders.messages(), 1);
    drop((orders, messages));
    let leave = script.assert_leave("orders");
    script.push("orders", "missed", missed([7]));
    script.reply(&leave, "ok", json!({}));
    script.advance(Duration::from_secs(60));
    let again = client.want("orders", json!({"user": 7})).expect("it is accepted");
    assert_eq!(since(&script.assert_join("orders")), None);
    drop(again);
}

/// Events that end a replay although none is under way, and parts of a replay after its end.
#[test]
fn stray_replay_events_are_harmless() {
    let script = Script::new();
    let client = script.client(config());
    let messages = want(&client, catch_up(Cursor::at(5)).contract(in_events())).messages();
    let join = join_of(&script);
    script.reply(&join, "ok", missed([100]));
    script.push("orders", "caught_up", json!({"oldest": "x", "newest": -3}));
    script.push("orders", "caught_up", json!({"oldest": 1_000}));
    script.push("orders", "missed", missed([6, 7]));
    script.push("orders", "missed", json!({}));
    live(&script, [8]);
    let (messages, seen) = taken(&script, messages, 4);
    assert_eq!(seen, ["caught up", "6", "7", "8"]);
    drop(idle(&script, messages));
}
