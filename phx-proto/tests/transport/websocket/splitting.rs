//! The result of a stream does not depend on how it was cut into reads.

use crate::cases::{cases, regressions};
use phx_proto::websocket::{Endpoint, Limits};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::oracle::{limits, sizes, stream};
use super::support::{Outcome, Raw, TEXT, pieces, raw, receive, transmitted};

fn of(endpoint: &Endpoint, bytes: &[u8], sizes: &[usize]) -> (Outcome, Vec<u8>) {
    let mut endpoint = endpoint.clone();
    let outcome = receive(&mut endpoint, pieces(bytes, sizes));
    (outcome, transmitted(&mut endpoint))
}

fn splits_alike(endpoint: &Endpoint, bytes: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
    let whole = of(endpoint, bytes, &[]);
    prop_assert_eq!(&of(endpoint, bytes, &[1]), &whole, "byte by byte");
    prop_assert_eq!(&of(endpoint, bytes, sizes), &whole);
    Ok(())
}

/// Limits that are low enough for the streams to reach them.
fn tight() -> impl Strategy<Value = Limits> {
    (0..400_usize, 0..400_usize, 0..4_u32, 0..3_u32).prop_map(
        |(message, frame, fragments, empty)| Limits {
            message_bytes_max: message,
            frame_bytes_max: frame,
            fragments_max: fragments,
            empty_fragments_max: empty,
            ..limits()
        },
    )
}

proptest! {
    #![proptest_config(cases(256, regressions!("websocket")))]

    #[test]
    fn splitting_changes_nothing(
        stream in stream(), sizes in sizes(), limits in prop_oneof![Just(limits()), tight()],
        noise in proptest::option::of(vec((any::<Index>(), any::<u8>()), 1..4)),
    ) {
        for (endpoint, stream) in [
            (Endpoint::client(&limits), stream.clone()),
            (Endpoint::server(&limits), stream.of_a_client()),
        ] {
            let mut bytes = stream.bytes();
            for (at, byte) in noise.iter().flatten() {
                if !bytes.is_empty() {
                    *at.get_mut(&mut bytes) = *byte;
                }
            }
            splits_alike(&endpoint, &bytes, &sizes)?;
        }
    }

    /// Later bytes do not change events that were already returned.
    #[test]
    fn prefix_of_stream_gives_prefix(stream in stream(), at in any::<Index>()) {
        let endpoint = Endpoint::client(&limits());
        let bytes = stream.bytes();
        let end = at.index(bytes.len() + 1);
        let (whole, _) = of(&endpoint, &bytes, &[]);
        let (prefix, _) = of(&endpoint, &bytes[..end], &[]);
        prop_assert!(whole.items.starts_with(&prefix.items));
        if prefix.violation.is_some() {
            prop_assert_eq!(prefix, whole);
        }
    }
}

/// Every combination of the first and second byte, within a message and outside of one, for both
/// roles. The result is the same if the bytes arrive one by one.
#[test]
fn every_header_splits_alike() {
    let begun = raw(TEXT, "a").not_final();
    for (endpoint, begun) in [
        (Endpoint::client(&limits()), begun.clone()),
        (Endpoint::server(&limits()), begun.masked()),
    ] {
        for before in [Vec::new(), Raw::bytes(&begun)] {
            for first in 0..=255 {
                for second in 0..=255 {
                    // A length of 257, or the beginning of a length over the limit, and some more
                    // bytes.
                    let bytes =
                        [&before[..], &[first, second], &[1, 1, 1, 1, 0, 0, 0, 2, 0xff, 0x81]]
                            .concat();
                    assert_eq!(
                        of(&endpoint, &bytes, &[1]),
                        of(&endpoint, &bytes, &[]),
                        "{bytes:x?}"
                    );
                }
            }
        }
    }
}
