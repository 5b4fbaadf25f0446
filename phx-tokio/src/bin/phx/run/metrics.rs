//! Metrics of `phx run`: a page over HTTP, and an event every so often.
//!
//! As little of HTTP/1.1 as a scraper needs: one request a connection, GET or HEAD, answered and
//! closed; a head of at most [`HEAD_MAX`] bytes that comes within [`PATIENCE`].

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use phx_tokio::Supervisor;
use phx_tokio::metrics::{CONTENT_TYPE, json, openmetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use super::reports::{Reports, log};
use crate::exit::Failed;

/// The largest head of a request.
const HEAD_MAX: usize = 8 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a request may take, answer included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time; more wait in the queue of the system.
const REQUESTS_MAX: usize = 16;

/// Takes the port, so that one that is taken already is known before anything has begun.
pub(super) async fn bind(addr: SocketAddr) -> Result<TcpListener, Failed> {
    let bad = |error: std::io::Error| Failed::Local(format!("metrics: {addr}: {error}"));
    let listener = TcpListener::bind(addr).await.map_err(bad)?;
    log(&format!("metrics: http://{}/metrics", listener.local_addr().map_err(bad)?));
    Ok(listener)
}

/// Serves the page until the future is dropped.
pub(super) async fn serve(listener: TcpListener, supervisor: Supervisor) -> ! {
    let room = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        // Nobody closes it.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let supervisor = supervisor.clone();
                tokio::spawn(async move {
                    // Whoever asks and does not read, or does not ask, is not waited for.
                    let _ = timeout(PATIENCE, answer(stream, &supervisor)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, say: it passes, and is not tried in a tight loop.
                log(&format!("metrics: {error}"));
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Tells the metrics as an event, again and again.
pub(super) async fn tell(every: Duration, supervisor: Supervisor, reports: Reports) -> ! {
    let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let connections = json(&supervisor.metrics());
        let data = [("connections".to_owned(), connections.into())].into_iter().collect();
        reports.tell("phx.metrics", None, data).await;
    }
}

async fn answer(mut stream: TcpStream, supervisor: &Supervisor) -> std::io::Result<()> {
    let mut head = Vec::new();
    let request = loop {
        if let Some(request) = Request::read(&head) {
            break request;
        }
        if head.len() >= HEAD_MAX {
            break Request::TooLarge;
        }
        let left = u64::try_from(HEAD_MAX - head.len()).unwrap_or(0);
        if (&mut stream).take(left).read_buf(&mut head).await? == 0 {
            // It went away, or will say no more.
            return Ok(());
        }
    };
    stream.write_all(&request.response(|| openmetrics(&supervisor.metrics()))).await?;
    stream.shutdown().await?;
    // What it still sends is read: closing on unread bytes would reset the answer away.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What is asked for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Page { body: bool },
    NotFound,
    NotAllowed,
    TooLarge,
    Bad,
}

impl Request {
    /// None while the head is not complete.
    fn read(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Partial) => return None,
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Some(Self::TooLarge),
            Err(_) => return Some(Self::Bad),
        }
        let path = request.path.unwrap_or_default().split('?').next();
        Some(match (request.method, path) {
            (Some(method @ ("GET" | "HEAD")), Some("/metrics")) => {
                Self::Page { body: method == "GET" }
            }
            (Some("GET" | "HEAD"), _) => Self::NotFound,
            _ => Self::NotAllowed,
        })
    }

    fn response(self, page: impl FnOnce() -> String) -> Vec<u8> {
        let plain = "text/plain; charset=utf-8";
        let (status, more, kind, text) = match self {
            Self::Page { .. } => ("200 OK", "", CONTENT_TYPE, page()),
            Self::NotFound => ("404 Not Found", "", plain, "the metrics are at /metrics\n".into()),
            Self::NotAllowed => {
                let allow = "Allow: GET, HEAD\r\n";
                ("405 Method Not Allowed", allow, plain, "GET and HEAD are served\n".into())
            }
            Self::TooLarge => {
                let status = "431 Request Header Fields Too Large";
                (status, "", plain, "the head of the request is too large\n".into())
            }
            Self::Bad => ("400 Bad Request", "", plain, "this is no HTTP/1.1 request\n".into()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n{more}Connection: close\r\n\r\n",
            text.len()
        );
        let mut response = head.into_bytes();
        if self != (Self::Page { body: false }) {
            response.extend_from_slice(text.as_bytes());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        for (head, request) in [
            ("", None),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Request::Page { body: true })),
            ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", Some(Request::Page { body: true })),
            ("HEAD /metrics HTTP/1.0\r\n\r\n", Some(Request::Page { body: false })),
            ("GET / HTTP/1.1\r\n\r\n", Some(Request::NotFound)),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some(Request::NotAllowed)),
            ("\u{16}\u{3}\u{1}", Some(Request::Bad)),
            ("GET /metrics HTTP/9\r\n\r\n", Some(Request::Bad)),
        ] {
            assert_eq!(Request::read(head.as_bytes()), request, "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(Request::read(many.as_bytes()), Some(Request::TooLarge));
    }
}
