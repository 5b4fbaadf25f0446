//! Memory: each bound against what the allocator counts, allocations per message, sizes of types.

mod bounds;
mod driver_allocations;
mod sizes;
mod socket_allocations;

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/fleet.rs"]
mod fleet;
#[path = "../support/hand.rs"]
mod hand;
