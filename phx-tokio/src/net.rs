//! TCP and TLS streams of tokio, for the dialler that the adapters share.

use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use futures_io::{AsyncRead, AsyncWrite};
use phx_proto::adapter::{Io, Net, Wrap};
#[cfg(feature = "tls")]
use phx_proto::rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(crate) struct TokioNet;

impl Net for TokioNet {
    type Stream = Stream;

    #[cfg(feature = "tls")]
    const TLS: bool = true;

    async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        // Channels send small frames, which Nagle's algorithm would delay. If the option cannot be
        // set, they are only slower.
        let _ = stream.set_nodelay(true);
        Ok(Stream::new(stream))
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[cfg(feature = "tls")]
    async fn secure(
        stream: Io<Stream>,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    ) -> io::Result<Stream> {
        let connector = tokio_rustls::TlsConnector::from(client);
        Ok(Stream::new(connector.connect(name, Tokio(stream)).await?))
    }
}

impl Wrap for TokioNet {
    type Socket = WebSocketStream<Tokio>;

    async fn wrap(
        stream: Io<Stream>,
        role: Role,
        config: Option<WebSocketConfig>,
    ) -> WebSocketStream<Tokio> {
        WebSocketStream::from_raw_socket(Tokio(stream), role, config).await
    }
}

/// A byte stream under a WebSocket.
trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Bytes for S {}

/// A tokio stream with the traits of `futures_io`.
///
/// It is polled outside tokio's cooperative budget: `Pending` must mean that there is nothing to read
/// or no capacity to write. The driver has its own budget.
pub(crate) struct Stream(Box<dyn Bytes>);

impl Stream {
    pub(crate) fn new(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self(Box::new(stream))
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(Pin<&mut dyn Bytes>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let polled = poll_fn(|cx| poll(Pin::new(&mut *self.0), cx));
        pin!(tokio::task::unconstrained(polled)).poll(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.poll(cx, |stream, cx| stream.poll_read(cx, &mut buffer)))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

/// The stream under a WebSocket or TLS, with the traits of tokio.
pub(crate) struct Tokio(pub(crate) Io<Stream>);

impl tokio::io::AsyncRead for Tokio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // tungstenite and rustls pass initialized memory, so this costs nothing.
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Tokio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
