//! `phx serve`: a Phoenix-like server to try things out with.

use core::future::pending;
use core::net::SocketAddr;
use std::io;

use phx_tokio::testing::{Listener, ServerConfig};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::exit::Failed;

/// What can be typed while it serves.
const COMMANDS: &str = "\
serving until ctrl-c; topics and events are those of phx_proto::testing::Server. Type
  broadcast TOPIC EVENT JSON   to everyone on the topic
  crash TOPIC                  every channel on it
  close TOPIC                  every channel on it
  kick USER_ID                 the sockets that connected with it
  kill                         every connection, without a close frame";

/// Serves until it is interrupted; then closes every connection as a stopping Phoenix does.
pub(crate) async fn run(addr: SocketAddr, token: Option<String>) -> Result<(), Failed> {
    let config = ServerConfig::default();
    let config = match token {
        Some(token) => config.token(token),
        None => config,
    };
    let mut listener = bind(addr, config).await?;
    tokio::select! {
        // Its first poll installs the handler, so it comes before anything is printed.
        biased;
        _ = tokio::signal::ctrl_c() => {}
        () = serve(&listener) => {}
    }
    listener.shutdown().await;
    Ok(())
}

/// Says where it listens, and carries out what is typed.
async fn serve(listener: &Listener) {
    println!("{}", listener.url());
    eprintln!("{COMMANDS}");
    let mut typed = lines();
    while let Some(line) = typed.recv().await {
        if let Err(problem) = obey(listener, &line) {
            eprintln!("{problem}");
        }
    }
    pending().await
}

/// Starts the server that `demo` shows.
pub(crate) async fn listen(addr: SocketAddr) -> Result<Listener, Failed> {
    bind(addr, ServerConfig::default()).await
}

async fn bind(addr: SocketAddr, config: ServerConfig) -> Result<Listener, Failed> {
    let bound = Listener::bind(addr, config).await;
    bound.map_err(|error| Failed::Local(format!("{addr}: {error}")))
}

/// Standard input by lines. It is read by a thread of its own: reading blocks.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Carries out one typed line.
fn obey(listener: &Listener, line: &str) -> Result<(), String> {
    let mut words = line.trim().splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default();
    match (next(), next(), next(), next()) {
        ("", ..) => {}
        ("broadcast", topic, event, json) if !event.is_empty() => {
            let payload: Value =
                serde_json::from_str(json).map_err(|error| format!("no JSON: {error}"))?;
            listener.broadcast(topic, event, payload);
        }
        ("crash", topic, "", "") if !topic.is_empty() => listener.crash_channel(topic),
        ("close", topic, "", "") if !topic.is_empty() => {
            listener.with(|server, now| server.close_channel(now, topic));
        }
        ("kick", id, "", "") if !id.is_empty() => {
            listener.with(|server, now| server.disconnect_id(now, &format!("user:{id}")));
        }
        ("kill", "", "", "") => listener.with(|server, _| server.kill_all()),
        (other, ..) => return Err(format!("{other:?} is not understood that way")),
    }
    Ok(())
}
