//! Presence: the log of a channel, and diffs that are held back.

use phx_proto::{Payload, Presence};
use serde_json::Value;

use super::{KIB, MIB, held, large, message, one_buffer, peak, receive, row};
use crate::bench::Bench;

/// A channel without a presence stream logs presence messages for a stream that is created later.
#[test]
fn log_without_a_stream() {
    let mut bench = Bench::new(|config| config.mailbox(1, 1).expect("not zero"));
    let room = bench.joined("room:a");
    let bytes = held(|| {
        for n in 0..255 {
            let diff = format!(
                r#"{{"joins":{{"k{n}":{{"metas":[{{"phx_ref":"{n}"}}]}}}},"leaves":{{}}}}"#
            );
            let diff = message("room:a", "presence_diff", &diff);
            receive(&mut bench, one_buffer([&large(MIB), &diff]));
        }
        let last = message("room:a", "msg", "1");
        receive(&mut bench, one_buffer([&last]));
    });
    drop(room);
    row("presence log: tiny beside 1 MiB", MIB, bytes);
}

#[test]
fn log_of_small_objects() {
    let mut bench = Bench::new(|config| config.mailbox(1, 1).expect("not zero"));
    let room = bench.joined("room:a");
    let metas = format!("[{}0]", r#"{"":0},"#.repeat(1_000));
    let bytes = peak(|| {
        for n in 0..255 {
            let diff = format!(r#"{{"joins":{{"k{n}":{{"metas":{metas}}}}},"leaves":{{}}}}"#);
            receive(&mut bench, one_buffer([&message("room:a", "presence_diff", &diff)]));
        }
        receive(&mut bench, one_buffer([&message("room:a", "msg", "1")]));
    });
    drop(room);
    row("presence log: small objects", MIB, bytes);
}

/// Diffs that are held back until the state arrives.
#[test]
fn held_diffs() {
    for (name, meta) in [
        ("small objects", format!("[{}0]", r#"{"":0},"#.repeat(5_000))),
        ("one string", format!("\"{}\"", "x".repeat(200 * KIB))),
    ] {
        let bytes = peak(|| {
            let mut presence = Presence::<Value>::new();
            presence.joined();
            for n in 0..256 {
                let diff = format!(
                    r#"{{"joins":{{"k{n}":{{"metas":[{{"phx_ref":"{n}","a":{meta}}}]}}}},"leaves":{{}}}}"#
                );
                let diff: Box<serde_json::value::RawValue> =
                    serde_json::from_str(&diff).expect("JSON");
                let _ = presence.sync_diff(&Payload::json(&diff).expect("JSON"));
            }
            presence
        });
        row(&format!("held presence diffs: {name}"), 8 * MIB, bytes);
    }
}
