//! `targets::deflate_receive` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phx_fuzz::targets::deflate_receive(data));
