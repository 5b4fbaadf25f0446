//! The benchmark of both adapters, written once. `examples/bench.rs` of each of them includes it,
//! with the runtime as `rt` and the adapter as `phx`.
//!
//! Ours and the floor take turns in one process, so that whatever else the machine does meets both;
//! what is compared is CPU time, and the median of the ratios.

mod floor;
mod frames;
mod measure;
mod ours;
mod server;
mod workloads;

/// Why there is no result.
pub(crate) type Failure = Box<dyn core::error::Error + Send + Sync>;

const USAGE: &str = "usage: bench [ratios [PREFIX [ROUNDS]] | once WORKLOAD ours|floor MESSAGES]";

/// Does what the arguments say.
pub(crate) fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => server::serve(),
        [] | ["ratios"] => workloads::table("", 9),
        ["ratios", prefix] => workloads::table(prefix, 9),
        ["ratios", prefix, rounds] => workloads::table(prefix, rounds.parse()?),
        ["once", name, side, messages] => workloads::once(name, side, messages.parse()?),
        _ => Err(USAGE.into()),
    }
}
