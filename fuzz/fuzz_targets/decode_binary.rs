//! Bytes into the binary decoder: no panic, and what it finds can be read or is refused with words.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use phx_proto::Frame;
use phx_proto::wire::{Serializer, V2, check_strict};

fuzz_target!(|data: &[u8]| {
    match V2.decode(&Frame::Binary(Bytes::copy_from_slice(data))) {
        Ok(message) => {
            let _ = check_strict(&message);
            assert!(data.len() >= message.topic.as_str().len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
