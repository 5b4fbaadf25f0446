//! Base64 in the standard alphabet, written out because the core depends on no crate for it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` to `text`, without padding.
pub(crate) fn push_base64(text: &mut String, bytes: &[u8]) {
    text.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        // One byte makes two characters, two make three, three make four.
        for index in 0..=chunk.len() {
            let sextet = bits >> (18 - 6 * index) & 0x3f;
            text.push(char::from(ALPHABET[sextet as usize]));
        }
    }
}

/// `bytes` with padding.
#[cfg(feature = "service")]
pub(crate) fn padded(bytes: &[u8]) -> String {
    let mut text = String::new();
    push_base64(&mut text, bytes);
    while text.len() % 4 != 0 {
        text.push('=');
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_encoded_as_the_base64_crate_does(bytes in any::<Vec<u8>>()) {
            let mut text = String::new();
            push_base64(&mut text, &bytes);
            prop_assert_eq!(text, STANDARD_NO_PAD.encode(&bytes));
            prop_assert_eq!(padded(&bytes), STANDARD.encode(&bytes));
        }
    }
}
