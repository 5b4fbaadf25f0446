//! The tests that both adapters share, run for tokio.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::pin::{Pin, pin};
    use core::task::{Context, Poll, Waker};
    use core::time::Duration;
    use std::io;
    use std::sync::Arc;

    use phx_tests::waiting::{DEADLINE, TEST_DEADLINE};
    pub(crate) use phx_tokio as phx;
    pub(crate) use phx_tokio::TokioRuntime as Runtime;

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use crate::adapter::{Script, Spawn};

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(addr).await
    }

    pub(crate) async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs something in a runtime of its own, which is then shut down with all of its unfinished tasks.
    pub(crate) fn in_a_runtime_that_ends<T>(work: impl AsyncFnOnce(Spawn) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let spawn: Spawn = Arc::new(|task| drop(tokio::spawn(task)));
        let done = runtime.block_on(work(spawn));
        runtime.shutdown_timeout(DEADLINE);
        done
    }

    /// Runs a test, and fails if it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(TEST_DEADLINE, test).await.expect("it hangs") })
    }

    /// Like `block_on`, while the only blocking thread of the runtime is occupied until the end.
    pub(crate) fn without_blocking_threads<T>(test: impl Future<Output = T>) -> T {
        let (_keep, ended) = std::sync::mpsc::channel::<()>();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().max_blocking_threads(1).build().unwrap();
        drop(runtime.spawn_blocking(move || ended.recv()));
        let limit = Duration::from_secs(60);
        let done = runtime.block_on(async { tokio::time::timeout(limit, test).await });
        runtime.shutdown_background();
        done.expect("it ends within 60 s")
    }

    /// Runs something in the background.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }

    /// Uses up the cooperative budget of the current task.
    pub(crate) fn exhaust_budget() {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            if pin!(tokio::task::consume_budget()).poll(&mut cx).is_pending() {
                return;
            }
        }
    }

    /// A stream whose peer is a script of the test.
    pub(crate) struct Scripted(Box<dyn Script>);

    impl Scripted {
        pub(crate) fn new(script: impl Script) -> Self {
            Self(Box::new(script))
        }
    }

    impl AsyncRead for Scripted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = self.0.read(cx, buffer.initialize_unfilled());
            read.map_ok(|length| buffer.advance(length))
        }
    }

    impl AsyncWrite for Scripted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.write(bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
