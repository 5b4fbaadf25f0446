//! The cost of an idle connection: its memory, and the times of its heartbeats.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use futures_util::join;

use super::Failure;
#[cfg(feature = "deflate")]
use super::compressed;
use super::floor::Floor;
#[cfg(feature = "deflate")]
use super::frames::Body;
use super::measure::{cpu, median, resident};
use super::ours::{self, Ours};
use super::server::Server;
use super::workloads::BUFFERS;
#[cfg(feature = "deflate")]
use super::workloads::Job;
use crate::rt;

/// The number of connections that are opened concurrently.
const AT_A_TIME: u64 = 50;

/// Prints the table for both sides and presets. Each row is measured in a process of its own, because a
/// process may keep freed memory.
pub(crate) fn table() -> Result<(), Failure> {
    println!("\n{:36} {:>9} {:>9}", "resident memory, KiB", "measured", "target");
    let target = if ours::is_native() { 6.0 } else { rt::IDLE_TARGET };
    for (name, arguments, target) in [
        ("floor, 4 KiB buffers, 1,000", ["floor", "many", "1000", "1"], None),
        ("connection, many, 1,000", ["ours", "many", "1000", "1"], Some(target)),
        ("connection, many, 10,000", ["ours", "many", "10000", "1"], Some(target)),
        ("connection, default, 1,000", ["ours", "default", "1000", "1"], None),
        ("further channel, many, 100 x 50", ["ours", "many", "100", "51"], Some(3.0)),
    ] {
        let measured = in_process_of_its_own(name, "idle", &arguments)?;
        let target = target.map_or(String::new(), |target| format!("{target:.1}"));
        println!("{name:36} {measured:>9.1} {target:>9}");
    }
    Ok(())
}

/// Runs a part of the benchmark that prints a number of bytes, and returns it in KiB.
fn in_process_of_its_own(name: &str, part: &str, arguments: &[&str]) -> Result<f64, Failure> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).arg(part).args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let bytes: f64 = text
        .trim()
        .parse()
        .map_err(|_| format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(bytes / 1_024.0)
}

/// Prints the memory of an idle connection with each preset of compression. The connections have sent and
/// received more than the largest window, so that theirs are full.
#[cfg(feature = "deflate")]
pub(crate) fn compressed_table() -> Result<(), Failure> {
    println!("\n{:36} {:>9} {:>9}", "resident memory, KiB", "measured", "target");
    for (preset, connections, echoes, target) in [
        ("none", "1000", "0", None),
        ("none", "1000", "80", None),
        ("smallest", "1000", "80", Some(20.0)),
        ("balanced", "1000", "80", Some(28.0)),
        ("balanced", "10000", "80", Some(28.0)),
        ("strongest", "1000", "80", None),
        ("no-takeover", "1000", "80", None),
        ("balanced", "1000", "0", Some(28.0)),
    ] {
        let arguments = [preset, connections, echoes];
        let name = format!("{preset}, many, {connections}, {echoes} KiB sent");
        let measured = in_process_of_its_own(&name, "compressed", &arguments)?;
        let target = target.map_or(String::new(), |target: f64| format!("{target:.1}"));
        println!("{name:36} {measured:>9.1} {target:>9}");
    }
    Ok(())
}

/// Opens connections with a preset of compression, echoes this many messages of 1 KiB on each of them, and
/// prints the memory of each.
#[cfg(feature = "deflate")]
pub(crate) fn compressed_alone(preset: &str, connections: u64, echoes: u64) -> Result<(), Failure> {
    let (server, compression) = (Server::start()?, compressed::preset(preset)?);
    let port = server.port;
    let each = rt::block_on(async move {
        let open = async move |count: u64| {
            let mut open = Vec::new();
            while (open.len() as u64) < count {
                let now = AT_A_TIME.min(count - open.len() as u64);
                let dials = (0..now).map(|_| async move {
                    let config = ours::native(port)?.for_many_connections();
                    let config = config.heartbeat_interval(INTERVAL).compression(compression);
                    let mut ours = Ours::open(config, 1).await?;
                    let (body, outstanding) = (Body::Readings, 4);
                    if echoes > 0 {
                        ours.run(Job::Echo { body, outstanding, messages: echoes }).await?;
                    }
                    Ok::<_, Failure>(ours)
                });
                for ours in rt::all(dials).await {
                    open.push(ours?);
                }
            }
            Ok::<_, Failure>(open)
        };
        // One-time allocations are not counted.
        let first = open(1).await?;
        let before = resident();
        let held = open(connections).await?;
        rt::sleep(Duration::from_secs(1)).await;
        let after = resident();
        drop((first, held));
        Ok::<_, Failure>((after - before) as f64 / connections as f64)
    })?;
    println!("{each:.0}");
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
    open_every(port, many, [count, topics], INTERVAL).await
}

