//! An independent parser of frames, and generators of text that is nearly JSON.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod near_json;
pub mod strict;
