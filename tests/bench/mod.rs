//! The benchmark of both adapters, written once. `examples/bench.rs` of each of them includes it,
//! with the runtime as `rt` and the adapter as `phx`.
//!
//! The client and the floor, a minimal client, take turns in one process, so that other load on the
//! machine affects both. The result is the median of the ratios of their CPU time.

#[cfg(feature = "deflate")]
mod compressed;
mod floor;
mod frames;
mod idle;
mod measure;
mod ours;
mod server;
mod storm;
mod workloads;

/// The error of a benchmark.
pub(crate) type Failure = Box<dyn core::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: bench                                    everything
       bench ratios [PREFIX [ROUNDS]]           CPU time, compared with the floor
       bench idle                               memory of idle connections
       bench compression [ROUNDS]               CPU time and memory with each preset (feature deflate)
       bench costs                              CPU time of connects and heartbeats
       bench heartbeats CONNECTIONS             whether they are spread
       bench storm                              a consumer that does not keep up
       bench once WORKLOAD ours|floor MESSAGES  one workload, for a profiler";

/// Rounds of each side; odd, so that the median is one of them.
const ROUNDS: usize = 9;

/// Runs the benchmark that the arguments select.
pub(crate) fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => server::serve(),
        [] => {
            workloads::table("", ROUNDS)?;
            idle::table()?;
            #[cfg(feature = "deflate")]
            {
                compressed::table(ROUNDS)?;
                idle::compressed_table()?;
            }
            idle::costs()?;
            idle::heartbeats(10_000)?;
            storm::run()
        }
        ["ratios"] => workloads::table("", ROUNDS),
        ["idle"] => idle::table(),
        #[cfg(feature = "deflate")]
        ["compression"] => {
            compressed::table(ROUNDS)?;
            idle::compressed_table()
        }
        #[cfg(feature = "deflate")]
        ["compression", rounds] => compressed::table(rounds.parse()?),
        #[cfg(feature = "deflate")]
        ["compressed", preset, connections, echoes] => {
            idle::compressed_alone(preset, connections.parse()?, echoes.parse()?)
        }
        ["costs"] => idle::costs(),
        ["idle", side, preset, connections, channels] => {
            idle::alone(side, preset, connections.parse()?, channels.parse()?)
        }
        ["heartbeats", connections] => idle::heartbeats(connections.parse()?),
        ["storm"] => storm::run(),
        ["ratios", prefix] => workloads::table(prefix, ROUNDS),
        ["ratios", prefix, rounds] => workloads::table(prefix, rounds.parse()?),
        ["once", name, side, messages] => workloads::once(name, side, messages.parse()?),
        _ => Err(USAGE.into()),
    }
}
