//! A parser for the start of a refusal's body, for every kind of framing (RFC 9112 section 6.3).
//!
//! No error is reported here, because the refusal matters more than its body. Invalid framing ends
//! the body where it becomes invalid.

use crate::event::refusal::Refusal;

/// The longest accepted line with the size of a chunk. Usually it has a few bytes; chunk extensions
/// can make it longer.
const MAX_SIZE_LINE: usize = 128;

#[derive(Clone)]
pub(super) struct Body {
    kept: Vec<u8>,
    framing: Framing,
}

#[derive(Clone)]
enum Framing {
    /// The number of bytes that are still to come.
    Length(u64),
    Chunked(Chunk),
    UntilEof,
    /// The body is complete, or its framing is invalid.
    Complete,
}

#[derive(Clone)]
enum Chunk {
    /// Reading the line with the size: its bytes so far.
    Size(Vec<u8>),
    /// The number of data bytes that are still to come.
    Data(u64),
    /// Reading the line break after the data; true after its carriage return.
    End(bool),
}

impl Body {
    pub(super) fn new(status: u16, headers: &[(String, String)]) -> Self {
        Self { kept: Vec::new(), framing: Framing::new(status, headers) }
    }

    pub(super) fn handle_read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_complete() {
            bytes = self.step(bytes);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.kept.len() >= Refusal::MAX_BODY
            || matches!(self.framing, Framing::Complete | Framing::Length(0))
    }

    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    pub(super) fn into_kept(self) -> Vec<u8> {
        self.kept
    }

    /// Takes at least one byte, unless the body is complete, and returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match &mut self.framing {
            Framing::Length(left) | Framing::Chunked(Chunk::Data(left)) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                // `taken` is at most `left`, so the subtraction cannot wrap.
                *left -= taken as u64;
                let (data, rest) = bytes.split_at(taken);
                keep(&mut self.kept, data);
                if let Framing::Chunked(chunk @ Chunk::Data(0)) = &mut self.framing {
                    *chunk = Chunk::End(false);
                }
                rest
            }
            Framing::UntilEof => {
                keep(&mut self.kept, bytes);
                &[]
            }
            Framing::Chunked(Chunk::Size(line)) => {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return bytes;
                };
                line.push(byte);
                if byte == b'\n' || line.len() >= MAX_SIZE_LINE {
                    self.framing = match httparse::parse_chunk_size(line) {
                        // A chunk of size zero is the last one; trailers after it are ignored.
                        Ok(httparse::Status::Complete((_, size))) if size > 0 => {
                            Framing::Chunked(Chunk::Data(size))
                        }
                        _ => Framing::Complete,
                    };
                }
                rest
            }
            Framing::Chunked(chunk @ Chunk::End(_)) => {
                let Some((byte, rest)) = bytes.split_first() else {
                    return bytes;
                };
                match byte {
                    b'\r' if matches!(chunk, Chunk::End(false)) => *chunk = Chunk::End(true),
                    b'\n' => *chunk = Chunk::Size(Vec::new()),
                    _ => self.framing = Framing::Complete,
                }
                rest
            }
            Framing::Complete => bytes,
        }
    }
}

impl Framing {
    fn new(status: u16, headers: &[(String, String)]) -> Self {
        if matches!(status, 100..=199 | 204 | 304) {
            return Self::Complete;
        }
        let all = |wanted: &'static str| {
            let found = headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
            found.flat_map(|(_, value)| value.split(',')).map(str::trim_ascii)
        };
        // If both headers are present, Content-Length is ignored.
        if let Some(last) = all("transfer-encoding").next_back() {
            return if last.eq_ignore_ascii_case("chunked") {
                Self::Chunked(Chunk::Size(Vec::new()))
            } else {
                Self::UntilEof
            };
        }
        let mut lengths = all("content-length");
        match lengths.next() {
            None => Self::UntilEof,
            // If the length is repeated, all values must be equal.
            Some(length) if lengths.all(|other| other == length) => parse_length(length),
            Some(_) => Self::Complete,
        }
    }
}

fn parse_length(text: &str) -> Framing {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(length) if digits => Framing::Length(length),
        _ => Framing::Complete,
    }
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = Refusal::MAX_BODY.saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}
