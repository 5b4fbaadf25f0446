//! The sockets of smol, as dialling wants them.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use phx_proto::adapter::{Io, Net, Wrap};
#[cfg(feature = "tls")]
use phx_proto::rustls::{ClientConfig, pki_types::ServerName};
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

pub(crate) struct SmolNet;

impl Net for SmolNet {
    type Stream = Box<dyn Stream>;

    #[cfg(feature = "tls")]
    const TLS: bool = true;

    async fn connect(address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        // Channels send small frames that somebody waits for. Where the option cannot be set they
        // are merely later.
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    #[cfg(feature = "tls")]
    async fn secure(
        stream: Io<Box<dyn Stream>>,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    ) -> io::Result<Box<dyn Stream>> {
        let connector = futures_rustls::TlsConnector::from(client);
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

impl Wrap for SmolNet {
    type Socket = WebSocketStream<Io<Box<dyn Stream>>>;

    async fn wrap(
        stream: Io<Box<dyn Stream>>,
        role: Role,
        config: Option<WebSocketConfig>,
    ) -> Self::Socket {
        WebSocketStream::from_raw_socket(stream, role, config).await
    }
}

/// What a WebSocket can run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
