//! Tests for both adapters, written against the runtime-free part of their API. `crate::rt` is the
//! adapter under test and its runtime.

mod certificates;
mod clock;
mod compression;
mod conformance;
mod dial;
mod elsewhere;
mod endings;
mod floods;
mod graceful;
mod listener;
mod locks;
mod loopback;
mod openssl;
mod peer;
mod proxy;
mod resolve;
mod route;
mod scenarios;
mod scheduler;
mod scripted;
mod slow_link;
mod socks;
mod stage;
mod supervisor;
mod timer;
mod tls;
mod tracked;
mod transport;

pub(crate) use elsewhere::Spawn;
pub(crate) use scripted::Script;
