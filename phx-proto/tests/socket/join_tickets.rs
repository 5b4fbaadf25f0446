//! Functions of join parameters: the caller evaluates them, and supplies the result if it is still
//! wanted.

use crate::hand::{Hand, config, secs};
use phx_proto::config::ParamsPanicked;
use phx_proto::event::{ChannelEnd, JoinTicket, LeaveOutcome, Supplied};
use phx_proto::socket::{PendingReason, Step};
use phx_proto::{Action, ChannelStatus, JoinParams, Payload, Signal, Socket};
use serde_json::{Value, json};

fn made(n: u64) -> JoinParams {
    JoinParams::from_fn(move |_| Payload::from(json!({ "n": n })))
}

/// Polls until there is a ticket for a function to be evaluated.
fn ticket(hand: &mut Hand) -> JoinTicket {
    loop {
        match hand.socket.poll_step(hand.now).expect("a join is due") {
            Step::Evaluate(ticket) => return ticket,
            Step::Action(_) => {}
        }
    }
}

fn actions(hand: &mut Hand) -> Vec<Action> {
    std::iter::from_fn(|| match hand.socket.poll_step(hand.now)? {
        Step::Action(action) => Some(action),
        Step::Evaluate(ticket) => panic!("{ticket:?}"),
    })
    .collect()
}

fn supply(hand: &mut Hand, ticket: &JoinTicket) -> Supplied {
    let params = ticket.evaluate();
    hand.socket.supply_join(hand.now, ticket, params)
}

fn sent(supplied: Supplied) -> Value {
    let Supplied::Join(join) = supplied else { panic!("{supplied:?}") };
    serde_json::from_slice(join.into_frame().expect("a frame").as_bytes()).expect("JSON")
}

/// A hand with an open connection, whose `room:a` waits for the result of its function.
fn waiting(config: phx_proto::Config) -> Hand {
    let mut hand = Hand::open(config);
    hand.socket.join(hand.now, "room:a", made(1)).unwrap();
    hand
}

