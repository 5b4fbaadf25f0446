//! The workloads that are compared with the floor, and the table of their ratios.

use super::Failure;
use super::floor::Floor;
use super::frames::Body;
use super::measure::{Round, median};
use super::ours::{self, Ours};
use super::server::Server;
use crate::rt;

/// The work of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Pushes that the server echoes, with `outstanding` of them unanswered at any time.
    Echo { body: Body, outstanding: u64, messages: u64 },
    /// Broadcasts on `topics` topics in turn.
    Receive { body: Body, topics: u64, messages: u64 },
}

/// A job with targets for its CPU time, as a multiple of the floor's: over tungstenite, over phx's own
/// WebSocket, and a goal beyond both.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    job: Job,
    targets: [f64; 3],
}

const fn echo(
    name: &'static str,
    body: Body,
    [outstanding, messages]: [u64; 2],
    targets: [f64; 3],
) -> Workload {
    Workload { name, job: Job::Echo { body, outstanding, messages }, targets }
}

const fn receive(
    name: &'static str,
    body: Body,
    [topics, messages]: [u64; 2],
    targets: [f64; 3],
) -> Workload {
    Workload { name, job: Job::Receive { body, topics, messages }, targets }
}

/// In the order of the table.
pub(crate) const WORKLOADS: [Workload; 12] = [
    receive("receive-64", Body::Small, [1, 200_000], [1.4, 0.95, 0.7]),
    receive("receive-1k", Body::Records, [1, 40_000], [1.15, 1.0, 0.9]),
    receive("receive-16k", Body::ManyRecords, [1, 3_000], [1.05, 1.0, 0.9]),
    receive("receive-16k-string", Body::LongString, [1, 3_000], [1.3, 1.0, 0.8]),
    receive("receive-binary", Body::Binary, [1, 200_000], [1.5, 1.0, 0.7]),
    receive("channels-1000", Body::Small, [1_000, 100_000], [1.5, 1.2, 1.0]),
    echo("echo-1", Body::Small, [1, 4_000], [1.1, 1.05, 1.0]),
    echo("echo-64", Body::Small, [64, 64_000], [1.3, 1.1, 1.0]),
    echo("echo-1024", Body::Small, [1_024, 102_400], [1.6, 1.35, 1.2]),
    // The target, which `print` computes, is 1.2 times the cost of a message with 1,024 outstanding.
    echo("echo-10000", Body::Small, [10_000, 100_000], [0.0, 0.0, 0.0]),
    echo("echo-binary-1", Body::Binary, [1, 4_000], [1.3, 1.3, 1.15]),
    echo("echo-binary-64", Body::Binary, [64, 64_000], [1.3, 1.3, 1.15]),
];

impl Workload {
    const fn topics(&self) -> u64 {
        match self.job {
            Job::Receive { topics, .. } => topics,
            Job::Echo { .. } => 1,
        }
    }

    /// Starts the server of the workload. With one message at a time, client and server share a core:
    /// waking an idle core takes longer than the whole round trip, above all on a virtual machine, and
    /// would hide every difference.
    fn server(&self) -> Result<Server, Failure> {
        match self.job {
            Job::Echo { outstanding: 1, .. } => Server::start_beside(),
            _ => Server::start(),
        }
    }

    /// The same job with another number of messages.
    fn shortened(&self, messages: u64) -> Job {
        match self.job {
            Job::Echo { body, outstanding, .. } => Job::Echo { body, outstanding, messages },
            Job::Receive { body, topics, .. } => Job::Receive { body, topics, messages },
        }
    }
}

/// Runs one workload on one side only, for a profiler.
pub(crate) fn once(name: &str, side: &str, messages: u64) -> Result<(), Failure> {
    let workload = WORKLOADS.iter().find(|workload| workload.name == name).ok_or("no such name")?;
    let job = workload.shortened(messages);
    let topics = workload.topics();
    let server = workload.server()?;
    let port = server.port;
    let floor = side == "floor";
    let round = rt::block_on(async move {
        if floor {
            Floor::open(port, topics, BUFFERS).await?.run(job).await
        } else {
            Ours::open(ours::config(port)?, topics).await?.run(job).await
        }
    })?;
    println!("{name} {side}: {:.0} ns of CPU time a message", round.cpu_each());
    Ok(())
}

/// The default of `Config::buffers`, which the floor uses too.
pub(crate) const BUFFERS: usize = 16 << 10;

/// Prints the table of all workloads with this prefix.
pub(crate) fn table(prefix: &str, rounds: usize) -> Result<(), Failure> {
    println!(
        "{:18} {:>9} {:>9} {:>7} {:>7} {:>7}   {:>9} {:>18}",
        "workload", "floor ns", "ours ns", "ratio", "target", "stretch", "rate", "latency, us"
    );
    let mut at_1024 = None;
    for workload in WORKLOADS.iter().filter(|workload| workload.name.starts_with(prefix)) {
        let server = workload.server()?;
        let (job, topics, port) = (workload.job, workload.topics(), server.port);
        let (rounds, lost) = rt::block_on(async move {
            let mut floor = Floor::open(port, topics, BUFFERS).await?;
            let mut ours = Ours::open(ours::config(port)?, topics).await?;
            // A warm-up round, which is not counted.
            floor.run(job).await?;
            ours.run(job).await?;
            let mut pairs = Vec::new();
            for _ in 0..rounds {
                pairs.push([floor.run(job).await?, ours.run(job).await?]);
            }
            Ok::<_, Failure>((pairs, ours.lost))
        })?;
        let ours = print(workload, &rounds, lost, at_1024);
        if workload.name == "echo-1024" {
            at_1024 = Some(ours);
        }
    }
    Ok(())
}

/// Prints a line, and returns the cost of a message with this client.
fn print(workload: &Workload, rounds: &[[Round; 2]], lost: u64, at_1024: Option<f64>) -> f64 {
    let of = |what: fn(&[Round; 2]) -> f64| median(rounds.iter().map(what));
    let floor = of(|[floor, _]| floor.cpu_each());
    let ours = of(|[_, ours]| ours.cpu_each());
    let ratio = of(|[floor, ours]| ours.cpu_each() / floor.cpu_each());
    let [tungstenite, native, stretch] = workload.targets;
    let mut target = if ours::is_native() { native } else { tungstenite };
    if workload.name == "echo-10000" {
        target = at_1024.map_or(0.0, |at_1024| 1.2 * at_1024 / floor);
    }
    print!("{:18} {floor:>9.0} {ours:>9.0} {ratio:>7.2} ", workload.name);
    print!("{} {}", number(target), number(stretch));
    if let Job::Echo { outstanding, .. } = workload.job {
        let rate = of(|[floor, ours]| ours.rate() / floor.rate());
        print!("   {rate:>7.2} x");
        if outstanding == 1 {
            let floor = of(|[floor, _]| floor.latency.as_nanos() as f64 / 1e3);
            let ours = of(|[_, ours]| ours.latency.as_nanos() as f64 / 1e3);
            print!(" {ours:>8.1} / {floor:.1}");
        }
    }
    let missed = target > 0.0 && ratio > target;
    println!("{}", if missed { "   MISSED" } else { "" });
    if lost > 0 {
        println!("{:16} {lost} messages found a full mailbox", "");
    }
    ours
}

fn number(value: f64) -> String {
    if value > 0.0 { format!("{value:>7.2}") } else { format!("{:>7}", "") }
}
