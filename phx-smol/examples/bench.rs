//! A benchmark: compares this client, in the same process, with a minimal Channels client on bare
//! tungstenite.
//!
//! ```text
//! cargo run --release -p phx-smol --features testing --example bench-smol
//! ```
//!
//! `tests/bench/run` raises the limit of open files and runs the benchmark for both adapters.

#[path = "../../tests/bench/mod.rs"]
mod bench;
#[path = "../../tests/bench/on_smol.rs"]
mod rt;

use phx_smol as phx;

fn main() -> Result<(), bench::Failure> {
    bench::run()
}
