//! What this client costs beside a bare tungstenite client that does the least a Channels client
//! can do, both measured in the same run.
//!
//! ```text
//! cargo run --release -p phx-tokio --features testing --example bench-tokio
//! ```
//!
//! `tests/bench/run` raises the limit of open files and does it for both adapters.

#[path = "../../tests/bench/mod.rs"]
mod bench;
#[path = "../../tests/bench/on_tokio.rs"]
mod rt;

use phx_tokio as phx;

fn main() -> Result<(), bench::Failure> {
    bench::run()
}
