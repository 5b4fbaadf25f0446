//! Hostile messages to a supervised connection: each costs at most three times its size.

use allocation_counter::measure;
use bytes::Bytes;
use phx_proto::service::Supervised;
use phx_proto::{Frame, JoinParams};
use serde_json::json;

use super::{MIB, message};
use crate::fleet::Fleet;

const SIZE: usize = 14 * MIB;

fn costs(name: &str, text: &str, subscribed: bool) {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let config = crate::fleet::config("one").auto_join("room:a", JoinParams::from(json!({})));
    let supervised = Supervised::new(config.expect("no reserved topic"));
    supervisor.start_connection("a", supervised).expect("a free name");
    fleet.settle();
    let subscription = subscribed.then(|| supervisor.bus().subscribe("**").expect("pattern"));
    let size = text.len();
    let info = measure(|| {
        let frame = Frame::Text(Bytes::copy_from_slice(text.as_bytes()));
        fleet.sends("one", frame);
    });
    drop(subscription);
    let who = if subscribed { "one subscriber" } else { "no subscriber" };
    let (size, peak) = (size as f64, info.bytes_max as f64);
    let times = peak / size;
    let verdict = if times <= 3.0 { "" } else { " ✗" };
    println!("│ hostile message: {name}, {who} │ 3 × its size │ {times:.2} ×{verdict} │");
    assert!(times <= 3.0, "{name}, {who}: {times:.2} times its size");
}

fn both(name: &str, text: &str) {
    let failed: Vec<bool> = [false, true]
        .into_iter()
        .filter(|subscribed| {
            let costs = || costs(name, text, *subscribed);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(costs)).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "{name}: with a subscriber {failed:?}");
}

#[test]
fn small_objects() {
    let payload = format!("[{}0]", r#"{"":0},"#.repeat(SIZE / 7));
    both("small objects", &message("room:a", "msg", &payload));
}

#[test]
fn empty_arrays() {
    let payload = format!("[{}0]", "[],".repeat(SIZE / 3));
    both("empty arrays", &message("room:a", "msg", &payload));
}

#[test]
fn deep_trees() {
    let deep = format!("{}{}", r#"{"":["#.repeat(60), "]}".repeat(60));
    let payload = format!("[{}0]", format!("{deep},").repeat(SIZE / (deep.len() + 1)));
    both("deep trees", &message("room:a", "msg", &payload));
}

#[test]
fn endless_brackets() {
    both("brackets", &message("room:a", "msg", &"[".repeat(SIZE)));
}

#[test]
fn bad_utf8_escapes() {
    let payload = format!("\"{}\"", r"\u0001".repeat(SIZE / 6));
    both("escapes", &message("room:a", "msg", &payload));
}

#[test]
fn long_event_name() {
    both("event name", &message("room:a", &"n".repeat(SIZE), "1"));
}

#[test]
fn event_name_of_escapes() {
    both("event name of escapes", &message("room:a", &r"\u0001".repeat(SIZE / 6), "1"));
}

#[test]
fn presence_diff_of_small_objects() {
    let metas = format!("[{}]", vec![r#"{"phx_ref":"a","":0}"#; SIZE / 21].join(","));
    let payload = format!(r#"{{"joins":{{"k":{{"metas":{metas}}}}},"leaves":{{}}}}"#);
    both("presence diff", &message("room:a", "presence_diff", &payload));
}