#[test]
fn nothing_changes_before_params_are_supplied() {
    let mut hand = waiting(config().join_concurrency(1).expect("not zero"));
    let before = hand.socket.sizes();
    let (one, two) = (ticket(&mut hand), ticket(&mut hand));
    let pending = ChannelStatus::Pending(PendingReason::NotWritable);
    assert_eq!(hand.socket.channel_status("room:a"), pending);
    assert_eq!(hand.socket.sizes(), before);
    assert_eq!(one.attempt().attempt, 1);
    assert_eq!(sent(supply(&mut hand, &two)), json!(["1", "1", "room:a", "phx_join", {"n": 1}]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
    assert_eq!(supply(&mut hand, &one), Supplied::Stale, "it was the same join");
    assert_eq!(actions(&mut hand), []);
}

/// An event between the creation of the ticket and its result.
type Between = fn(&mut Hand);

#[test]
fn params_are_stale_after_any_change() {
    let cases: &[(&str, Between)] = &[
        ("disconnect", |hand| hand.socket.disconnect(hand.now)),
        ("leave", |hand| hand.socket.leave(hand.now, "room:a").unwrap()),
        ("left and joined again with another function", |hand| {
            hand.socket.leave(hand.now, "room:a").unwrap();
            hand.socket.join(hand.now, "room:a", made(1)).unwrap();
        }),
        ("new parameters", |hand| {
            hand.socket.set_join_params(hand.now, "room:a", made(1)).unwrap()
        }),
        ("fixed parameters", |hand| {
            hand.socket.set_join_params(hand.now, "room:a", json!({})).unwrap()
        }),
        ("another connection", |hand| {
            hand.lost_without_polling();
            let due = hand.socket.poll_timeout().expect("a retry");
            hand.now = hand.now.max(due.at) + secs(3);
            hand.socket.handle_timeout(hand.now);
            while let Some(Step::Action(action)) = hand.socket.poll_step(hand.now) {
                if let Action::Connect { id, .. } = action {
                    hand.dialled = Some(id);
                }
            }
            let id = hand.dialled.expect("a dial");
            hand.socket.handle_opened(hand.now, id, Default::default());
        }),
        ("not writable", |hand| {
            let id = hand.dialled.expect("a dial");
            hand.socket.handle_writable(hand.now, id, false);
        }),
    ];
    for (name, between) in cases {
        let mut hand = waiting(config());
        let old = ticket(&mut hand);
        let params = old.evaluate();
        between(&mut hand);
        while let Some(Step::Action(_)) = hand.socket.poll_step(hand.now) {}
        let before = format!("{:?}", hand.socket.sizes());
        let supplied = hand.socket.supply_join(hand.now, &old, params);
        assert_eq!(supplied, Supplied::Stale, "{name}");
        assert_eq!(format!("{:?}", hand.socket.sizes()), before, "{name}");
    }
}

#[test]
fn params_are_stale_after_repeated_join() {
    let (mut hand, same) = (Hand::open(config()), made(1));
    hand.socket.join(hand.now, "room:a", same.clone()).unwrap();
    let old = ticket(&mut hand);
    hand.socket.leave(hand.now, "room:a").unwrap();
    hand.socket.join(hand.now, "room:a", same).unwrap();
    let new = ticket(&mut hand);
    assert_eq!(supply(&mut hand, &old), Supplied::Stale);
    assert_eq!(sent(supply(&mut hand, &new))[2], "room:a");
}

#[test]
fn params_are_stale_while_actions_wait() {
    let mut hand = waiting(config());
    let old = ticket(&mut hand);
    hand.socket.join(hand.now, "room:b", json!({})).unwrap();
    hand.socket.leave(hand.now, "room:b").unwrap();
    assert_eq!(supply(&mut hand, &old), Supplied::Stale);
    assert_eq!(actions_until_ticket(&mut hand), 2, "closed and left");
    // A heartbeat is written before the join.
    hand.socket.probe(hand.now).unwrap();
    assert_eq!(supply(&mut hand, &old), Supplied::Stale);
    assert_eq!(actions_until_ticket(&mut hand), 1, "the heartbeat");
    assert_eq!(sent(supply(&mut hand, &old))[2], "room:a", "and then it is current again");
}

fn actions_until_ticket(hand: &mut Hand) -> usize {
    std::iter::from_fn(|| match hand.socket.poll_step(hand.now)? {
        Step::Action(action) => Some(action),
        Step::Evaluate(_) => None,
    })
    .count()
}

/// `poll_action` evaluates the function itself, and writes the same bytes as with a ticket.
#[test]
fn poll_action_writes_what_tickets_write() {
    let config = || config().join_concurrency(2).expect("not zero");
    let drive = |by_ticket: bool| {
        let mut hand = Hand::new(config());
        for (topic, params) in [
            ("room:a", made(1)),
            ("room:b", json!({"fixed": 1}).into()),
            ("room:c", JoinParams::from_fn(|_| panic!("the application's own bug"))),
            ("room:d", made(4)),
        ] {
            hand.socket.join(hand.now, topic, params).unwrap();
        }
        hand.connect();
        let (id, now) = (hand.dialled.expect("a dial"), hand.now);
        hand.socket.handle_opened(now, id, Default::default());
        let next = |socket: &mut Socket| loop {
            if !by_ticket {
                return socket.poll_action(now);
            }
            match socket.poll_step(now)? {
                Step::Action(action) => return Some(action),
                Step::Evaluate(ticket) => {
                    let params = ticket.evaluate();
                    if let Supplied::Join(join) = socket.supply_join(now, &ticket, params) {
                        return Some(join);
                    }
                }
            }
        };
        let mut all = Vec::new();
        while let Some(action) = next(&mut hand.socket) {
            all.push(format!("{action:?}"));
            if all.len() == 3 {
                hand.socket.leave(now, "room:a").unwrap();
            }
        }
        (all, format!("{:?}", hand.socket.sizes()))
    };
    let (in_place, by_ticket) = (drive(false), drive(true));
    assert_eq!(in_place, by_ticket);
    assert!(in_place.0.len() > 3, "{in_place:?}");
}

/// If the function of a rejoin panics, a leave is sent. Without it the server would keep the channel
/// and continue to send its messages.
#[test]
fn panic_on_rejoin_leaves_the_channel() {
    let mut hand = Hand::joined(config());
    let broken = JoinParams::from_fn(|_| panic!("the application's own bug"));
    hand.socket.set_join_params(hand.now, "room:a", broken).unwrap();
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.forget();
    hand.advance(secs(1));
    let ended = hand.signals.iter().any(|signal| {
        matches!(signal, Signal::ChannelClosed { cause: ChannelEnd::InvalidParams { .. }, .. })
    });
    assert!(ended, "{:?}", hand.signals);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Leaving);
    assert_eq!(hand.last_sent("room:a", "phx_leave").join_ref.as_deref(), Some("1"));
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    let left = Signal::Left { topic: "room:a".into(), outcome: LeaveOutcome::Acked };
    assert_eq!(hand.signals.last(), Some(&left));
}

#[test]
fn panic_after_crash_sends_no_leave() {
    let mut hand = Hand::joined(config());
    let broken = JoinParams::from_fn(|_| panic!("the application's own bug"));
    hand.socket.set_join_params(hand.now, "room:a", broken).unwrap();
    hand.end_channel("room:a", "phx_error");
    hand.forget();
    hand.advance(secs(1));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    assert!(hand.sent.iter().all(|sent| sent.event != "phx_leave"), "{:?}", hand.sent);
}

#[test]
fn supplied_panic_ends_only_its_channel() {
    let mut hand = waiting(config());
    hand.socket.join(hand.now, "room:b", json!({})).unwrap();
    let ticket = ticket(&mut hand);
    let supplied = hand.socket.supply_join(hand.now, &ticket, Err(ParamsPanicked));
    assert_eq!(supplied, Supplied::Ended);
    hand.drain();
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joining);
}

#[test]
fn params_function_needs_a_free_slot() {
    let mut hand = Hand::joined(config().join_concurrency(1).expect("not zero"));
    hand.join("room:b");
    hand.socket.join(hand.now, "room:c", made(1)).unwrap();
    let call = phx_proto::PushOptions::call();
    hand.socket.push(hand.now, "room:a", "ask", json!({}), call).unwrap();
    assert_eq!(actions(&mut hand).len(), 1, "the push, and no ticket");
    hand.answer_join("room:b");
    assert_eq!(hand.last_sent("room:c", "phx_join").payload, json!({"n": 1}));
}
