//! `targets::decode_text` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phx_fuzz::targets::decode_text(data));
