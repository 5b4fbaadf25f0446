//! The runtime functions of the benchmark for smol: its global executor, which has one thread.

use core::future::Future;
use core::time::Duration;
use std::net::TcpStream;

pub(crate) use async_tungstenite::tungstenite;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The common name for both runtimes.
pub(crate) type WebSocketStream = async_tungstenite::WebSocketStream<smol::net::TcpStream>;

/// Wraps a stream that is already upgraded.
pub(crate) async fn web_socket(stream: TcpStream, config: WebSocketConfig) -> WebSocketStream {
    let stream = smol::Async::new(stream).expect("smol takes it").into();
    WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await
}

/// The target for the memory of an idle connection over tungstenite, in KiB.
pub(crate) const IDLE_TARGET: f64 = 14.0;

/// Runs a future on the thread of the executor, and waits for it.
pub(crate) fn block_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    smol::block_on(smol::spawn(work))
}

/// Runs every future in a task of its own.
pub(crate) async fn all<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = work.into_iter().map(smol::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await);
    }
    done
}

pub(crate) async fn sleep(duration: Duration) {
    smol::Timer::after(duration).await;
}
