//! Events as lines: JSON for programs, words for people on a terminal.

use phx_tokio::CloudEvent;
use serde_json::Value;

use core::time::Duration;

use crate::output::{Output, time_of_day};
use crate::style::Tone;

/// Members of the data that a line has in another place, or that say nothing more.
const SAID: [&str; 7] = [
    "connection_name",
    "topic",
    "event",
    "state",
    "message",
    "retry_after_msec",
    "reconnect_attempts",
];

/// The line of an event, in the form that suits the reader.
pub(super) fn line(output: &Output, event: &CloudEvent) -> Option<String> {
    if !output.is_human() {
        // Strings, numbers and maps can be written.
        return serde_json::to_string(event).ok();
    }
    let text = |key: &str| event.data.get(key).and_then(Value::as_str);
    // `2026-08-22T12:00:00.000Z`
    let time = event.time.get(11..19).map(|time| format!("{time}Z")).unwrap_or_default();
    let name = text("connection_name").unwrap_or("phx");
    let is_message = text("event").is_some() && text("state").is_none() && text("id").is_none();
    let (tone, what) = if is_message {
        (Tone::Plain, text("event").unwrap_or_default())
    } else {
        let what = event.kind.strip_prefix("phoenix.").unwrap_or(&event.kind);
        let short = what.strip_prefix("connection.").or(what.strip_prefix("channel."));
        (tone(&event.kind), short.unwrap_or(what))
    };
    let style = output.style();
    let mut words = vec![style.paint(Tone::Quiet, time), style.paint(Tone::Name, name)];
    words.extend(event.subject.as_ref().map(|subject| style.paint(Tone::Name, subject)));
    let what = if is_message { what.to_owned() } else { what.replace('_', " ") };
    words.push(style.paint(tone, what));
    words.extend(text("message").map(|message| style.paint(Tone::Plain, message)));
    for (key, value) in &event.data {
        let hidden = SAID.contains(&key.as_str()) || (key == "reason" && text("message").is_some());
        if hidden || *value == Value::Object(serde_json::Map::new()) {
            continue;
        }
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let shown = if is_message { value } else { format!("{key}={value}") };
        words.push(style.paint(Tone::Plain, shown));
    }
    if let Some(msec) = event.data.get("retry_after_msec").and_then(Value::as_u64) {
        let at = time_of_day(Duration::from_millis(msec));
        words.push(style.paint(Tone::Plain, format!("(next attempt at {at})")));
    }
    Some(words.join(" "))
}

/// What the end of a type means.
fn tone(kind: &str) -> Tone {
    match kind.rsplit('.').next().unwrap_or_default() {
        "connected" | "joined" | "resumed" | "done" | "replied" => Tone::Good,
        "disconnected" | "interrupted" | "errored" | "join_timed_out" | "dropped" | "warning"
        | "protocol_error" | "lagged" => Tone::Gap,
        "gave_up" | "rejected" | "failed" | "refused" | "malformed" => Tone::Bad,
        _ => Tone::Plain,
    }
}
