//! Compression of messages with permessage-deflate (RFC 7692 section 7).
//!
//! ```text
//!   message ──▶ Compressor ──▶ compressed, or as it is        ┐
//!                 │ history: the last bytes that were sent    │ one Scratch
//!   message ◀── Decompressor ◀── compressed                   │ for many connections
//!                 │ history: the last bytes that were received┘
//! ```
//!
//! A message refers to repeated text in earlier messages of its direction, as far back as the window
//! reaches. A codec of DEFLATE keeps much more than that window: 250 to 370 KiB for sending and 47 KiB
//! for receiving. Therefore a connection keeps only the last bytes of each direction, and the codecs
//! are shared. For each message a codec is reset, and the history becomes its dictionary. The output is
//! as short as that of a codec that belongs to the connection.
//!
//! The result depends on the connection and the message only, and not on what the codec was used for
//! before.

use core::{fmt, mem};

use bytes::Bytes;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::utf8::Utf8;
use super::violation::Violation;
use crate::config::Compression;

/// The end of the empty block that ends a compressed message. It is not transmitted (RFC 7692 section
/// 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A final block with one byte. A decompressor that is between two blocks accepts it.
const PROBE: [u8; 6] = [0x01, 0x01, 0x00, 0xfe, 0xff, 0x00];

/// The windows of the codecs, as powers of two. A smaller window of a connection limits its history.
const CODEC_BITS: u8 = 15;

/// The maximum number of DEFLATE blocks in a message, in addition to one for each [`BLOCK_BYTES`]. An
/// empty block with code tables of its own has 20 bytes, and takes as long as 10 KiB of text.
const BLOCKS_MAX: usize = 4_096;
/// A message may have one more block for each of this many bytes after decompression.
///
/// With a `memLevel` of 1, the smallest, zlib ends a block after 127 symbols. Each symbol stands for at
/// least one byte. A smaller value would allow more blocks, so that an attacker's message
/// could take longer to decompress.
const BLOCK_BYTES: usize = 127;

/// The bytes before the data of a block that is not compressed (RFC 1951 section 3.2.4).
const STORED_HEADER: usize = 5;

/// A client sends a message as it is, if compression would make it more than this many times shorter.
/// Servers refuse such messages as attacks: Bandit if the ratio is more than 25.
const RATIO_MAX: usize = 20;

/// zlib's default. Higher levels cost more time and hardly save bytes in short messages.
const LEVEL: i32 = 6;

/// The size of the output buffer. A longer one is freed after its message.
const BUFFER: usize = 16 << 10;

/// The codecs that compress and decompress the messages of any number of connections, one after the
/// other. Create one for each thread or program, and pass it to
/// [`Endpoint::poll_event_with`](super::Endpoint::poll_event_with) and
/// [`Endpoint::poll_transmit_with`](super::Endpoint::poll_transmit_with).
///
/// It allocates 250 to 370 KiB for each window size when it compresses the first message, and 63 KiB
/// when it decompresses the first one.
#[derive(Default)]
pub struct Scratch {
    /// One compressor for each window size in use.
    compressors: Vec<(u8, Deflate)>,
    decompressor: Option<Inflate>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    /// Codecs that allocate their memory when they are first used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A reset compressor for a window, and a buffer of at least `length` bytes.
    fn compressor(&mut self, bits: u8, length: usize) -> (&mut Deflate, &mut [u8]) {
        let at = self.compressors.iter().position(|(other, _)| *other == bits);
        let at = at.unwrap_or_else(|| {
            let window_bits = -i32::from(bits);
            let config = DeflateConfig { level: LEVEL, window_bits, ..DeflateConfig::default() };
            self.compressors.push((bits, Deflate::new_with_config(config)));
            self.compressors.len() - 1
        });
        let codec = &mut self.compressors[at].1;
        codec.reset();
        grow(&mut self.buffer, length);
        (codec, &mut self.buffer)
    }

    fn decompressor(&mut self) -> (&mut Inflate, &mut [u8]) {
        let codec = self.decompressor.get_or_insert_with(|| Inflate::new(false, CODEC_BITS));
        grow(&mut self.buffer, BUFFER);
        (codec, &mut self.buffer)
    }

    /// Frees a buffer that was needed for a long message.
    fn shrink(&mut self) {
        if self.buffer.len() > 4 * BUFFER {
            self.buffer = Vec::new();
        }
    }
}

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

