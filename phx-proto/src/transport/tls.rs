//! The TLS handshake, and error messages for its failures.

use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::time::Duration;
use std::io;
use std::time::UNIX_EPOCH;

use humantime::format_rfc3339_seconds;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::{Io, Net};
use crate::config::{Config, Tls, TlsError, Uri};
use crate::event::cause::{Cause, TlsKind};

/// Performs the TLS handshake with the server of `uri`.
pub(super) async fn secure<N: Net>(
    stream: Io<N::Stream>,
    uri: &Uri,
    config: &Config,
) -> Result<Io<N::Stream>, Cause> {
    let unsupported = |error: TlsError| Cause::Unsupported { message: error.to_string() };
    let tls = config.tls_in_use().map_err(unsupported)?;
    let name = tls.name_for(uri.host()).map_err(unsupported)?;
    let meter = stream.meter().clone();
    let mut securing = pin!(N::secure(stream, name, tls.client()));
    let secured = poll_fn(|cx| {
        meter.allow_tls_reads();
        securing.as_mut().poll(cx)
    });
    let secured = secured.await;
    let secured =
        secured.map_err(|error| failure(uri, config, &error).unwrap_or_else(|| lost(uri, &error)));
    Ok(Io::above(secured?, meter))
}

/// The cause of an error of TLS; `None` for an error of the connection under it. With TLS 1.3 a
/// server checks the client's certificate after the handshake, so an upgrade can also fail with an
/// error of TLS.
pub(super) fn failure(uri: &Uri, config: &Config, error: &io::Error) -> Option<Cause> {
    let error = error.get_ref()?.downcast_ref()?;
    let (kind, message) = problem(uri.host(), config, error);
    Some(Cause::Tls { kind, message })
}

fn lost(uri: &Uri, error: &io::Error) -> Cause {
    let message = format!(
        "the connection to {:?} was lost in the TLS handshake ({error}): perhaps the port \
         does not use TLS (then use a ws:// address), or a proxy or a firewall closed the connection",
        uri.host()
    );
    Cause::Tls { kind: TlsKind::Lost, message }
}

/// Description of the trusted authorities for an error message.
fn trusted(config: &Config) -> &str {
    config.tls_in_use().map_or("no authority", Tls::trusted)
}

/// Description of the client certificate for an error message, if there is one.
pub(super) fn shown(config: &Config) -> Option<&str> {
    config.tls_in_use().ok()?.shown()
}

/// The command that creates a self-signed certificate for a server.
fn command(host: &str) -> String {
    let kind = if host.parse::<core::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!(
        "`openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 365 -subj \
         /CN={host} -addext subjectAltName={kind}:{host} -addext basicConstraints=critical,CA:FALSE`"
    )
}

fn problem(host: &str, config: &Config, error: &Error) -> (TlsKind, String) {
    let not_accepted = format!("the certificate of {host:?} is not accepted: ");
    match error {
        Error::InvalidCertificate(error) => {
            let (kind, what) = match error {
                CertificateError::UnknownIssuer => (
                    TlsKind::UnknownIssuer,
                    format!(
                        "it is signed by an authority that is not trusted; the client trusts {}",
                        trusted(config)
                    ),
                ),
                CertificateError::BadSignature => (
                    TlsKind::UnknownIssuer,
                    format!(
                        "its signature is wrong: {} include an authority with the issuer's name, \
                         but that authority did not sign it, or the server does not hold the \
                         certificate's key; if the authority was created again, \
                         give the client its new certificate",
                        trusted(config)
                    ),
                ),
                CertificateError::NotValidForNameContext { presented, .. } => {
                    (TlsKind::WrongName, wrong_name(host, presented))
                }
                CertificateError::NotValidForName => {
                    (TlsKind::WrongName, "it is for another host name".to_owned())
                }
                CertificateError::ExpiredContext { time, not_after } => (
                    TlsKind::Expired,
                    format!(
                        "it expired on {}, and this machine's clock is at {}: renew it, or set the \
                         clock",
                        date(*not_after),
                        date(*time)
                    ),
                ),
                CertificateError::NotValidYetContext { time, not_before } => (
                    TlsKind::NotYetValid,
                    format!(
                        "it is not valid before {}, and this machine's clock is at {}: set the clock, \
                         or wait",
                        date(*not_before),
                        date(*time)
                    ),
                ),
                error => (TlsKind::BadCertificate, bad_certificate(host, error)),
            };
            (kind, not_accepted + &what)
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            TlsKind::NotTls,
            format!(
                "the server at {host:?} does not speak TLS: use a ws:// address, or look for a proxy \
                 on the path ({error})"
            ),
        ),
        Error::AlertReceived(AlertDescription::CertificateRequired) => (
            TlsKind::CertificateRequired,
            format!("{host:?} requires a client certificate ({error})"),
        ),
        // TLS 1.2 has no alert of its own for a missing client certificate.
        Error::AlertReceived(AlertDescription::HandshakeFailure) if shown(config).is_none() => {
            let message = format!(
                "{host:?} refuses the handshake: it may require a client certificate, or ciphers \
                 that the client does not offer ({error})"
            );
            (TlsKind::Other, message)
        }
        Error::AlertReceived(alert)
            if is_about_certificate(*alert)
                // `DecryptError` is about a signature in the certificate, or one made with its key.
                || *alert == AlertDescription::DecryptError
                    && shown(config).is_some() =>
        {
            let shown = shown(config).unwrap_or("the client certificate");
            let why = match alert {
                AlertDescription::DecryptError => {
                    "a signature in it, or one made with its key, is wrong"
                }
                AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
                AlertDescription::UnknownCA => "the server does not know its issuer",
                _ => "the server does not accept it",
            };
            let look = "inspect it with `openssl x509 -noout -dates -issuer -in FILE`";
            let message = format!("{host:?} refuses {shown}: {why}; {look} ({error})");
            (TlsKind::CertificateRefused, message)
        }
        _ => (TlsKind::Other, format!("the handshake with {host:?} failed: {error}")),
    }
}

