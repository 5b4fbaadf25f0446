//! Responses to the upgrade.

use allocation_counter::measure;
use phx_proto::upgrade::{Upgrade, UpgradeRequest};

use super::{KIB, MIB, held, row};

fn machine() -> Upgrade {
    let request = UpgradeRequest {
        host: "localhost",
        target: "/socket/websocket",
        headers: &[],
        subprotocols: &[],
        key: [7; 16],
    };
    Upgrade::new(&request).expect("a legal request")
}

/// At most 16 KiB and 1,024 headers of a response's head are held, whatever its shape.
#[test]
fn endless_response_heads() {
    for (name, line) in [
        ("one header", "x".to_owned()),
        ("short headers", "a:b\r\n".to_owned()),
        ("long headers", format!("x: {}\r\n", "v".repeat(1_000))),
    ] {
        let mut upgrade = machine();
        let mut result = None;
        let info = measure(|| {
            let start = upgrade.handle_read(b"HTTP/1.1 403 Forbidden\r\n");
            assert!(start.is_ok(), "{start:?}");
            for _ in 0..4 * MIB / line.len() {
                if let Err(error) = upgrade.handle_read(line.as_bytes()) {
                    result = Some(error);
                    break;
                }
            }
        });
        assert!(result.is_some(), "{name}: it was not refused");
        row(&format!("response head without an end: {name}"), 64 * KIB, info.bytes_max);
    }
}

/// A refusal holds its head and the first KiB of its body. The head has up to 1,024 headers, with
/// 48 bytes of overhead each.
#[test]
fn refusal_with_a_full_head() {
    for (name, header) in [("short", "a:b\r\n"), ("long", "x-header-name: some value\r\n")] {
        let count = 15 * KIB / header.len();
        let head = format!(
            "HTTP/1.1 403 Forbidden\r\n{}content-length: 4000000\r\n\r\n",
            header.repeat(count)
        );
        let bytes = held(|| {
            let mut upgrade = machine();
            let mut read = upgrade.handle_read(head.as_bytes());
            for _ in 0..4_000 {
                if read.is_err() {
                    break;
                }
                read = upgrade.handle_read(&[b'b'; 1_000]);
            }
            read.expect_err("a refusal")
        });
        row(&format!("refusal with {count} {name} headers"), 65 * KIB, bytes);
    }
}
