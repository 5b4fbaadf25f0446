//! `phx serve`: a Phoenix-like server to try things out with.

use core::net::SocketAddr;

use phx_tokio::testing::Listener;

use crate::exit::Failed;

/// Serves until it is interrupted; then closes every connection as a stopping Phoenix does.
pub(crate) async fn run(addr: SocketAddr) -> Result<(), Failed> {
    let mut listener = listen(addr).await?;
    println!("{}", listener.url());
    eprintln!("serving until ctrl-c; topics and events are those of phx_proto::testing::Server");
    let _ = tokio::signal::ctrl_c().await;
    listener.shutdown().await;
    Ok(())
}

/// Starts the server that `serve` and `demo` show.
pub(crate) async fn listen(addr: SocketAddr) -> Result<Listener, Failed> {
    let bound = Listener::bind(addr, phx_tokio::testing::ServerConfig::default()).await;
    bound.map_err(|error| Failed::Local(format!("{addr}: {error}")))
}
