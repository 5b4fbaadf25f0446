//! A benchmark of this client against a bare tungstenite client that does the minimum of a Channels
//! client, in one run.
//!
//! ```text
//! cargo run --release -p phx-tokio --features testing --example bench-tokio
//! ```
//!
//! `tests/bench/run` raises the limit of open files and runs the benchmark for both adapters.

#[path = "../../tests/bench/mod.rs"]
mod bench;
#[path = "../../tests/bench/on_tokio.rs"]
mod rt;

use phx_tokio as phx;

fn main() -> Result<(), bench::Failure> {
    bench::run()
}