/// The last bytes of a direction, up to the size of its window. Without context takeover it stays
/// empty.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct History {
    bytes: Vec<u8>,
    max: usize,
}

impl History {
    fn new(bits: u8, takeover: bool) -> Self {
        Self { bytes: Vec::new(), max: if takeover { 1 << bits } else { 0 } }
    }

    fn push(&mut self, message: &[u8]) {
        let new = &message[message.len().saturating_sub(self.max)..];
        let kept = self.bytes.len().min(self.max - new.len());
        self.bytes.drain(..self.bytes.len() - kept);
        let length = kept + new.len();
        if length > self.bytes.capacity() {
            // Powers of two reach the size of the window exactly.
            self.bytes.reserve_exact(length.next_power_of_two() - kept);
        }
        self.bytes.extend_from_slice(new);
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.bytes.len(), self.max)
    }
}

/// Compresses the sent messages of a connection.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    bits: u8,
    bytes_min: usize,
    ratio_max: usize,
    history: History,
}

impl Compressor {
    /// `None` for a window of 256 bytes: there is no codec for it, because zlib has none. An endpoint
    /// may send every message uncompressed (RFC 7692 section 6.1).
    pub(super) fn new(agreed: &Compression, is_client: bool) -> Option<Self> {
        let bits = agreed.send_window_bits;
        let history = History::new(bits, agreed.send_takeover);
        let ratio_max = if is_client { RATIO_MAX } else { usize::MAX };
        (bits > 8).then_some(Self { bits, bytes_min: agreed.send_bytes_min, ratio_max, history })
    }

    /// Compresses a message. Returns `None` if it is to be sent uncompressed; then later messages do
    /// not refer to it (RFC 7692 section 7.2.1).
    pub(super) fn compress(
        &mut self,
        message: &[u8],
        scratch: Option<&mut Scratch>,
    ) -> Option<Bytes> {
        if message.len() < self.bytes_min.max(TAIL.len() + 1) {
            return None;
        }
        let mut own = None;
        let scratch = scratch.unwrap_or_else(|| own.insert(Scratch::new()));
        let compressed = self.compress_with(message, scratch);
        scratch.shrink();
        if compressed.is_some() {
            self.history.push(message);
        }
        compressed
    }

    fn compress_with(&self, message: &[u8], scratch: &mut Scratch) -> Option<Bytes> {
        let (codec, buffer) = scratch.compressor(self.bits, message.len());
        if !self.history.bytes.is_empty() {
            codec.set_dictionary(&self.history.bytes).ok()?;
        }
        // The buffer is as long as the message, so an output that is not shorter does not fit.
        let buffer = &mut buffer[..message.len()];
        let status = codec.compress(message, buffer, DeflateFlush::SyncFlush).ok()?;
        let (read, written) = (codec.total_in(), codec.total_out() as usize);
        if status != Status::Ok || read != message.len() as u64 || written >= buffer.len() {
            return None;
        }
        // RFC 7692 section 7.2.1: remove the four bytes from the tail end.
        let compressed = buffer[..written].strip_suffix(&TAIL)?;
        if message.len() > self.ratio_max.saturating_mul(compressed.len()) {
            return None;
        }
        Some(Bytes::copy_from_slice(compressed))
    }
}

/// Decompresses the received messages of a connection.
#[derive(Clone, Debug)]
pub(super) struct Decompressor {
    history: History,
}

impl Decompressor {
    pub(super) fn new(agreed: &Compression) -> Self {
        let history = History::new(agreed.receive_window_bits, agreed.receive_takeover);
        Self { history }
    }

    /// Decompresses a message of at most `max` bytes. A text is checked to be UTF-8. The decompression
    /// stops at the first error.
    pub(super) fn decompress(
        &mut self,
        compressed: &[u8],
        is_text: bool,
        max: usize,
        scratch: Option<&mut Scratch>,
    ) -> Result<Vec<u8>, Violation> {
        let mut own = None;
        let scratch = scratch.unwrap_or_else(|| own.insert(Scratch::new()));
        let message = self.decompress_with(compressed, is_text, max, scratch)?;
        self.history.push(&message);
        Ok(message)
    }