/// Opens connections with this interval of heartbeats.
async fn open_every(
    port: u16,
    many: bool,
    [count, topics]: [u64; 2],
    interval: Duration,
) -> Result<Vec<Ours>, Failure> {
    let mut open = Vec::new();
    while (open.len() as u64) < count {
        let now = AT_A_TIME.min(count - open.len() as u64);
        let dials = (0..now).map(|_| async move {
            let config = ours::config(port)?;
            let config = if many { config.for_many_connections() } else { config };
            Ours::open(config.heartbeat_interval(interval), topics).await
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

/// The connections, and their interval, for the cost of one heartbeat.
///
/// The interval is so short that several heartbeats are due in each millisecond, the resolution of the
/// timers. With a long interval the process sleeps before each heartbeat and before each reply. Then the
/// wake-ups of an idle core cost more than the heartbeats, and the side whose heartbeats coincide more
/// often has fewer of them.
const BEATING: u64 = 1_000;
const SHORT_INTERVAL: Duration = Duration::from_millis(100);

/// The time before the first round, the number of rounds, and their length.
const WARM_UP: Duration = Duration::from_secs(1);
const BEAT_ROUNDS: u32 = 5;
const BEAT_ROUND: Duration = Duration::from_secs(1);

/// Prints the CPU time of a connect with a join, and of a heartbeat beside the floor's. The targets are
/// microseconds for the first, and a multiple of the floor's cost for the second.
pub(crate) fn costs() -> Result<(), Failure> {
    let [connect_target, beat_target] = if ours::is_native() { [110.0, 1.5] } else { [130.0, 2.0] };
    println!("\n{:36} {:>9} {:>9} {:>7} {:>7}", "CPU time, us", "floor", "ours", "ratio", "target");
    let server = Server::start()?;
    let port = server.port;
    let (connect, floor, ours) = rt::block_on(async move {
        let before = cpu();
        let held = open(port, true, BEATING, 1).await?;
        let connect = (cpu() - before).as_secs_f64() * 1e6 / BEATING as f64;
        drop(held);
        Ok::<_, Failure>((connect, floor_beat(port).await?, our_beat(port).await?))
    })?;
    println!(
        "{:36} {:>9} {connect:>9.1} {:>7} {connect_target:>7.0}",
        "connect and join, many", "", ""
    );
    let ratio = ours / floor;
    println!(
        "{:36} {floor:>9.1} {ours:>9.1} {ratio:>7.2} {beat_target:>7.1}",
        "one heartbeat, 1,000 connections"
    );
    Ok(())
}

/// The CPU time of one heartbeat of this client, in microseconds.
async fn our_beat(port: u16) -> Result<f64, Failure> {
    let held = open_every(port, true, [BEATING, 1], SHORT_INTERVAL).await?;
    Ok(beat_cost(|| held.iter().map(|ours| ours.client().stats().frames_in).sum()).await)
}

/// The CPU time of one heartbeat of the floor, in microseconds.
async fn floor_beat(port: u16) -> Result<f64, Failure> {
    let beats = Arc::new(AtomicU64::new(0));
    let mut open = Vec::new();
    for _ in 0..BEATING {
        open.push(Floor::open(port, 1, 4 << 10).await?);
    }
    let beating = open.into_iter().enumerate().map(|(at, floor)| {
        // Spread over half an interval, as this client's first heartbeats are, but not in order.
        let place = at as u64 * 617 % BEATING;
        let first = SHORT_INTERVAL / 2 + SHORT_INTERVAL / 2 * place as u32 / BEATING as u32;
        floor.beat(
            first,
            SHORT_INTERVAL,
            WARM_UP + BEAT_ROUND * (BEAT_ROUNDS + 1),
            Arc::clone(&beats),
        )
    });
    let measured = beat_cost(|| beats.load(Ordering::Relaxed));
    let (beaten, measured) = join!(rt::all(beating), measured);
    beaten.into_iter().collect::<Result<(), Failure>>()?;
    Ok(measured)
}

/// The CPU time of one heartbeat, in microseconds. `answered` returns the number of replies so far.
async fn beat_cost(answered: impl Fn() -> u64) -> f64 {
    rt::sleep(WARM_UP).await;
    let mut costs = Vec::new();
    for _ in 0..BEAT_ROUNDS {
        let (before, spent) = (answered(), cpu());
        rt::sleep(BEAT_ROUND).await;
        let spent = cpu() - spent;
        costs.push(spent.as_secs_f64() * 1e6 / (answered() - before) as f64);
    }
    median(costs)
}
