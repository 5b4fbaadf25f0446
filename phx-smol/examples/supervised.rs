//! Runs the connections of a file under a supervisor, and prints their events from the bus.
//!
//! ```text
//! cargo run -p phx-smol --example supervised-smol -- phx-proto/examples/connections.example.json
//! ```

use std::error::Error;

use phx_smol::service::BusEvent;
use phx_smol::{Connections, Router};

async fn run(file: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let text = std::fs::read_to_string(file)?;
    let connections = Connections::from_json(&text, |name| std::env::var(name).ok())?;
    let supervisor = phx_smol::supervisor(Router::new());
    // `jido` is the default prefix of bus topics; `Router::prefix` sets another.
    let mut events = supervisor.bus().subscribe("jido.protocol.phoenix.**")?;
    supervisor.start_configured(connections)?;
    while let Some(event) = events.next().await {
        match event {
            BusEvent::Event(routed) => {
                let event = &routed.event;
                let subject = event.subject.as_deref().unwrap_or("-");
                println!("{} {} {subject} {}", event.time, event.kind, event.data);
            }
            BusEvent::Lagged(count) => println!("({count} events were missed)"),
            other => println!("{other:?}"),
        }
        let health = supervisor.health();
        println!("{} of {} ready", health.ready(), health.connections.len());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let file = std::env::args().nth(1).ok_or("usage: supervised <connections.json>")?;
    smol::block_on(run(&file))
}
