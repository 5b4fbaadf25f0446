//! `phx replay`: runs the core with the inputs of a recording and prints the trace.

use std::io::{self, Write};
use std::path::Path;

use phx_tokio::recording::{Recording, TraceLine};

use crate::exit::Failed;
use crate::output::written;
use crate::source;
use crate::style::{Style, Tone};

/// Prints the trace, up to the point where the replay diverges.
pub(crate) fn run(file: &Path) -> Result<(), Failed> {
    let text = source::recording(file)?;
    let recording = Recording::parse(&text).map_err(|error| source::bad(file, &error))?;
    let (style, mut out) = (Style::stdout(), io::stdout().lock());
    for line in recording.replay() {
        let line = line.map_err(|divergence| {
            let here = env!("CARGO_PKG_VERSION");
            let version = recording.version();
            Failed::Local(format!(
                "{}: {divergence} (recorded by {version}, this is {here})",
                source::shown(file)
            ))
        })?;
        if !written(writeln!(out, "{}", painted(style, &line)))? {
            return Ok(());
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
