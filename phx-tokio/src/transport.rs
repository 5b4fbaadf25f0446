//! One open WebSocket over tungstenite.
//!
//! ```text
//!          send, close                          poll_receive
//!               │                                    ▲
//!        ┌──────▼───────── tungstenite ──────────────┴──────┐
//!        │  masks, frames, answers pings and close frames   │
//!        └──────┬───────────────────────────────────▲───────┘
//!               │        ┌───────── Io ────────┐    │
//!               └───────▶│ a failed write only │────┘
//!                        │ stops the writing   │
//!                        └──────── TCP ────────┘
//! ```
//!
//! Reading decides how a connection ended. A write that fails first must not hide the close frame
//! that is still to be read: a stopping Phoenix sends one and then resets the connection
//! (`wire/close_graceful_shutdown`). So [`Io`] swallows what is written after a failed write and
//! lets the reading go on to the true end, which a broken connection reaches at once.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use phx_proto::Ended;
use phx_proto::driver::{Received, Transport, WriteFailed};
use phx_proto::wire::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as RawFrame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::dial::Limits;

/// An open WebSocket on tokio.
#[derive(Debug)]
pub struct TokioTransport {
    socket: WebSocketStream<Io>,
}

impl TokioTransport {
    /// Takes over a stream that has been upgraded, with the bytes that were read too far.
    pub(crate) async fn new(stream: TcpStream, leftover: Bytes, limits: Limits) -> Self {
        let io = Io { stream, write_failed: false };
        let config = socket_config(limits);
        let part = leftover.into();
        let socket =
            WebSocketStream::from_partially_read(io, part, Role::Client, Some(config)).await;
        Self { socket }
    }

    fn write_state(&self) -> Result<(), WriteFailed> {
        if self.socket.get_ref().write_failed { Err(WriteFailed) } else { Ok(()) }
    }

    /// Queues a close frame, and has it written if the connection takes it at once.
    fn start_close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code, reason: within_control_frame(reason).into() };
        // Fails when a close frame went out before, or when nothing can be written any more.
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
    }

    /// The end, after telling the server why when the fault is in what it sent.
    fn ended(&mut self, error: Error) -> Ended {
        let lost = |message: String| Ended::Lost { message };
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                self.start_close(CloseCode::Size, "");
                Ended::MessageTooLarge
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                lost("the server ended it without a close frame".to_owned())
            }
            Error::Protocol(error) => {
                self.start_close(CloseCode::Protocol, "");
                lost(format!("the server broke the WebSocket protocol: {error}"))
            }
            Error::Utf8(_) => {
                self.start_close(CloseCode::Invalid, "");
                lost("the server sent a text frame that is not UTF-8".to_owned())
            }
            Error::Io(error) => lost(error.to_string()),
            error => lost(error.to_string()),
        }
    }
}

impl Transport for TokioTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Received::Ended(self.ended(error))),
                None => {
                    let message = "the connection is over".to_owned();
                    return Poll::Ready(Received::Ended(Ended::Lost { message }));
                }
            };
            return Poll::Ready(match message {
                Message::Text(text) => Received::Frame(Frame::Text(text.into())),
                Message::Binary(bytes) => Received::Frame(Frame::Binary(bytes)),
                Message::Close(frame) => {
                    // The answering close frame waits in the buffer. It is written if the
                    // connection takes it; the end is not held up for it.
                    let _ = Pin::new(&mut self.socket).poll_flush(cx);
                    let (code, reason) = match frame {
                        Some(frame) => (Some(frame.code.into()), frame.reason.to_string()),
                        None => (None, String::new()),
                    };
                    Received::Ended(Ended::CloseFrame { code, reason })
                }
                // The next read writes the pong that a ping has queued, so polling goes on until
                // nothing is there to be read.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            });
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let ready = ready!(Pin::new(&mut self.socket).poll_ready(cx));
        Poll::Ready(ready.map_err(|_| WriteFailed).and_then(|()| self.write_state()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        // As a raw frame, because a text message would be checked to be UTF-8 once more.
        let (bytes, kind) = match frame {
            Frame::Text(bytes) => (bytes, Data::Text),
            Frame::Binary(bytes) => (bytes, Data::Binary),
        };
        let message = Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true));
        Pin::new(&mut self.socket).start_send(message).map_err(|_| WriteFailed)?;
        self.write_state()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        Poll::Ready(flushed.map_err(|_| WriteFailed).and_then(|()| self.write_state()))
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.start_close(code.into(), reason);
    }
}

/// What pongs may take in the write buffer beside the frames.
const PONGS: usize = 4_096;

fn socket_config(limits: Limits) -> WebSocketConfig {
    // The buffer never holds more than its size and one frame on top, because no frame is taken
    // while a write is blocked. The bound is for the pongs to a peer that pings and does not read.
    let write_max = limits.write_buffer.saturating_add(limits.push_bytes).saturating_add(PONGS);
    WebSocketConfig::default()
        .read_buffer_size(limits.read_buffer)
        .write_buffer_size(limits.write_buffer.min(write_max - 1))
        .max_write_buffer_size(write_max)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes))
}

