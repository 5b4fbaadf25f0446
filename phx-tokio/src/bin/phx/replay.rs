//! `phx replay`: runs the core with the inputs of a recording and prints the trace.

use std::io::{self, BufReader, Write};
use std::path::Path;

use phx_tokio::recording::{LineReplay, RecordingError, ReplayError, TraceLine};

use crate::exit::Failed;
use crate::input::line;
use crate::output::written;
use crate::source;
use crate::style::{Style, Tone};

/// The maximum length of a line, in bytes. The escapes of a valid frame of the default `max_message_bytes` at
/// most double its length.
const LINE_MAX: usize = 256 << 20;

/// Prints the trace, up to the point where the replay diverges. It is printed while the recording is read, so
/// the file may have any size.
pub(crate) fn run(file: &Path) -> Result<(), Failed> {
    let mut input = BufReader::new(source::open(file)?);
    let (style, mut out) = (Style::stdout(), io::stdout().lock());
    let mut replay = LineReplay::new();
    for number in 1_u64.. {
        let invalid = |problem: &str| source::bad(file, &format!("line {number}: {problem}"));
        let text = match line(&mut input, LINE_MAX).map_err(|error| source::bad(file, &error))? {
            Some(Some(text)) => text,
            Some(None) => return Err(invalid(&format!("it has more than {LINE_MAX} bytes"))),
            None if number == 1 => return Err(source::bad(file, &RecordingError::Empty)),
            None => break,
        };
        let text = if number == 1 { source::without_mark(&text) } else { &text };
        let text = core::str::from_utf8(text).map_err(|_| invalid("it is not UTF-8"))?;
        let traced = match replay.next_line(text.trim_end_matches(['\n', '\r'])) {
            Ok(traced) => traced,
            Err(ReplayError::Diverged(divergence)) => {
                let here = env!("CARGO_PKG_VERSION");
                let version = replay.version().unwrap_or_default();
                return Err(Failed::Local(format!(
                    "{}: {divergence} (recorded by {version}, this is {here})",
                    source::shown(file)
                )));
            }
            Err(error) => return Err(source::bad(file, &error)),
        };
        let Some(traced) = traced else { continue };
        if !written(writeln!(out, "{}", painted(style, &traced)))? {
            break;
        }
    }
    Ok(())
}

fn painted(style: Style, line: &TraceLine) -> String {
    let whole = line.to_string();
    let (front, text) = whole.split_at(whole.len() - line.text.len());
    let tone = match line.text.split([' ', '(']).next().unwrap_or_default() {
        "Connected" | "Joined" | "Resumed" => Tone::Good,
        "ConnectFailed" | "Disconnected" | "Interrupted" | "Errored" | "JoinTimedOut" => Tone::Gap,
        "GaveUp" | "JoinRejected" | "ProtocolError" | "failed" => Tone::Bad,
        "=" if line.text.starts_with("= refused") => Tone::Bad,
        _ if line.is_input => Tone::Name,
        _ => Tone::Plain,
    };
    format!("{}{}", style.paint(Tone::Quiet, front), style.paint(tone, text))
}
