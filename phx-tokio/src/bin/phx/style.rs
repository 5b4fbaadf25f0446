//! Colour, for people: on a terminal that has it, unless they said that they want none.

use core::fmt;
use std::io::{self, IsTerminal};

/// What a colour means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It works, or works again.
    Good,
    /// Something is missing for now.
    Gap,
    /// It failed.
    Bad,
    /// The name of a thing.
    Name,
    /// Beside the point.
    Quiet,
    /// The text itself.
    Plain,
}

/// Whether to colour what goes to one of the two outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    pub(crate) fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    pub(crate) fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &impl IsTerminal) -> Self {
        let wanted = wants_colour(|name| std::env::var(name).ok());
        Self { coloured: stream.is_terminal() && wanted }
    }

    /// The text in the colour of its meaning, and without control characters: what servers say
    /// must not move the cursor.
    pub(crate) fn paint(self, tone: Tone, text: impl fmt::Display) -> String {
        let text = clean(&text.to_string());
        let code = match tone {
            Tone::Good => "32",
            Tone::Gap => "33",
            Tone::Bad => "1;31",
            Tone::Name => "36",
            Tone::Quiet => "2",
            Tone::Plain => return text,
        };
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }
}

/// <https://no-color.org>, <https://bixense.com/clicolors>, and terminals that can do nothing.
fn wants_colour(variable: impl Fn(&str) -> Option<String>) -> bool {
    let no_color = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let off = variable("CLICOLOR").is_some_and(|value| value == "0");
    let dumb = variable("TERM").is_some_and(|value| value == "dumb");
    !(no_color || off || dumb)
}

/// The text with its control characters, but for line breaks, made visible.
fn clean(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let shown = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_can_be_declined_in_three_ways() {
        let set = |name: &'static str, value: &'static str| {
            wants_colour(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(wants_colour(|_| None));
        assert!(set("NO_COLOR", "") && set("CLICOLOR", "1") && set("TERM", "xterm"));
        assert!(!set("NO_COLOR", "1") && !set("CLICOLOR", "0") && !set("TERM", "dumb"));
    }

    #[test]
    fn what_a_server_says_cannot_move_the_cursor() {
        let style = Style { coloured: true };
        assert_eq!(style.paint(Tone::Plain, "a\x1b[2J\u{9b}b\r"), "a\\u{1b}[2J\\u{9b}b\\r");
        assert_eq!(style.paint(Tone::Good, "a\nb"), "\x1b[32ma\nb\x1b[0m");
    }
}
