//! One-line texts of actions, for the traces of simulated worlds and of recordings.
//!
//! They contain the start of each frame but no other payloads, and nothing that depends on the machine.

use core::fmt;
use core::time::Duration;

use crate::event::action::Action;
use crate::event::names::InWords;
use crate::wire::Frame;

pub(crate) fn write_action(f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::Connect { attempt, .. } => write!(f, "Connect (attempt {attempt})"),
        Action::Send { frame, .. } | Action::Join { frame, .. } => {
            write!(f, "-> {}", Shown(frame))
        }
        Action::Close { code, .. } => write!(f, "Close {code}"),
        Action::Abort { .. } => f.write_str("Abort"),
        Action::ReconnectAfter { delay, attempt, cause } => {
            let cause = cause.brief();
            write!(f, "ReconnectAfter {} (attempt {attempt}, {cause})", Millis(*delay))
        }
        Action::RejoinAfter { topic, delay, attempt, cause } => {
            let cause = InWords(cause.name());
            write!(f, "RejoinAfter {topic} {} (attempt {attempt}, {cause})", Millis(*delay))
        }
        Action::Signal(signal) => fmt::Display::fmt(signal, f),
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

/// A frame on one line, truncated if it is long.
pub(crate) struct Shown<'a>(pub(crate) &'a Frame);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 160;
        let Frame::Text(bytes) = self.0 else {
            return write!(f, "binary, {} bytes", self.0.len());
        };
        let text = String::from_utf8_lossy(bytes);
        let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        line.take(CHARS_MAX).try_for_each(|c| fmt::Write::write_char(f, c))?;
        if text.chars().count() > CHARS_MAX {
            write!(f, "… {} bytes", bytes.len())?;
        }
        Ok(())
    }
}