fn wrong_name(host: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "it has no subjectAltName, and its common name is ignored: create it with {}",
            command(host)
        );
    }
    // The names are debug text: `DnsName("backend.internal")`, `IpAddress(10.0.0.1)`.
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let shown = presented.iter().take(8).map(bare).collect::<Vec<_>>().join(", ");
    let more = if presented.len() > 8 { " and others" } else { "" };
    format!("it is for other names: {shown}{more}")
}

/// Description of an invalid certificate. rustls wraps some errors of webpki in an opaque type, so they are
/// recognised by their text.
fn bad_certificate(host: &str, error: &CertificateError) -> String {
    let shown = format!("{error:?}");
    if shown.contains("CaUsedAsEndEntity") {
        return format!(
            "it is marked as an authority (CA:TRUE), the default of `openssl req -x509`, but a \
             server's certificate must not be an authority: create it with {}",
            command(host)
        );
    }
    if shown.contains("UnsupportedCertVersion") {
        return format!(
            "it has X.509 version 1, and version 3 is required: create it with {}",
            command(host)
        );
    }
    error.to_string()
}

const fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// The date in UTC.
fn date(time: UnixTime) -> String {
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;
    let since = Duration::from_secs(time.as_secs().min(LAST));
    let mut date = format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
    date.truncate("0000-00-00".len());
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server may refuse the client certificate, and its alert names the reason.
    #[test]
    fn refused_client_certificate_names_reason() {
        let config = Config::new("wss://example.com/socket/websocket").expect("a good URI");
        for (alert, why) in [
            (AlertDescription::CertificateExpired, "it has expired, or is not valid yet"),
            (AlertDescription::UnknownCA, "the server does not know its issuer"),
            (AlertDescription::CertificateRevoked, "the server does not accept it"),
        ] {
            let (kind, message) = problem("example.com", &config, &Error::AlertReceived(alert));
            assert_eq!(kind, TlsKind::CertificateRefused);
            let expected = format!("\"example.com\" refuses the client certificate: {why}; ");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    /// Expected dates are from `date -u -d @N +%F`.
    #[test]
    fn date_matches_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (978_307_200, "2001-01-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
            (u64::MAX, "9999-12-31"),
        ] {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            assert_eq!(date(time), day);
        }
    }
}

#[cfg(all(test, feature = "ring"))]
mod tickets {
    use core::net::SocketAddr;
    use core::pin::Pin;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use core::task::{Context, Poll, Waker, ready};
    use std::sync::Arc;
    use std::task::Wake;

    use bytes::Bytes;
    use futures_core::Stream;
    use futures_io::{AsyncRead, AsyncWrite};
    use futures_sink::Sink;
    use tungstenite::Message;

    use super::*;
    use crate::client::{Received, Transport};
    use crate::transport::incoming::Reads;
    use crate::transport::streams::Tungstenite;
    use crate::transport::test_stream::TestStream;
    use crate::wire::Frame;

    /// A read that stands for a session ticket, a record without data.
    const TICKET: &[u8] = b"ticket";

    /// A TLS stream without encryption. Like the real ones, it reads until it has data or the stream under it
    /// is pending.
    struct TestTls(Io<TestStream>);

    impl AsyncRead for TestTls {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            loop {
                let mut record = [0; 64];
                let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut record))?;
                let data = &record[..read];
                if data != TICKET {
                    buffer[..read].copy_from_slice(data);
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }

    impl AsyncWrite for TestTls {
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

        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_close(cx)
        }
    }

    /// A connection on which a server has sent this many session tickets.
    fn with_tickets(count: usize) -> TestStream {
        let stream = TestStream::default();
        stream.ends().reads = vec![TICKET.to_vec(); count].into();
        stream
    }

    struct TestNet;

    impl Net for TestNet {
        type Stream = TestStream;

        async fn connect(_: SocketAddr) -> io::Result<TestStream> {
            Ok(TestStream::default())
        }

        async fn sleep(_: Duration) {}

        /// At the end of the handshake TLS reads on, as long as there is something to read.
        async fn secure(
            stream: Io<TestStream>,
            _: rustls::pki_types::ServerName<'static>,
            _: Arc<rustls::ClientConfig>,
        ) -> io::Result<TestStream> {
            let mut tls = TestTls(stream);
            poll_fn(|cx| Pin::new(&mut tls).poll_read(cx, &mut [])).await?;
            Ok(TestStream::default())
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each poll ends, and wakes the task for the next one.
    fn assert_ends(mut poll: impl FnMut(&mut Context<'_>) -> bool) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        for polls in 1..=3 {
            assert!(poll(&mut Context::from_waker(&waker)));
            assert_eq!(woken.0.load(Ordering::Relaxed), polls);
        }
    }

    /// A server may send session tickets before the client has sent the end of the handshake.
    #[test]
    fn tickets_in_handshake_do_not_block_task() {
        let config = Config::new("wss://backend/").expect("a valid URI");
        let stream = Io::new(with_tickets(1_000));
        let mut securing = pin!(secure::<TestNet>(stream, config.uri(), &config));
        assert_ends(|cx| securing.as_mut().poll(cx).is_pending());
    }

    #[test]
    fn tickets_after_handshake_do_not_block_task() {
        let stream = Io::new(with_tickets(1_000));
        let meter = stream.meter().clone();
        let mut above = Io::above(TestTls(stream), meter);
        assert_ends(|cx| Pin::new(&mut above).poll_read(cx, &mut [0]).is_pending());
    }

    /// A text frame.
    const FRAME: &[u8] = b"\x81\x02hi";

    /// The stream of an open WebSocket whose server has sent tickets and then a frame.
    fn upgraded() -> Io<TestTls> {
        let stream = with_tickets(40);
        stream.ends().reads.push_back(FRAME.to_vec());
        let stream = Io::new(stream);
        let meter = stream.meter().clone();
        Io::above(TestTls(stream), meter)
    }

    /// The driver treats a pending transport as empty and expires deadlines. So a transport must not be
    /// pending before it has read the frame behind the tickets.
    fn assert_frame_behind_tickets(transport: &mut dyn Transport, frame: &Frame) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert_eq!(transport.poll_receive(&mut cx), Poll::Ready(Received::Part));
        }
        let received = transport.poll_receive(&mut cx);
        assert_eq!(received, Poll::Ready(Received::Frame(frame.clone())));
        assert!(transport.poll_receive(&mut cx).is_pending());
    }

    /// A stand-in for tungstenite's WebSocket: each read is a message.
    struct Unframed(Io<TestTls>);

    impl Stream for Unframed {
        type Item = Result<Message, tungstenite::Error>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let mut bytes = [0; 64];
            let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut bytes))?;
            Poll::Ready(Some(Ok(Message::Binary(Bytes::copy_from_slice(&bytes[..read])))))
        }
    }

    impl Sink<Message> for Unframed {
        type Error = tungstenite::Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(self: Pin<&mut Self>, _: Message) -> Result<(), Self::Error> {
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn tungstenite_reads_frame_behind_tickets() {
        let (stream, reads) = (upgraded(), Reads::default());
        let meter = stream.meter().clone();
        let socket = Unframed(stream.with_reads(reads.clone()));
        let mut transport = Tungstenite::new(socket, meter, reads, 1_000);
        assert_frame_behind_tickets(&mut transport, &Frame::Binary(FRAME.into()));
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn native_reads_frame_behind_tickets() {
        use crate::transport::Native;
        use crate::websocket::upgrade::Upgraded;
        let config = Config::new("wss://backend/").expect("a valid URI");
        let mut transport = Native::new(upgraded(), &Upgraded::default(), &config);
        assert_frame_behind_tickets(&mut transport, &Frame::from("hi"));
    }
}
