//! Scripted servers on separate threads, without a runtime.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// Starts a server for one connection. Its stream stays open while the handle is kept.
pub(crate) fn serve_once(
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        script(&mut stream);
        stream
    });
    (addr, thread)
}

/// Reads the head of a request.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Reads an upgrade request and accepts it. The bytes of `behind` follow the answer in the same
/// write.
pub(crate) fn accept_upgrade(stream: &mut (impl Read + Write), behind: &[u8]) -> String {
    accept_upgrade_with(stream, "", behind)
}

/// Like [`accept_upgrade`], with further headers in the answer.
pub(crate) fn accept_upgrade_with(
    stream: &mut (impl Read + Write),
    headers: &str,
    behind: &[u8],
) -> String {
    let head = read_head(stream);
    let key = header(&head, "sec-websocket-key").expect("a key");
    let key = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key).unwrap();
    let accept = phx_proto::upgrade::accept_key(key.try_into().unwrap());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
    );
    stream.write_all(&[answer.as_bytes(), behind].concat()).unwrap();
    head
}

/// Reads a masked frame of at most 125 bytes. Returns its opcode and its payload.
pub(crate) fn read_masked(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[1] & 0x80, 0x80, "the client masks its frames");
    let length = usize::from(head[1] & 0x7f);
    assert!(length <= 125, "a short frame");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    for (byte, mask) in payload.iter_mut().zip(head[2..].iter().cycle()) {
        *byte ^= mask;
    }
    (head[0] & 0x0f, payload)
}

/// The value of a header in the head of a request.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}