/// As much of a close reason as fits a control frame: 125 bytes less the code (RFC 6455
/// section 5.5).
fn within_control_frame(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// The byte stream under the WebSocket. TLS has its place here, beside plain TCP.
#[derive(Debug)]
struct Io {
    stream: TcpStream,
    write_failed: bool,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.write_failed {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(_) => self.write_failed = true,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_failed && ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            self.write_failed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LIMITS: Limits =
        Limits { message_bytes: 1_024, push_bytes: 1_024, read_buffer: 4_096, write_buffer: 0 };

    /// An open WebSocket and the server's end of its TCP connection.
    async fn pair(leftover: &'static [u8]) -> (TokioTransport, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (TokioTransport::new(stream, Bytes::from_static(leftover), LIMITS).await, server)
    }

    async fn receive(transport: &mut TokioTransport) -> Received {
        poll_fn(|cx| transport.poll_receive(cx)).await
    }

    /// The next masked frame of at most 125 bytes: its opcode and its payload.
    async fn read_masked(server: &mut TcpStream) -> (u8, Vec<u8>) {
        let mut head = [0; 6];
        server.read_exact(&mut head).await.unwrap();
        assert_eq!(head[1] & 0x80, 0x80, "a client masks");
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        server.read_exact(&mut payload).await.unwrap();
        for (byte, mask) in payload.iter_mut().zip(head[2..].iter().cycle()) {
            *byte ^= mask;
        }
        (head[0] & 0x0f, payload)
    }

    fn close_frame(code: u16) -> [u8; 4] {
        let [high, low] = code.to_be_bytes();
        [0x88, 2, high, low]
    }

    #[tokio::test]
    async fn bytes_read_with_the_upgrade_are_the_first_frames() {
        let (mut transport, mut server) = pair(b"\x81\x02hi\x82\x03ab").await;
        let text = Received::Frame(Frame::Text(Bytes::from_static(b"hi")));
        assert_eq!(receive(&mut transport).await, text);
        server.write_all(b"c").await.unwrap();
        let binary = Received::Frame(Frame::Binary(Bytes::from_static(b"abc")));
        assert_eq!(receive(&mut transport).await, binary);
    }

    #[tokio::test]
    async fn a_ping_is_answered_though_nothing_else_is_written() {
        let (mut transport, mut server) = pair(b"").await;
        server.write_all(b"\x89\x04ping").await.unwrap();
        tokio::select! {
            received = receive(&mut transport) => panic!("a ping is not a message: {received:?}"),
            pong = read_masked(&mut server) => assert_eq!(pong, (0xa, b"ping".to_vec())),
        }
    }

    #[tokio::test]
    async fn frames_are_written_as_they_are_in_order() {
        let (mut transport, mut server) = pair(b"").await;
        for frame in [Frame::Text(Bytes::from_static(b"[]")), Frame::Binary(Bytes::new())] {
            poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
            transport.send(frame).unwrap();
        }
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        assert_eq!(read_masked(&mut server).await, (1, b"[]".to_vec()));
        assert_eq!(read_masked(&mut server).await, (2, Vec::new()));
    }

    #[tokio::test]
    async fn a_close_frame_is_the_cause_though_a_reset_follows_and_writing_failed() {
        let (mut transport, mut server) = pair(b"").await;
        transport.send(Frame::Text(Bytes::from_static(b"unread"))).unwrap();
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        server.readable().await.unwrap();
        server.write_all(&close_frame(1012)).await.unwrap();
        // With bytes unread, this is a reset.
        drop(server);
        while transport.send(Frame::Text(Bytes::from_static(b"more"))).is_ok() {
            let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
            tokio::task::yield_now().await;
        }
        let ended = Ended::CloseFrame { code: Some(1012), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(ended));
    }

    #[tokio::test]
    async fn a_close_frame_is_answered() {
        let (mut transport, mut server) = pair(b"").await;
        server.write_all(&close_frame(1001)).await.unwrap();
        let ended = Ended::CloseFrame { code: Some(1001), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(ended));
        assert_eq!(read_masked(&mut server).await, (8, 1001_u16.to_be_bytes().to_vec()));
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_with_1009() {
        let (mut transport, mut server) = pair(b"").await;
        server.write_all(b"\x82\x7e\x04\x01").await.unwrap();
        assert_eq!(receive(&mut transport).await, Received::Ended(Ended::MessageTooLarge));
        assert_eq!(read_masked(&mut server).await, (8, 1009_u16.to_be_bytes().to_vec()));
    }

    #[tokio::test]
    async fn a_server_that_vanishes_is_a_lost_transport() {
        let (mut transport, server) = pair(b"").await;
        drop(server);
        let received = receive(&mut transport).await;
        assert!(matches!(received, Received::Ended(Ended::Lost { .. })), "{received:?}");
    }

    #[tokio::test]
    async fn a_broken_frame_is_told_to_the_server() {
        let (mut transport, mut server) = pair(b"").await;
        server.write_all(b"\xf1\x00").await.unwrap();
        let received = receive(&mut transport).await;
        assert!(matches!(received, Received::Ended(Ended::Lost { .. })), "{received:?}");
        assert_eq!(read_masked(&mut server).await, (8, 1002_u16.to_be_bytes().to_vec()));
    }

    #[tokio::test]
    async fn closing_sends_the_code_and_waits_for_the_answer() {
        let (mut transport, mut server) = pair(b"").await;
        transport.close(1000, "bye");
        let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
        assert_eq!(read_masked(&mut server).await, (8, b"\x03\xe8bye".to_vec()));
        server.write_all(&close_frame(1000)).await.unwrap();
        let ended = Ended::CloseFrame { code: Some(1000), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(ended));
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let reason = "ä".repeat(100);
        assert_eq!(within_control_frame(&reason).len(), 122);
        assert_eq!(within_control_frame("bye"), "bye");
    }
}
