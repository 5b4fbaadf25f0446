//! The service's external inputs on tokio: HTTP requests, with axum, and SIGTERM.

use std::io;

use axum::Router;
use axum::http::{StatusCode, Uri};
use phx_tokio::client::WeakClient;
use tokio::net::TcpListener;

pub(crate) async fn serve(address: &str, client: WeakClient) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let app = Router::new().fallback(async move |uri: Uri| {
        let (status, text) = crate::answer(uri.path(), &client);
        (StatusCode::from_u16(status).unwrap_or_default(), text)
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

pub(crate) async fn terminated() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _ = signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
