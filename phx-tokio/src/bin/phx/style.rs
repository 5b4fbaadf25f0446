//! Text for a terminal: colours if it supports them, and escapes for control characters.

use core::fmt;
use std::borrow::Cow;
use std::io::{self, IsTerminal};

/// The meaning of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something works, or works again.
    Good,
    /// Something is interrupted and will be retried.
    Gap,
    /// Something failed.
    Bad,
    /// The name of a thing.
    Name,
    /// Text that is less important.
    Quiet,
    /// Plain text.
    Plain,
}

/// Whether an output is coloured: standard output or standard error.
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

    /// Colours a text by its meaning, on one line and [escaped]: text of a server must neither move
    /// the cursor nor look like a line of `phx`.
    pub(crate) fn paint(self, tone: Tone, text: impl fmt::Display) -> String {
        let text = escaped(&text.to_string()).into_owned();
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

/// Whether the environment variables allow colours: `NO_COLOR` (<https://no-color.org>), `CLICOLOR`
/// (<https://bixense.com/clicolors>), and `TERM` for terminals without colours.
fn wants_colour(variable: impl Fn(&str) -> Option<String>) -> bool {
    let no_color = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let off = variable("CLICOLOR").is_some_and(|value| value == "0");
    let dumb = variable("TERM").is_some_and(|value| value == "dumb");
    !(no_color || off || dumb)
}

/// Escapes line breaks, control characters (C0, DEL, C1) and invisible format characters, as in
/// `\u{202e}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_escaped(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

fn is_escaped(letter: char) -> bool {
    letter.is_control() || FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&letter))
}

/// The ranges of characters in the general categories Cf (format), Zl and Zp (line and paragraph
/// separators), and the ranges that Unicode reserves for further such characters.
const FORMAT: [(char, char); 19] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_can_be_disabled_three_ways() {
        let set = |name: &'static str, value: &'static str| {
            wants_colour(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(wants_colour(|_| None));
        assert!(set("NO_COLOR", "") && set("CLICOLOR", "1") && set("TERM", "xterm"));
        assert!(!set("NO_COLOR", "1") && !set("CLICOLOR", "0") && !set("TERM", "dumb"));
    }

    #[test]
    fn server_text_cannot_move_cursor() {
        let style = Style { coloured: true };
        assert_eq!(style.paint(Tone::Plain, "a\x1b[2J\u{9b}b\r"), "a\\u{1b}[2J\\u{9b}b\\r");
        assert_eq!(style.paint(Tone::Good, "a\nb"), "\x1b[32ma\\nb\x1b[0m");
    }

    /// Every kind of character that can hide or forge text is escaped; other text is unchanged.
    #[test]
    fn format_characters_are_escaped() {
        for letter in
            "\0\t\r\n\u{7f}\u{80}\u{85}\u{9f}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{2028}\
                       \u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{206f}\u{feff}\u{fff9}\
                       \u{1d173}\u{e0001}\u{e007f}"
                .chars()
        {
            let shown = escaped(letter.encode_utf8(&mut [0; 4])).into_owned();
            assert_eq!(shown, letter.escape_default().to_string());
        }
        let text = "żółw 🐢 \\ \"quoted\" \u{a0} \u{2027} \u{202f} \u{fffd}";
        assert_eq!(escaped(text), text);
    }
}