    fn decompress_with(
        &self,
        compressed: &[u8],
        is_text: bool,
        max: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>, Violation> {
        let mut output = Output { message: Vec::new(), utf8: is_text.then(Utf8::default), max };
        // RFC 7692 section 7.2.3.6: an empty message is one byte. Some peers send none.
        if compressed.is_empty() {
            return Ok(output.message);
        }
        let (codec, buffer) = scratch.decompressor();
        codec.reset(false);
        prime(codec, &self.history.bytes)?;
        let (mut rest, mut has_tail, mut blocks) = (compressed, false, 0);
        loop {
            let (read, written) = (codec.total_in(), codec.total_out());
            // It returns after each block, if the input and the buffer are sufficient for the block.
            let status = codec.decompress(rest, buffer, InflateFlush::Block);
            let written = (codec.total_out() - written) as usize;
            let read = (codec.total_in() - read) as usize;
            rest = &rest[read..];
            output.push(&buffer[..written])?;
            match status.map_err(|_| Violation::InvalidDeflate)? {
                // RFC 7692 section 7.2.3.4: a block may have the bit BFINAL. More blocks may follow, and
                // may refer to the same window.
                Status::StreamEnd if rest.is_empty() => return output.finish(),
                Status::StreamEnd => {
                    count_block(&mut blocks, &output)?;
                    codec.reset(false);
                    prime(codec, &last(&self.history.bytes, &output.message))?;
                }
                _ if written == buffer.len() => {}
                _ if !rest.is_empty() => count_block(&mut blocks, &output)?,
                // There may be more output, or the end of the stream.
                _ if read > 0 => {}
                // RFC 7692 section 7.2.2: append the four bytes to the tail end.
                _ if !mem::replace(&mut has_tail, true) => rest = &TAIL,
                _ => break,
            }
        }
        // A message that was cut off within a block is detected here.
        let written = codec.total_out();
        match codec.decompress(&PROBE, buffer, InflateFlush::NoFlush) {
            Ok(Status::StreamEnd) if codec.total_out() - written == 1 => output.finish(),
            _ => Err(Violation::InvalidDeflate),
        }
    }
}

/// The most bytes of a compressed message, for messages of at most `max` bytes. Data that cannot be
/// compressed gets longer, by [`STORED_HEADER`] for each block.
pub(crate) const fn compressed_max(max: usize) -> usize {
    max.saturating_add(blocks_max(max).saturating_mul(STORED_HEADER))
}

/// The maximum number of blocks of a message that has this length after decompression.
const fn blocks_max(length: usize) -> usize {
    BLOCKS_MAX + length / BLOCK_BYTES
}

/// Counts a block, after which the message continues.
fn count_block(blocks: &mut usize, output: &Output) -> Result<(), Violation> {
    *blocks += 1;
    let max = blocks_max(output.message.len());
    if *blocks > max { Err(Violation::TooManyBlocks { max }) } else { Ok(()) }
}

/// Sets the text to which the next blocks may refer.
fn prime(codec: &mut Inflate, dictionary: &[u8]) -> Result<(), Violation> {
    if dictionary.is_empty() {
        return Ok(());
    }
    codec.set_dictionary(dictionary).map(drop).map_err(|_| Violation::InvalidDeflate)
}

/// The last bytes of a history and the message after it, as far as the window of a codec reaches.
fn last(history: &[u8], message: &[u8]) -> Vec<u8> {
    let max = 1 << CODEC_BITS;
    let new = &message[message.len().saturating_sub(max)..];
    let old = &history[history.len().saturating_sub(max - new.len())..];
    [old, new].concat()
}

/// A message that is being decompressed.
struct Output {
    message: Vec<u8>,
    utf8: Option<Utf8>,
    max: usize,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        // RFC 6455 section 10.4, for the length that matters: the one after decompression.
        if bytes.len() > self.max - self.message.len() {
            let length = self.max as u64 + 1;
            return Err(Violation::MessageTooLong { length, max: self.max });
        }
        // RFC 7692 section 6.2 and RFC 6455 section 8.1: a text must be UTF-8 after decompression.
        if let Some(utf8) = &mut self.utf8 {
            utf8.push(bytes).map_err(|at| Violation::TextNotUtf8 { at })?;
        }
        self.message.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, Violation> {
        if let Some(utf8) = &mut self.utf8 {
            utf8.finish().map_err(|at| Violation::TextNotUtf8 { at })?;
        }
        Ok(self.message)
    }
}
