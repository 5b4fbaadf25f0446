//! The targets, as `phx-proto/tests/properties/corpus.rs` replays them, for libFuzzer.

#[path = "../../phx-proto/tests/support/ops/mod.rs"]
pub mod ops;
#[path = "../../phx-proto/tests/support/targets/mod.rs"]
pub mod targets;
#[path = "../../phx-proto/tests/support/wire/mod.rs"]
pub mod wire;
