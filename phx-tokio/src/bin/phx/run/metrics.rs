//! Metrics of `phx run`: a page over HTTP, and a periodic event.
//!
//! hyper serves HTTP, one request per connection. A client that is slow to send its request, or
//! that does not read the response, is disconnected after a timeout. When the maximum number of
//! connections is open, a new one replaces the oldest, so slow clients cannot block a scraper.

use core::convert::Infallible;
use core::future::{poll_fn, ready};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use phx_tokio::service::Supervisor;
use phx_tokio::service::metrics;
use phx_tokio::service::metrics::{json, openmetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::reports::Reports;
use crate::exit::Failed;
use crate::log::log;

/// The maximum size of the head of a request, in bytes.
const HEAD_MAX: usize = 8 << 10;
/// The timeout for receiving the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout for a whole connection; a client that does not read stays connected until then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the client may take to close its end after the response.
const LINGER: Duration = Duration::from_secs(1);
/// The maximum number of open connections.
const CONNECTIONS_MAX: usize = 16;
/// The pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Binds the port before anything else starts, so that a port in use is reported at once.
pub(super) async fn bind(addr: SocketAddr) -> Result<TcpListener, Failed> {
    let bad = |error: std::io::Error| Failed::Local(format!("metrics: {addr}: {error}"));
    let listener = TcpListener::bind(addr).await.map_err(bad)?;
    let addr = listener.local_addr().map_err(bad)?;
    log(&format!("metrics: http://{addr}/metrics"));
    if !addr.ip().to_canonical().is_loopback() {
        log(&format!(
            "warning: metrics: {addr} is not a loopback address: anyone who can reach it can read \
             the metrics, without TLS and without a password"
        ));
    }
    Ok(listener)
}

/// Serves the page until the future is dropped.
pub(super) async fn serve(listener: TcpListener, supervisor: Supervisor) -> ! {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                oldest_first.retain(|connection| !connection.is_finished());
                if oldest_first.len() >= CONNECTIONS_MAX {
                    if let Some(oldest) = oldest_first.pop_front() {
                        oldest.abort();
                    }
                }
                oldest_first.push_back(connections.spawn(converse(stream, supervisor.clone())));
            }
            Err(error) => {
                // Usually the cause is too many open files. The pause avoids a busy loop.
                log(&format!("metrics: {error}"));
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Prints the metrics as an event, periodically.
pub(super) async fn print_periodically(
    every: Duration,
    supervisor: Supervisor,
    reports: Reports,
) -> ! {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let connections = json(&supervisor.metrics());
        let data = [("connections", connections)].into_iter().collect();
        reports.offer("phx.metrics", data);
    }
}

/// Serves one connection.
async fn converse(stream: TcpStream, supervisor: Supervisor) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, || openmetrics(&supervisor.metrics()));
        ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    // An error is ignored: it concerns only this client, which has its response or has gone.
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx).map(|_| ()));
    if timeout(IDLE_TIMEOUT, served).await.is_err() {
        return;
    }
    // Reads what the client still sends: closing with unread bytes would reset the connection and
    // could discard the response.
    let mut stream = connection.into_parts().io.into_inner();
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    let _ =
        timeout(LINGER, async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} }).await;
}

fn answer<B>(request: &Request<B>, page: impl FnOnce() -> String) -> Response<Full<Bytes>> {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match request.uri().path() {
        _ if !is_read => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are supported\n".into())
        }
        "/metrics" => (StatusCode::OK, HeaderValue::from_static(metrics::CONTENT_TYPE), page()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "the metrics are at /metrics\n".into()),
    };
    // The response to HEAD has the length of the page; hyper omits the body.
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_depends_on_method_and_path() {
        for (method, path, status) in [
            (Method::GET, "/metrics", 200),
            (Method::HEAD, "/metrics?x=1", 200),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/", 404),
            (Method::POST, "/metrics", 405),
            (Method::DELETE, "/", 405),
        ] {
            let request = Request::builder().method(method.clone()).uri(path).body(()).unwrap();
            let answer = answer(&request, || "page".to_owned());
            assert_eq!(answer.status(), status, "{method} {path}");
            assert_eq!(answer.headers().contains_key(ALLOW), status == 405);
        }
    }
}
