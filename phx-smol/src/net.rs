//! TCP and TLS streams of smol, for the dialler that the adapters share.

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
use smol::net::TcpStream;

pub(crate) struct SmolNet;

impl Net for SmolNet {
    type Stream = Wire;

    #[cfg(feature = "tls")]
    const TLS: bool = true;

    async fn connect(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        // Channels send small frames, which Nagle's algorithm would delay. If the option cannot be
        // set, they are only slower.
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    #[cfg(feature = "tls")]
    async fn secure(
        stream: Io<Wire>,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    ) -> io::Result<Wire> {
        let connector = futures_rustls::TlsConnector::from(client);
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

impl Wrap for SmolNet {
    type Socket = WebSocketStream<Io<Wire>>;

    async fn wrap(stream: Io<Wire>, role: Role, config: Option<WebSocketConfig>) -> Self::Socket {
        WebSocketStream::from_raw_socket(stream, role, config).await
    }
}

/// A byte stream under a WebSocket.
pub(crate) trait Bytes: smol::io::AsyncRead + smol::io::AsyncWrite + Send + Unpin {}

impl<S: smol::io::AsyncRead + smol::io::AsyncWrite + Send + Unpin> Bytes for S {}

/// A smol stream, plain or with TLS.
pub(crate) type Wire = Box<dyn Bytes>;
