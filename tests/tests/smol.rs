//! The adapter for smol, held to what both adapters must do.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::time::Duration;
    use std::io;
    use std::sync::Arc;

    pub(crate) use phx_smol as phx;
    pub(crate) use phx_smol::SmolRuntime as Runtime;
    use phx_tests::waiting::TEST_DEADLINE;
    use smol::future::FutureExt;

    use crate::adapter::Spawn;

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<smol::net::TcpStream> {
        smol::net::TcpStream::connect(addr).await
    }

    pub(crate) async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    /// Runs something in an executor of its own, which is dropped with all of its tasks in whatever
    /// they are doing.
    pub(crate) fn in_a_runtime_that_ends<T>(work: impl AsyncFnOnce(Spawn) -> T) -> T {
        let executor = Arc::new(smol::Executor::new());
        // The tasks hold this, so it must not hold the executor.
        let weak = Arc::downgrade(&executor);
        let spawn: Spawn = Arc::new(move |task| {
            weak.upgrade().expect("the executor runs").spawn(task).detach();
        });
        let done = smol::block_on(executor.run(work(spawn)));
        assert_eq!(Arc::strong_count(&executor), 1);
        drop(executor);
        done
    }

    /// Runs a test, and fails it when it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        smol::block_on(test.or(async {
            smol::Timer::after(TEST_DEADLINE).await;
            panic!("it hangs")
        }))
    }
}
