//! The sockets of tokio, as dialling wants them.

use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use bytes::Bytes;
use phx_proto::adapter::{ByteStream, Meter, Net, Reads, WebSocket, socket_config, take_front};
#[cfg(feature = "tls")]
use phx_proto::rustls::{ClientConfig, pki_types::ServerName};
use phx_proto::upgrade::Upgraded;
use phx_proto::{Config, Opened};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(crate) struct TokioNet;

impl Net for TokioNet {
    type Stream = Io;

    #[cfg(feature = "tls")]
    const TLS: bool = true;

    async fn connect(address: SocketAddr) -> io::Result<Io> {
        let stream = TcpStream::connect(address).await?;
        // Channels send small frames that somebody waits for. Where the option cannot be set they
        // are merely later.
        let _ = stream.set_nodelay(true);
        Ok(Io::new(stream))
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[cfg(feature = "tls")]
    async fn secure(
        stream: Io,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    ) -> io::Result<Io> {
        let connector = tokio_rustls::TlsConnector::from(client);
        let meter = stream.meter.clone();
        let stream = Box::new(connector.connect(name, stream).await?);
        let leftover = Bytes::new();
        Ok(Io { stream, meter, counts: false, reads: None, leftover })
    }
}

/// The open WebSocket on a stream that was upgraded.
pub(crate) async fn open(
    mut stream: Io,
    upgraded: Upgraded,
    config: &Config,
) -> (WebSocket, Opened) {
    let meter = stream.meter.clone();
    // Given to tungstenite, it would become the read buffer: one that is as small as this is, and
    // that grows by a frame at a time, which makes a system call of every frame.
    stream.leftover = upgraded.leftover;
    #[cfg(feature = "websocket")]
    if config.transport == phx_proto::config::TransportKind::WebSocket {
        let leftover = core::mem::take(&mut stream.leftover);
        let opened = Opened { protocol: upgraded.protocol };
        return (WebSocket::native(stream, meter, &leftover, config), opened);
    }
    let reads = Reads::default();
    stream.reads = Some(reads.clone());
    let config = Some(socket_config(config));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, config).await;
    (WebSocket::new(socket, meter, reads), Opened { protocol: upgraded.protocol })
}

/// What a WebSocket can run over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The byte stream under the WebSocket. After a failed write it swallows what is written, so that
/// reading reaches the true end; see [`Meter`].
pub(crate) struct Io {
    stream: Box<dyn Stream>,
    /// With TLS, that of the stream under it: there the writes fail, and bytes are counted.
    pub(crate) meter: Meter,
    counts: bool,
    /// From when tungstenite reads.
    reads: Option<Reads>,
    /// What was read with the upgrade and comes first.
    leftover: Bytes,
}

impl Io {
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            meter: Meter::default(),
            counts: true,
            reads: None,
            leftover: Bytes::new(),
        }
    }

    /// Polls the stream outside of tokio's cooperative budget: `Pending` must mean that there is
    /// nothing to read, or no room to write. The driver has a budget of its own.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(Pin<&mut dyn Stream>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let stream = &mut *self.stream;
        let polled = poll_fn(|cx| poll(Pin::new(&mut *stream), cx));
        pin!(tokio::task::unconstrained(polled)).poll(cx)
    }
}

impl ByteStream for Io {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.poll(cx, |stream, cx| stream.poll_read(cx, &mut buffer)))?;
        let read = buffer.filled().len();
        if self.counts {
            self.meter.read(read);
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll(cx, |stream, cx| stream.poll_write(cx, bytes)))?;
        if self.counts {
            self.meter.wrote(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads.as_ref().is_some_and(|reads| !reads.may_read()) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.leftover.is_empty() {
            ready!(self.poll(cx, |stream, cx| stream.poll_read(cx, buffer)))?;
            if self.counts {
                self.meter.read(buffer.filled().len() - before);
            }
        } else {
            buffer.put_slice(&take_front(&mut self.leftover, buffer.remaining()));
        }
        if let Some(reads) = &self.reads {
            reads.took(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.meter.failed() {
            match ready!(self.poll(cx, |stream, cx| stream.poll_write(cx, bytes))) {
                Ok(written) => {
                    if self.counts {
                        self.meter.wrote(written);
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(_) => self.meter.fail(),
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.meter.failed()
            && ready!(self.poll(cx, |stream, cx| stream.poll_flush(cx))).is_err()
        {
            self.meter.fail();
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
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    use phx_proto::Ended;
    use phx_proto::Frame;
    use phx_proto::client::{Received, Transport};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// An open WebSocket and the server's end of its TCP connection.
    async fn pair(leftover: &'static [u8]) -> (WebSocket, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let config = Config::new("ws://localhost/").unwrap().max_message_bytes(1_024);
        let config = config.buffers(4_096, 0).unwrap();
        let leftover = Bytes::from_static(leftover);
        let upgraded = Upgraded { protocol: None, headers: Vec::new(), leftover };
        (open(Io::new(stream), upgraded, &config).await.0, server)
    }

    async fn receive(transport: &mut WebSocket) -> Received {
        loop {
            let received = poll_fn(|cx| transport.poll_receive(cx)).await;
            if !matches!(received, Received::Control | Received::Part) {
                return received;
            }
        }
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

    /// Bytes that are all there, and how often they were asked for.
    struct Prepared {
        bytes: Bytes,
        reads: Arc<AtomicUsize>,
    }

    impl AsyncRead for Prepared {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            buffer.put_slice(&take_front(&mut self.bytes, buffer.remaining()));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Prepared {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
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
    async fn what_came_with_the_upgrade_does_not_make_the_reads_after_it_small() {
        let frames = Bytes::from(b"\x81\x02hi".repeat(1_000));
        let reads = Arc::new(AtomicUsize::new(0));
        let stream = Io::new(Prepared { bytes: frames, reads: Arc::clone(&reads) });
        let config = Config::new("ws://localhost/").unwrap().buffers(1_024, 0).unwrap();
        let leftover = Bytes::from_static(b"\x81\x02hi");
        let upgraded = Upgraded { protocol: None, headers: Vec::new(), leftover };
        let mut transport = open(stream, upgraded, &config).await.0;
        let mut kept = Vec::new();
        for _ in 0..1_001 {
            kept.push(receive(&mut transport).await);
        }
        let reads = reads.load(Ordering::Relaxed);
        assert!(reads <= 8, "{reads} reads of 1,024 bytes for 4,000");
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
        // The answer to the ping cannot be written, which is no reason not to read on.
        let last = [b"\x89\0".as_slice(), &close_frame(1012)].concat();
        server.write_all(&last).await.unwrap();
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
}
