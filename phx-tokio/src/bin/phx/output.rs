//! What `phx` prints: readable lines on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phx_tokio::Payload;
use serde_json::{Value, json};

/// Standard output, in one of two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    human: bool,
}

impl Output {
    /// The form that suits whoever reads.
    pub(crate) fn new() -> Self {
        Self { human: io::stdout().is_terminal() }
    }

    /// Prints one event: `type`, `topic` and what else there is.
    ///
    /// # Errors
    ///
    /// When nobody reads any more (`phx listen … | head`).
    pub(crate) fn event(self, kind: &str, topic: &str, more: Value) -> io::Result<()> {
        let mut line = json!({"type": kind, "topic": topic});
        if !self.human {
            if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
                line.extend(more);
            }
            return print(&line.to_string());
        }
        let details: Vec<String> = match more {
            Value::Object(more) => more.values().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        print(&format!("{topic}  {kind}  {}", details.join("  ")))
    }

    /// Prints a value by itself.
    ///
    /// # Errors
    ///
    /// When nobody reads any more.
    pub(crate) fn value(self, value: &Value) -> io::Result<()> {
        print(&if self.human { format!("{value:#}") } else { value.to_string() })
    }
}

/// A payload as JSON; bytes as `{"payload_base64": …}`; what is no JSON as the text it is.
pub(crate) fn json_of(payload: &Payload) -> Value {
    if payload.is_binary() {
        return json!({"payload_base64": STANDARD.encode(payload.as_bytes())});
    }
    payload.to_value().unwrap_or_else(|_| Value::from(String::from_utf8_lossy(payload.as_bytes())))
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
