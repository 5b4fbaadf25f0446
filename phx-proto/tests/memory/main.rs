//! Memory: each bound and the bytes that the allocator counts, allocations per message, and sizes of
//! types.

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
