//! What `phx` prints: readable lines on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phx_tokio::Payload;
use serde_json::{Value, json};

use crate::style::{Style, Tone};

/// Standard output, in one of two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    human: bool,
    style: Style,
}

impl Output {
    /// The form that suits whoever reads.
    pub(crate) fn new() -> Self {
        Self { human: io::stdout().is_terminal(), style: Style::stdout() }
    }

    /// Prints something that happened on a topic: for people the time, the topic and `words`; for
    /// programs `type`, `topic` and what else there is.
    ///
    /// # Errors
    ///
    /// When nobody reads any more (`phx listen … | head`).
    pub(crate) fn event(
        self,
        kind: &str,
        topic: &str,
        words: (Tone, &str, &str),
        more: Value,
    ) -> io::Result<()> {
        if !self.human {
            let mut line = json!({"type": kind, "topic": topic});
            if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
                line.extend(more);
            }
            return print(&line.to_string());
        }
        let (tone, what, rest) = words;
        let style = self.style;
        let (time, topic) = (style.paint(Tone::Quiet, clock()), style.paint(Tone::Name, topic));
        let line = format!("{time} {topic} {}", style.paint(tone, what));
        print(&if rest.is_empty() {
            line
        } else {
            format!("{line} {}", style.paint(Tone::Plain, rest))
        })
    }

    /// Prints a value by itself.
    ///
    /// # Errors
    ///
    /// When nobody reads any more.
    pub(crate) fn value(self, value: &Value) -> io::Result<()> {
        if !self.human {
            return print(&value.to_string());
        }
        print(&self.style.paint(Tone::Plain, format!("{value:#}")))
    }

    /// Prints an entry of a list: for people its name and a line for each of `words`, for programs
    /// the object.
    ///
    /// # Errors
    ///
    /// When nobody reads any more.
    pub(crate) fn entry(self, name: &str, words: &[&str], object: &Value) -> io::Result<()> {
        if !self.human {
            return print(&object.to_string());
        }
        let words = words.iter().map(|line| format!("\n  {}", self.style.paint(Tone::Plain, line)));
        print(&format!("{}{}", self.style.paint(Tone::Name, name), words.collect::<String>()))
    }
}

/// A payload as JSON; bytes as `{"payload_base64": …}`; what is no JSON as the text it is.
pub(crate) fn json_of(payload: &Payload) -> Value {
    if payload.is_binary() {
        return json!({"payload_base64": STANDARD.encode(payload.as_bytes())});
    }
    payload.to_value().unwrap_or_else(|_| Value::from(String::from_utf8_lossy(payload.as_bytes())))
}

/// The time of day in UTC: the standard library knows no other.
fn clock() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hours, minutes, seconds) = (since / 3_600 % 24, since / 60 % 60, since % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}Z")
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
