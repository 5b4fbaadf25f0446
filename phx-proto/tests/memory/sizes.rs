//! Sizes of the types that exist per connection, message and push. A bound may be changed only in a
//! commit that states the reason.

use core::mem::size_of;

use phx_proto::wire::{ByteStr, Incoming};
use phx_proto::{Action, Frame, Payload, Signal, Socket, Topic};

#[track_caller]
fn at_most(size: usize, bound: usize) {
    assert!(size <= bound, "{size} bytes, not at most {bound}");
}

#[test]
fn interface_types_keep_their_size() {
    // The size includes the deadlines of the connection, the rings of its pushes, the table of its
    // topics, and the counts of bytes with a baseline for each awaited answer. It also includes two
    // values that outlive connections: the pace of joins with its last burst, and the address that
    // was open, which is compared when an upgrade is refused with 404.
    at_most(size_of::<Socket>(), 2672);
    at_most(size_of::<Action>(), 112);
    at_most(size_of::<Signal>(), 112);
    at_most(size_of::<Incoming>(), 152);
    at_most(size_of::<Payload>(), 48);
    at_most(size_of::<ByteStr>(), 32);
    at_most(size_of::<Frame>(), 40);
    at_most(size_of::<Topic>(), 16);
}
