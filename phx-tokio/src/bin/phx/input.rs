//! Lines of a bounded length, from standard input or a file.
//!
//! A thread reads those of standard input, because reading blocks.

#[cfg(unix)]
use core::time::Duration;
use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// The maximum length of a line of standard input, in bytes: enough for a binary payload of the default
/// `max_push_bytes` as base64, and for the rest of an order of `phx run`.
pub(crate) const LINE_MAX: usize = 16 << 20;

/// The size of the buffer. It is that of the buffer in `std::io::Stdin`, which is therefore not used.
const BUFFER: usize = 8 << 10;

/// How often a process in the background looks whether it is in the foreground, while there is input.
#[cfg(unix)]
const BACKGROUND: Duration = Duration::from_millis(200);

/// A line and its number, from 1.
pub(crate) struct Line {
    pub(crate) number: u64,
    /// `None` if the line was too long.
    pub(crate) text: Option<Vec<u8>>,
}

/// The lines of standard input that are not blank. The thread ends at the end of the input, after an
/// error, or when the receiver is dropped.
pub(crate) fn lines() -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut input = BufReader::with_capacity(BUFFER, Stdin);
        for number in 1.. {
            let line = match line(&mut input, LINE_MAX) {
                Ok(None) => return,
                Ok(Some(Some(text))) if text.trim_ascii().is_empty() => continue,
                Ok(Some(Some(text))) => Ok(Line { number, text: Some(text) }),
                Ok(Some(None)) => input.skip_until(b'\n').map(|_| Line { number, text: None }),
                Err(error) => Err(error),
            };
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Standard input, whose reads block, even if another process that shares it has made it non-blocking.
///
/// The system would stop a process in the background of a terminal that reads from it, so such a process
/// waits until it is in the foreground.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        read(&mut io::stdin().lock(), bytes)
    }
}

#[cfg(unix)]
fn read(stdin: &mut io::StdinLock<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        wait_for_foreground(stdin);
        match stdin.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_input(stdin),
            read => return read,
        }
    }
}

#[cfg(not(unix))]
fn read(stdin: &mut io::StdinLock<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    stdin.read(bytes)
}

/// Waits until there is input. An error, such as a terminal that was closed, is also an error of the next
/// read.
#[cfg(unix)]
fn wait_for_input(stdin: &io::StdinLock<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = poll(&mut [PollFd::new(stdin, PollFlags::IN)], None);
}

/// Waits while the process is in the background of the terminal that it reads.
#[cfg(unix)]
fn wait_for_foreground(stdin: &io::StdinLock<'_>) {
    use std::io::IsTerminal;

    use rustix::process::getpgrp;
    use rustix::termios::tcgetpgrp;
    while stdin.is_terminal() {
        wait_for_input(stdin);
        if tcgetpgrp(stdin).map_or(true, |group| group == getpgrp()) {
            return;
        }
        std::thread::sleep(BACKGROUND);
    }
}

/// The next line with its line break, or `None` at the end of the input. Of a line that has more than `max`
/// bytes, only these are read, and the result is `Some(None)`.
pub(crate) fn line(input: &mut impl BufRead, max: usize) -> io::Result<Option<Option<Vec<u8>>>> {
    let mut text = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    if input.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
        return Ok(None);
    }
    Ok(Some((text.len() < max || text.ends_with(b"\n")).then_some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlong_line_is_not_kept() {
        let mut input = &b"one\nlonger\nsix..\n\nlast"[..];
        let mut next = || line(&mut input, 6).unwrap();
        assert_eq!(next(), Some(Some(b"one\n".to_vec())));
        assert_eq!(next(), Some(None));
        // The rest of that line.
        assert_eq!(next(), Some(Some(b"\n".to_vec())));
        assert_eq!(next(), Some(Some(b"six..\n".to_vec())));
        assert_eq!(next(), Some(Some(b"\n".to_vec())));
        assert_eq!(next(), Some(Some(b"last".to_vec())));
        assert_eq!(next(), None);
    }
}
