//! Standard output: readable lines on a terminal, one JSON object per line otherwise.
//!
//! Payloads are printed as the server sent them, byte for byte: numbers, order and repetition of
//! keys, escapes. Only line breaks between tokens become spaces, so that an object stays on one
//! line.

use core::fmt::Write as _;
use core::time::Duration;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phx_tokio::Payload;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::exit::Failed;
use crate::style::{Style, Tone};
use crate::writer::{Blocking, Gone, Writer};

/// Standard output, as lines for a terminal or as JSON, behind a [`Writer`]. Clones share it.
#[derive(Clone)]
pub(crate) struct Output {
    human: bool,
    style: Style,
    writer: Writer,
}

impl Output {
    /// Starts the writer, in the form for a terminal or for a program.
    pub(crate) fn start() -> Result<Self, Failed> {
        let writer = Writer::start("standard output", Blocking(io::stdout()))
            .and_then(|writer| watch_reader(writer.clone()).map(|()| writer));
        let writer = writer.map_err(|error| Failed::Local(format!("standard output: {error}")))?;
        Ok(Self { human: io::stdout().is_terminal(), style: Style::stdout(), writer })
    }

    /// Whether the output is a terminal.
    pub(crate) const fn is_human(&self) -> bool {
        self.human
    }

    pub(crate) const fn style(&self) -> Style {
        self.style
    }

    /// The queue of lines.
    pub(crate) const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Formats an event of a topic: for a terminal the time, the topic and `words`; otherwise an
    /// object with `type`, `topic` and `members`.
    pub(crate) fn event(
        &self,
        kind: &str,
        topic: &str,
        words: (Tone, &str, &str),
        members: &Members,
    ) -> String {
        if !self.human {
            let (kind, topic) = (quoted(kind), quoted(topic));
            return format!("{{\"type\":{kind},\"topic\":{topic}{}}}", members.0);
        }
        let (tone, what, rest) = words;
        let style = self.style;
        let (time, topic) = (style.paint(Tone::Quiet, clock()), style.paint(Tone::Name, topic));
        let line = format!("{time} {topic} {}", style.paint(tone, what));
        if rest.is_empty() { line } else { format!("{line} {}", style.paint(Tone::Plain, rest)) }
    }

    /// Formats a payload alone.
    pub(crate) fn payload(&self, text: &str) -> String {
        if self.human { self.style.paint(Tone::Plain, text) } else { text.to_owned() }
    }

    /// Waits until the output can no longer be written. A closed pipe is detected without a write,
    /// so that `phx listen … | head -n 1` ends once `head` has its line.
    pub(crate) async fn closed(&self) -> Gone {
        self.writer.closed().await
    }

    /// The error at a graceful end if events could not be written.
    pub(crate) fn lost(events: u64) -> Result<(), Failed> {
        match events {
            0 => Ok(()),
            1 => Err(Failed::Local("1 event could not be written: the output is not read".into())),
            events => Err(Failed::Local(format!(
                "{events} events could not be written: the output is not read"
            ))),
        }
    }
}

/// Starts a thread that detects without a write that the reader has closed standard output. The
/// thread blocks until then.
#[cfg(unix)]
fn watch_reader(writer: Writer) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let watch = move || {
        let stdout = io::stdout();
        loop {
            // No event is requested: `poll` reports errors and hang-ups anyway.
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut polled, None) {
                Ok(_) if !polled[0].revents().is_empty() => return writer.reader_is_gone(),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // The next write fails instead.
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("reader".to_owned()).spawn(watch).map(drop)
}

/// The next write fails instead.
#[cfg(not(unix))]
fn watch_reader(_: Writer) -> io::Result<()> {
    Ok(())
}

/// The result of a write without the writer: whether the output is still open. That a reader closes a pipe
/// early, as in `phx man | head`, is not an error.
pub(crate) fn written(result: io::Result<()>) -> Result<bool, Failed> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failed::Local(format!("standard output: {error}"))),
    }
}

/// Prints one entry of a list without the writer: on a terminal its name and a line for each of
/// `words`, otherwise the object.
///
/// # Errors
///
/// If the output cannot be written.
pub(crate) fn entry(name: &str, words: &[&str], object: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        let style = Style::stdout();
        writeln!(out, "{}", style.paint(Tone::Name, name))?;
        for line in words {
            writeln!(out, "  {}", style.paint(Tone::Plain, line))?;
        }
    } else {
        writeln!(out, "{object}")?;
    }
    out.flush()
}

/// Additional members of a JSON object, each after a comma.
#[derive(Debug, Default)]
pub(crate) struct Members(String);

impl Members {
    pub(crate) const fn new() -> Self {
        Self(String::new())
    }

    /// Adds a member whose value is a string.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let value = quoted(value);
        self.json(key, &value)
    }

    /// Adds a member whose value is JSON already.
    pub(crate) fn json(mut self, key: &str, value: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, ",{}:{value}", quoted(key));
        self
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A payload as JSON on one line: JSON as its own text, bytes as `{"payload_base64": …}`, invalid
/// JSON as a string.
pub(crate) fn json_of(payload: &Payload) -> Cow<'_, str> {
    if payload.is_binary() {
        let text = STANDARD.encode(payload.as_bytes());
        return Cow::Owned(format!("{{\"payload_base64\":\"{text}\"}}"));
    }
    match payload.get().map(serde_json::from_str::<&RawValue>) {
        Ok(Ok(raw)) => one_line(raw.get()),
        _ => Cow::Owned(quoted(&String::from_utf8_lossy(payload.as_bytes()))),
    }
}

/// Replaces the line breaks of JSON; a JSON string cannot contain one.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

/// The time of day in UTC, because the standard library does not know time zones.
pub(crate) fn clock() -> String {
    time_of_day(Duration::ZERO)
}

/// The time of day after a delay, in UTC.
pub(crate) fn time_of_day(delay: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = now.saturating_add(delay).as_secs();
    let (hours, minutes, seconds) = (at / 3_600 % 24, at / 60 % 60, at % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a payload is unchanged, even where a parser would change it; only line breaks
    /// are replaced.
    #[test]
    fn payload_text_is_unchanged() {
        let text = r#"{"b":1.0e0,"a":123456789012345678901234567890,"b":"\ud83d\/","a":-0}"#;
        let payload = Payload::json(serde_json::from_str::<&RawValue>(text).unwrap()).unwrap();
        assert_eq!(json_of(&payload), text);
        let broken = serde_json::from_str::<&RawValue>("[1,\r\n 2]").unwrap();
        assert_eq!(json_of(&Payload::json(broken).unwrap()), "[1,   2]");
        assert_eq!(json_of(&Payload::binary([0, 255])), r#"{"payload_base64":"AP8="}"#);
    }

    #[test]
    fn members_begin_with_a_comma() {
        let members = Members::new().text("e\n", "a\"b").json("payload", "{}");
        assert_eq!(members.0, r#","e\n":"a\"b","payload":{}"#);
    }
}
