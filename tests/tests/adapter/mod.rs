//! What both adapters must do, in the words of the runtime-free part of their API. `crate::rt` is
//! the adapter under test and its runtime.

mod certificates;
mod dial;
mod endings;
mod listener;
mod loopback;
mod peer;
mod proxy;
mod supervisor;
mod tls;
