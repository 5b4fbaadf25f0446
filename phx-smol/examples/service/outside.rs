//! The service's external inputs on smol: HTTP requests, with httparse, and SIGTERM.

use std::io;

use async_signal::{Signal, Signals};
use phx_smol::client::WeakClient;
use smol::net::{TcpListener, TcpStream};
use smol::prelude::*;

pub(crate) async fn serve(address: &str, client: WeakClient) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    smol::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            smol::spawn(reply(stream, client.clone())).detach();
        }
    })
    .detach();
    Ok(())
}

/// Answers one request on a connection; only the path of the request is used.
async fn reply(mut stream: TcpStream, client: WeakClient) -> io::Result<()> {
    let (mut buffer, mut read) = ([0; 4_096], 0);
    let path = loop {
        let more = stream.read(&mut buffer[read..]).await?;
        read += more;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&buffer[..read]) {
            Ok(httparse::Status::Complete(_)) => break request.path.unwrap_or("/").to_owned(),
            Ok(httparse::Status::Partial) if more > 0 => {}
            _ => return Ok(()),
        }
    };
    let (status, text) = crate::answer(&path, &client);
    let head = format!("HTTP/1.1 {status} \r\ncontent-length: {}\r\nconnection: close", text.len());
    stream.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).await
}

pub(crate) async fn terminated() -> io::Result<()> {
    Signals::new([Signal::Term])?.next().await.transpose().map(|_| ())
}
