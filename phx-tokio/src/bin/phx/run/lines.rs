//! Formats events as lines: JSON for programs, words on a terminal.

use core::time::Duration;
use std::borrow::Cow;

use phx_tokio::service::{CloudEvent, EventValue};

use crate::output::{Output, time_of_day};
use crate::style::{Style, Tone};

/// Members of the data that the line already shows elsewhere, or that add nothing.
const OMITTED: [&str; 7] = [
    "connection_name",
    "topic",
    "event",
    "state",
    "message",
    "retry_after_msec",
    "reconnect_attempts",
];

/// The line of an event, in the form for the output.
pub(super) fn line(output: &Output, event: &CloudEvent) -> Option<String> {
    if output.is_human() {
        Some(words(output.style(), event))
    } else {
        // Strings and JSON always serialize.
        serde_json::to_string(event).ok()
    }
}

fn words(style: Style, event: &CloudEvent) -> String {
    let text = |key: &str| event.data.get_str(key);
    // The time of an event has the form `2026-08-22T12:00:00.000Z`.
    let time = event.time.get(11..19).map(|time| format!("{time}Z")).unwrap_or_default();
    let name = text("connection_name").unwrap_or(Cow::Borrowed("phx"));
    let message = text("event").filter(|_| text("state").is_none() && text("id").is_none());
    let mut words = vec![style.paint(Tone::Quiet, time), style.paint(Tone::Name, name)];
    words.extend(event.subject.as_ref().map(|subject| style.paint(Tone::Name, subject)));
    words.push(match &message {
        Some(message) => style.paint(Tone::Plain, message),
        None => {
            let what = event.kind.strip_prefix("phoenix.").unwrap_or(&event.kind);
            let short = what.strip_prefix("connection.").or(what.strip_prefix("channel."));
            style.paint(tone(&event.kind), short.unwrap_or(what).replace('_', " "))
        }
    });
    let explained = text("message");
    words.extend(explained.as_ref().map(|message| style.paint(Tone::Plain, message)));
    for (key, value) in event.data.iter() {
        let hidden = OMITTED.contains(&key) || (key == "reason" && explained.is_some());
        if hidden {
            continue;
        }
        let value = value.as_str().unwrap_or_else(|| value.get());
        if value == "{}" {
            continue;
        }
        let shown = if message.is_some() { value } else { format!("{key}={value}").into() };
        words.push(style.paint(Tone::Plain, shown));
    }
    let retry_after = event.data.get("retry_after_msec").map(EventValue::deserialize);
    if let Some(Ok(msec)) = retry_after {
        let at = time_of_day(Duration::from_millis(msec));
        words.push(style.paint(Tone::Plain, format!("(next attempt at {at})")));
    }
    words.join(" ")
}

/// The tone for the last word of a type.
fn tone(kind: &str) -> Tone {
    match kind.rsplit('.').next().unwrap_or_default() {
        "connected" | "joined" | "resumed" | "done" | "replied" => Tone::Good,
        "connect_failed" | "disconnected" | "interrupted" | "errored" | "join_timed_out"
        | "dropped" | "warning" | "protocol_error" | "lagged" => Tone::Gap,
        "gave_up" | "rejected" | "failed" | "refused" | "malformed" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use phx_tokio::time::Time;
    use phx_tokio::{Router, Signal};

    use super::*;

    /// Every routed event becomes a line with its name, and with its cause and topic if it has
    /// them.
    #[test]
    fn every_signal_has_a_line() {
        for signal in Signal::examples() {
            let attributes = BTreeMap::new();
            let routed = Router::new().route("backend", &attributes, &signal, "1", Time::ZERO);
            let Some(event) = routed.map(|routed| routed.event) else {
                assert_eq!(signal.name(), "heartbeat_acked", "it is not routed");
                continue;
            };
            let line = words(Style::stdout(), &event);
            let kind = event.kind.rsplit('.').next().unwrap().to_owned();
            let is_message = matches!(signal.name(), "message" | "unrouted");
            let name = if is_message { kind } else { kind.replace('_', " ") };
            assert!(line.contains(&name), "{name}: {line}");
            let explained = event.data.get_str("message");
            assert!(explained.is_none_or(|words| line.contains(&*words)), "{line}");
            assert_eq!(line.contains("room:lobby"), signal.topic().is_some(), "{line}");
        }
    }
}
