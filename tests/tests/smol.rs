//! The adapter for smol, held to what both adapters must do.

mod adapter;

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::time::Duration;
    use std::io;

    pub(crate) use phx_smol as phx;
    pub(crate) use phx_smol::SmolRuntime as Runtime;
    use smol::future::FutureExt;

    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<smol::net::TcpStream> {
        smol::net::TcpStream::connect(addr).await
    }

    /// Runs a test, and fails it when it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        smol::block_on(test.or(async {
            smol::Timer::after(Duration::from_secs(60)).await;
            panic!("it does not end within 60 s")
        }))
    }
}
