//! A server's WebSocket with compression, in place of tungstenite, which has none.

use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_sink::Sink;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, Utf8Bytes};

use crate::config::{Compression, MESSAGE_BYTES_MAX};
use crate::transport::Io;
use crate::websocket::{Endpoint, Event, Limits, State, codecs};
use crate::wire::Frame;

/// The number of bytes that are read or masked at once.
const CHUNK: usize = 16 << 10;

/// A WebSocket with the interface of a wrapper of tungstenite.
pub(super) struct Socket<S> {
    stream: Io<S>,
    endpoint: Endpoint,
    read: BytesMut,
    write: BytesMut,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: Io<S>, agreed: &Compression) -> Self {
        let endpoint = Endpoint::server(&limits()).compressed(agreed);
        Self { stream, endpoint, read: BytesMut::new(), write: BytesMut::new() }
    }
}

fn limits() -> Limits {
    Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        frame_bytes_max: MESSAGE_BYTES_MAX,
        outbox_bytes_max: usize::MAX,
        ..Limits::default()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            while !self.write.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.write))?;
                self.write.advance(written);
            }
            // A server does not mask.
            if codecs::poll_transmit(&mut self.endpoint, &mut self.write, CHUNK, || [0; 4]) == 0 {
                return Pin::new(&mut self.stream).poll_flush(cx).map_err(Error::from);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Socket<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Self { endpoint, read, .. } = &mut *self;
            let message = match codecs::poll_event(endpoint, read) {
                Ok(Some(Event::Message(Frame::Text(text)))) => Utf8Bytes::try_from(text)
                    .map(Message::Text)
                    .map_err(|_| Error::ConnectionClosed),
                Ok(Some(Event::Message(Frame::Binary(bytes)))) => Ok(Message::Binary(bytes)),
                Ok(Some(Event::Ping(payload))) => Ok(Message::Ping(payload)),
                Ok(Some(Event::Pong(payload))) => Ok(Message::Pong(payload)),
                Ok(Some(Event::Close(close))) => {
                    let reason = close.reason.into();
                    let frame = close.code.map(|code| CloseFrame { code: code.into(), reason });
                    Ok(Message::Close(frame))
                }
                Ok(Some(Event::Opened(_) | Event::Acknowledged(_))) => continue,
                Ok(None) if endpoint.state() == State::Closed => return Poll::Ready(None),
                Ok(None) => {
                    let mut chunk = [0; CHUNK];
                    match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))? {
                        0 => return Poll::Ready(None),
                        length => self.read.extend_from_slice(&chunk[..length]),
                    }
                    continue;
                }
                Err(_) => Err(Error::ConnectionClosed),
            };
            // Writes the replies to pings and closes.
            let _ = self.poll_write_out(cx);
            return Poll::Ready(Some(message));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Socket<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.endpoint.queued_bytes() < CHUNK {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_out(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let frame = match message {
            Message::Close(frame) => {
                let (code, reason) = frame.map_or((1000, Utf8Bytes::default()), |frame| {
                    (frame.code.into(), frame.reason)
                });
                let _ = self.endpoint.close(code, &reason);
                return Ok(());
            }
            Message::Frame(frame) if frame.header().opcode == OpCode::Data(Data::Text) => {
                Frame::Text(frame.into_payload())
            }
            message => Frame::Binary(message.into_data()),
        };
        // A test may send text that is not UTF-8.
        self.endpoint.send_unchecked(frame);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_write_out(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let _ = self.endpoint.close(1000, "");
        self.poll_write_out(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default limit of an `Endpoint` is 64 MiB. Over a socket of an adapter, the server's task
    /// would keep the only thread of its executor busy for more than a second.
    #[test]
    fn server_receives_very_long_message() {
        let agreed = Compression::balanced();
        let sent = Frame::Binary(vec![b'x'; 65 << 20].into());
        let mut client = Endpoint::client(&limits()).compressed(&agreed);
        let mut server = Endpoint::server(&limits()).compressed(&agreed);
        client.send(sent.clone()).expect("an open endpoint");
        let mut wire = BytesMut::new();
        let received = loop {
            let written = codecs::poll_transmit(&mut client, &mut wire, usize::MAX, || [0; 4]);
            match codecs::poll_event(&mut server, &mut wire).expect("a valid frame") {
                Some(Event::Message(frame)) => break frame,
                event => assert!(written > 0 || event.is_some(), "the message does not arrive"),
            }
        };
        assert!(received == sent, "the message has changed");
    }
}
