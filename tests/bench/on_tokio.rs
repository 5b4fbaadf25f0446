//! The runtime functions of the benchmark for tokio: one thread, which all connections share.

use core::future::Future;
use core::time::Duration;
use std::net::TcpStream;

pub(crate) use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The common name for both runtimes.
pub(crate) type WebSocketStream = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

/// Wraps a stream that is already upgraded.
pub(crate) async fn web_socket(stream: TcpStream, config: WebSocketConfig) -> WebSocketStream {
    stream.set_nonblocking(true).expect("a socket can be non-blocking");
    let stream = tokio::net::TcpStream::from_std(stream).expect("tokio takes it");
    WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await
}

/// The target for the memory of an idle connection over tungstenite, in KiB.
pub(crate) const IDLE_TARGET: f64 = 12.0;

/// Runs a future on one thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(work)
}

/// Runs every future in a task of its own.
pub(crate) async fn all<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.expect("no task panics"));
    }
    done
}

pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}
