//! The targets for libFuzzer. `phx-proto/tests/properties/corpus.rs` replays the same targets.

#[path = "../../phx-proto/tests/support/ops/mod.rs"]
pub mod ops;
#[path = "../../phx-proto/tests/support/targets/mod.rs"]
pub mod targets;
#[path = "../../phx-proto/tests/support/wire/mod.rs"]
pub mod wire;
