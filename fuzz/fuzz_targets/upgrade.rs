//! `targets::upgrade` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phx_fuzz::targets::upgrade(data));
