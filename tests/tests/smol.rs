//! The tests that both adapters share, run for smol.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use core::time::Duration;
    use std::io;
    use std::sync::{Arc, Mutex};

    pub(crate) use phx_smol as phx;
    pub(crate) use phx_smol::SmolRuntime as Runtime;
    use phx_tests::waiting::TEST_DEADLINE;
    use smol::future::FutureExt;
    use smol::io::{AsyncRead, AsyncWrite};

    use crate::adapter::{Script, Spawn};

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<smol::net::TcpStream> {
        smol::net::TcpStream::connect(addr).await
    }

    pub(crate) async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    /// Runs something in an executor of its own, and then drops its unfinished tasks.
    ///
    /// The drop of an executor is not enough: a task that another thread wakes at that moment can enter
    /// the queue after the executor has emptied it, and is then never dropped.
    pub(crate) fn in_a_runtime_that_ends<T>(work: impl AsyncFnOnce(Spawn) -> T) -> T {
        let executor = Arc::new(smol::Executor::new());
        let tasks = Arc::new(Mutex::new(Vec::new()));
        // The tasks hold this closure, so it must hold neither the executor nor the tasks.
        let (weak, list) = (Arc::downgrade(&executor), Arc::downgrade(&tasks));
        let spawn: Spawn = Arc::new(move |task| {
            let task = weak.upgrade().expect("the executor runs").spawn(task);
            list.upgrade().expect("it is not over").lock().unwrap().push(task);
        });
        let done = smol::block_on(executor.run(work(spawn)));
        // Cancels them all at once, and then waits until their futures are dropped.
        drop(tasks.lock().unwrap().split_off(0));
        smol::block_on(executor.run(async {
            while !executor.is_empty() {
                smol::future::yield_now().await;
            }
        }));
        done
    }

    /// Runs a test, and fails if it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        smol::block_on(test.or(async {
            smol::Timer::after(TEST_DEADLINE).await;
            panic!("it hangs")
        }))
    }

    /// Like `block_on`, while the only blocking thread of the process is occupied until the end.
    pub(crate) fn without_blocking_threads<T>(test: impl Future<Output = T>) -> T {
        assert_eq!(std::env::var("BLOCKING_MAX_THREADS").as_deref(), Ok("1"));
        let (keep, ended) = std::sync::mpsc::channel::<()>();
        smol::unblock(move || ended.recv()).detach();
        let done = block_on(test);
        drop(keep);
        done
    }

    /// Runs something in the background.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    /// Does nothing: a smol task has no cooperative budget.
    pub(crate) fn exhaust_budget() {}

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
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.0.read(cx, buffer)
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

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
