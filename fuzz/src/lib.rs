//! The targets, as `phx-proto/tests/corpus.rs` replays them, for libFuzzer.

#[path = "../../phx-proto/tests/ops/mod.rs"]
pub mod ops;
#[path = "../../phx-proto/tests/targets/mod.rs"]
pub mod targets;
#[path = "../../phx-proto/tests/wire/mod.rs"]
pub mod wire;
