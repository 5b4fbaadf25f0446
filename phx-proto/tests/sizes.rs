//! How large the values are that every connection, message and push costs. A bound that fails
//! is moved only with the reason in the commit that moves it.

use core::mem::size_of;

use phx_proto::wire::{ByteStr, Message};
use phx_proto::{Action, Frame, Payload, Signal, Socket, Topic};

#[track_caller]
fn at_most(size: usize, bound: usize) {
    assert!(size <= bound, "{size} bytes, not at most {bound}");
}

#[test]
fn the_values_of_the_interface_do_not_grow() {
    // Pushes lie in rings, which are larger than the tables they replace when empty, and cost a
    // third of them for each push.
    at_most(size_of::<Socket>(), 2240);
    at_most(size_of::<Action>(), 112);
    at_most(size_of::<Signal>(), 112);
    at_most(size_of::<Message>(), 152);
    at_most(size_of::<Payload>(), 48);
    at_most(size_of::<ByteStr>(), 32);
    at_most(size_of::<Frame>(), 40);
    at_most(size_of::<Topic>(), 16);
}
