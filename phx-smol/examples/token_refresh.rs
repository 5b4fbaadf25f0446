//! Expiring tokens: fetches a new token for every attempt to connect.
//!
//! ```text
//! cargo run -p phx-smol --example token_refresh-smol -- ws://127.0.0.1:4000/socket/websocket
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use phx_smol::client::{ClientEvent, CredentialsFailed, Provided, Setup};
use phx_smol::event::Cause;
use phx_smol::{Config, Credentials};

/// Returns a made-up token; a real program asks its identity provider.
async fn fetch_token() -> Result<String, std::io::Error> {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    Ok(format!("token-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

async fn run(uri: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let setup = Setup::new(Config::new(uri)?).credentials(|attempt| async move {
        // The server refused the last token with 403. Another token of the same account would be
        // refused too.
        if matches!(&attempt.after, Some(Cause::Refused(refusal)) if refusal.status() == 403) {
            return Ok(Provided::GiveUp("this account may not connect".into()));
        }
        let token = fetch_token().await.map_err(CredentialsFailed::new)?;
        println!("attempt {} with {token}", attempt.attempt);
        Ok(Provided::Use(Credentials::new().auth_token(token)))
    });
    let client = phx_smol::start(setup);
    let mut signals = client.signals(); // only later signals, perhaps not the first `Connected`
    client.wait_connected().await?;
    println!("connected");
    while let Some(event) = signals.next().await {
        if let ClientEvent::Signal(signal) = event {
            println!("{signal:?}");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let uri = std::env::args().nth(1).ok_or("usage: token_refresh <ws:// or wss:// address>")?;
    smol::block_on(run(&uri))
}
