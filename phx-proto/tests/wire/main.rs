//! Codecs: vsn 1.0.0, vsn 2.0.0 and custom ones.

mod custom_codec;
mod properties;
mod vsn_1;

#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/hand.rs"]
mod hand;
#[path = "../support/wire/mod.rs"]
mod wire;
