//! Clients with compression, against the test server and against hostile ones.

use super::scenarios;
use super::stage::{Target, play_compressed};
use crate::rt::phx::config::Compression;

/// Scenarios with every kind of message, over TCP and TLS, and with bytes that are split, delayed and
/// lost.
macro_rules! scenarios {
    ($($scenario:ident)*) => {$(
        #[test]
        fn $scenario() {
            for target in [Target::Loopback, Target::Tls, Target::Faulty] {
                play_compressed(target, Compression::balanced(), scenarios::$scenario);
            }
            let fresh = Compression::smallest().context_takeover(false, false).send_bytes_min(0);
            play_compressed(Target::Faulty, fresh, scenarios::$scenario);
        }
    )*};
}

scenarios! {
    replies_of_every_status
    binary_both_ways
    presence
    transport_killed
    server_shutdown
    large_payloads
    unicode_topics
}

/// Over a real Phoenix with `compress: true`, if there is one.
#[test]
fn phoenix_compresses() {
    play_compressed(Target::Phoenix, Compression::balanced(), scenarios::large_payloads);
}
