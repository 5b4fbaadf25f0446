//! The adapter for tokio, held to what both adapters must do.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::time::Duration;
    use std::io;

    pub(crate) use phx_tokio as phx;
    pub(crate) use phx_tokio::TokioRuntime as Runtime;

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(addr).await
    }

    /// Runs a test, and fails it when it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), test).await.expect("it ends within 60 s")
        })
    }
}
