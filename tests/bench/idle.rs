//! The cost of an idle connection: its memory, and the times of its heartbeats.

use core::time::Duration;
use std::process::Command;
use std::time::Instant;

use super::Failure;
use super::floor::Floor;
use super::measure::{cpu, resident};
use super::ours::{self, Ours};
use super::server::Server;
use super::workloads::BUFFERS;
use crate::rt;

/// The number of connections that are opened concurrently.
const AT_A_TIME: u64 = 50;

/// Prints the table for both sides and presets. Each row is measured in a process of its own, because a
/// process may keep freed memory.
pub(crate) fn table() -> Result<(), Failure> {
    println!("\n{:36} {:>9} {:>9}", "resident memory, KiB", "measured", "target");
    let target = rt::IDLE_TARGET;
    for (name, arguments, target) in [
        ("floor, 4 KiB buffers, 1,000", ["floor", "many", "1000", "1"], None),
        ("connection, many, 1,000", ["ours", "many", "1000", "1"], Some(target)),
        ("connection, many, 10,000", ["ours", "many", "10000", "1"], Some(target)),
        ("connection, default, 1,000", ["ours", "default", "1000", "1"], None),
        ("further channel, many, 100 x 50", ["ours", "many", "100", "51"], Some(3.0)),
    ] {
        let program = std::env::current_exe()?;
        let output = Command::new(program).arg("idle").args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        let bytes: f64 = text
            .trim()
            .parse()
            .map_err(|_| format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let measured = bytes / 1_024.0;
        let target = target.map_or(String::new(), |target| format!("{target:.1}"));
        println!("{name:36} {measured:>9.1} {target:>9}");
    }
    Ok(())
}

/// Opens the connections and prints the memory of each. If they have more than one channel, prints the
/// memory of each further channel instead.
pub(crate) fn alone(
    side: &str,
    preset: &str,
    connections: u64,
    channels: u64,
) -> Result<(), Failure> {
    let server = Server::start()?;
    let (port, floor, many) = (server.port, side == "floor", preset == "many");
    let each = rt::block_on(async move {
        if floor {
            // One-time allocations are not counted.
            rt::all([Floor::open(port, 1, BUFFERS).await?.idle_for(Duration::ZERO)]).await;
            let before = resident();
            let open = (0..connections).map(|_| async move {
                let buffers = if many { 4 << 10 } else { BUFFERS };
                match Floor::open(port, 1, buffers).await {
                    Ok(floor) => floor.idle_for(Duration::from_secs(3)).await,
                    Err(_) => 0,
                }
            });
            let after = rt::all(open).await.into_iter().max().unwrap_or(0);
            return Ok::<_, Failure>((after - before) as f64 / connections as f64);
        }
        let first = open(port, many, 1, 1).await?;
        let before = resident();
        let mut held = open(port, many, connections, 1).await?;
        rt::sleep(Duration::from_secs(1)).await;
        let after = resident();
        if channels == 1 {
            return Ok((after - before) as f64 / connections as f64);
        }
        for ours in &mut held {
            ours.join_more(channels).await?;
        }
        rt::sleep(Duration::from_secs(1)).await;
        drop(first);
        Ok((resident() - after) as f64 / (connections * (channels - 1)) as f64)
    })?;
    println!("{each:.0}");
    Ok(())
}

async fn open(port: u16, many: bool, count: u64, topics: u64) -> Result<Vec<Ours>, Failure> {
    let mut open = Vec::new();
    while (open.len() as u64) < count {
        let now = AT_A_TIME.min(count - open.len() as u64);
        let dials = (0..now).map(|_| async move {
            let config = ours::config(port)?;
            let config = if many { config.for_many_connections() } else { config };
            Ours::open(config.heartbeat_interval(INTERVAL), topics).await
        });
        for ours in rt::all(dials).await {
            open.push(ours?);
        }
    }
    Ok(open)
}

const INTERVAL: Duration = Duration::from_secs(20);

/// Counts the heartbeats in each second of an interval, and their CPU time.
pub(crate) fn heartbeats(connections: u64) -> Result<(), Failure> {
    let server = Server::start()?;
    let port = server.port;
    rt::block_on(async move {
        let held = open(port, true, connections, 1).await?;
        let count = || held.iter().map(|ours| ours.client().stats().frames_in).sum::<u64>();
        // After this, every connection has sent its first heartbeat.
        rt::sleep(INTERVAL).await;
        let (mut seen, mut before) = (Vec::new(), count());
        let (spent, start) = (cpu(), Instant::now());
        for _ in 0..INTERVAL.as_secs() {
            rt::sleep(Duration::from_secs(1)).await;
            let now = count();
            seen.push(now - before);
            before = now;
        }
        let used = (cpu() - spent).as_secs_f64() / start.elapsed().as_secs_f64();
        println!("\nheartbeats of {connections} connections, every {} s", INTERVAL.as_secs());
        println!("in each second: {seen:?}, {:.1} % of a processor", used * 100.0);
        let alive = held.iter().filter(|ours| ours.is_joined()).count();
        println!("connections that are still joined: {alive}");
        Ok(())
    })
}
