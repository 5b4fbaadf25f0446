//! The fuzz targets, one function each.
//!
//! `fuzz/` runs them under libFuzzer. `properties/corpus.rs` runs them over the committed corpora in
//! a plain `cargo test`, so that an input that failed once is tested on any toolchain.

#![allow(dead_code, unreachable_pub, reason = "each user takes its part")]

mod config;
mod decode;
mod presence;
mod reader;
mod socket_ops;
mod websocket;

pub use config::config;
pub use decode::{decode_binary, decode_text};
pub use presence::presence;
pub use socket_ops::socket_ops;
pub use websocket::{deflate_receive, upgrade, websocket_receive};

/// A target.
pub type Target = fn(&[u8]);

/// Each target by its name.
pub const ALL: [(&str, Target); 8] = [
    ("decode_text", decode_text),
    ("decode_binary", decode_binary),
    ("socket_ops", socket_ops),
    ("presence", presence),
    ("config", config),
    ("upgrade", upgrade),
    ("websocket_receive", websocket_receive),
    ("deflate_receive", deflate_receive),
];
