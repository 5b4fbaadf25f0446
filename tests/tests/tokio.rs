//! The adapter for tokio, held to what both adapters must do.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::time::Duration;
    use std::io;
    use std::sync::Arc;

    use phx_tests::waiting::{DEADLINE, TEST_DEADLINE};
    pub(crate) use phx_tokio as phx;
    pub(crate) use phx_tokio::TokioRuntime as Runtime;

    use crate::adapter::Spawn;

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(addr).await
    }

    pub(crate) async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs something in a runtime of its own, which is shut down with all of its tasks in whatever
    /// they are doing.
    pub(crate) fn in_a_runtime_that_ends<T>(work: impl AsyncFnOnce(Spawn) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let spawn: Spawn = Arc::new(|task| drop(tokio::spawn(task)));
        let done = runtime.block_on(work(spawn));
        runtime.shutdown_timeout(DEADLINE);
        done
    }

    /// Runs a test, and fails it when it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(TEST_DEADLINE, test).await.expect("it hangs") })
    }
}
