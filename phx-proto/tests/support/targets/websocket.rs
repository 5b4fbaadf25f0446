//! Passes the bytes of a server, or of a client, to the WebSocket machine and to the upgrade before
//! it.

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::upgrade::{Upgrade, UpgradeError, UpgradeRequest, UpgradeStep, Upgraded};
use phx_proto::websocket::{Endpoint, Event, Fault, Limits, Scratch, State};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte selects the side that reads and its limits. The second byte selects how the rest is
/// cut.
///
/// The result does not depend on the cuts. Texts are UTF-8 and limits are kept. Every received
/// message can be sent again, and arrives unchanged.
pub fn websocket_receive(data: &[u8]) {
    let [options, cut, stream @ ..] = data else { return };
    let is_server = options & 1 != 0;
    let limits = if options & 2 == 0 {
        Limits::default()
    } else {
        Limits {
            message_bytes_max: usize::from(options >> 4) * 8,
            frame_bytes_max: 64,
            fragments_max: 4,
            empty_fragments_max: 2,
            ..Limits::default()
        }
    };
    let endpoint = if is_server { Endpoint::server(&limits) } else { Endpoint::client(&limits) };
    let whole = receive(endpoint.clone(), stream, stream.len());
    assert_eq!(whole, receive(endpoint.clone(), stream, 1));
    assert_eq!(whole, receive(endpoint, stream, usize::from(*cut)));

    let (events, fault, ..) = whole;
    if let Some(Fault::Violation(violation)) = &fault {
        assert!(!violation.to_string().is_empty() && !violation.clause().is_empty());
        assert!([1002, 1007, 1009].contains(&violation.close_code()));
    }
    let messages: Vec<Frame> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::Message(frame) => Some(frame),
            _ => None,
        })
        .collect();
    for message in &messages {
        assert!(message.len() <= limits.message_bytes_max && message.len() <= stream.len());
        assert!(!message.is_text() || std::str::from_utf8(message.as_bytes()).is_ok());
    }
    let limits = Limits { fragment_bytes: usize::from(*cut), ..unbounded() };
    let (client, server) = (Endpoint::client(&limits), Endpoint::server(&limits));
    send_again(messages, if is_server { (server, client) } else { (client, server) });
}

/// Compressed messages of a server. The first byte selects the window and the context, and whether the
/// limit is low. The second byte selects how the rest is cut.
///
/// The result depends neither on the cuts nor on the codecs. Texts are UTF-8 and the limit is kept.
/// Every received message can be sent again in the same way, and arrives unchanged.
pub fn deflate_receive(data: &[u8]) {
    let [options, cut, stream @ ..] = data else { return };
    let (bits, takeover) = (9 + (options & 7).min(6), options & 8 == 0);
    let agreed = Compression::balanced().window_bits(bits, bits).expect("from 9 to 15");
    let agreed = agreed.context_takeover(takeover, takeover).send_bytes_min(0);
    let message_bytes_max =
        if options & 16 == 0 { 1 << 20 } else { usize::from(options >> 5) * 50 };
    let limits = Limits { message_bytes_max, ..Limits::default() };
    let endpoint = Endpoint::client(&limits).compressed(&agreed);
    let whole = receive(endpoint.clone(), stream, stream.len());
    assert_eq!(whole, receive(endpoint.clone(), stream, 1));
    assert_eq!(whole, receive(endpoint.clone(), stream, usize::from(*cut)));
    assert_eq!(whole, receive_with(endpoint, stream, 7, Some(&mut Scratch::new())));

    let messages = whole.0.into_iter().filter_map(|event| match event {
        Event::Message(frame) => Some(frame),
        _ => None,
    });
    let messages: Vec<Frame> = messages.collect();
    for message in &messages {
        assert!(message.len() <= message_bytes_max);
        assert!(!message.is_text() || std::str::from_utf8(message.as_bytes()).is_ok());
    }
    // A few bytes can decompress to a long message, which must not exceed `fragments_max`.
    let longest = messages.iter().map(Frame::len).max().unwrap_or(0);
    let fragment_bytes = usize::from(*cut).max(longest / 1_000);
    let limits = Limits { fragment_bytes, ..unbounded() };
    let (client, server) = (Endpoint::client(&limits), Endpoint::server(&limits));
    send_again(messages, (client.compressed(&agreed), server.compressed(&agreed)));
}

fn unbounded() -> Limits {
    Limits { outbox_bytes_max: usize::MAX, ..Limits::default() }
}

/// Every event of a stream, and the bytes that the endpoint has to write at its end.
fn receive(
    endpoint: Endpoint,
    stream: &[u8],
    cut: usize,
) -> (Vec<Event>, Option<Fault>, State, Vec<u8>) {
    receive_with(endpoint, stream, cut, None)
}

fn receive_with(
    mut endpoint: Endpoint,
    stream: &[u8],
    cut: usize,
    mut scratch: Option<&mut Scratch>,
) -> (Vec<Event>, Option<Fault>, State, Vec<u8>) {
    let (mut buffer, mut events, mut fault) = (BytesMut::new(), Vec::new(), None);
    for piece in stream.chunks(cut.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let polled = match &mut scratch {
                None => endpoint.poll_event(&mut buffer),
                Some(scratch) => endpoint.poll_event_with(&mut buffer, scratch),
            };
            match polled {
                Ok(None) => break,
                Ok(Some(event)) => events.push(event),
                Err(found) => assert!(fault.replace(found).is_none(), "one fault"),
            }
        }
        // The remaining bytes belong to a frame that has not arrived in full.
        assert!(fault.is_none() || buffer.is_empty());
    }
    let state = endpoint.state();
    let mut out = BytesMut::new();
    endpoint.poll_transmit(&mut out, usize::MAX, || KEY);
    (events, fault, state, out.into())
}

/// Sends messages in fragments to the other side, which receives them unchanged.
fn send_again(messages: Vec<Frame>, (mut sender, reader): (Endpoint, Endpoint)) {
    let mut out = BytesMut::new();
    for message in &messages {
        sender.send(message.clone()).expect("it is open, and texts are UTF-8");
    }
    sender.close(1000, "").expect("a sendable code");
    sender.poll_transmit(&mut out, usize::MAX, || KEY);
    let (events, fault, ..) = receive(reader, &out, 61);
    assert_eq!(fault, None);
    let received = events.into_iter().filter_map(|event| match event {
        Event::Message(frame) => Some(frame),
        _ => None,
    });
    assert!(received.eq(messages));
}

/// The answer to an upgrade, cut according to the first byte. Any other cut gives the same outcome.
pub fn upgrade(data: &[u8]) {
    let Some((cut, answer)) = data.split_first() else { return };
    let whole = upgraded(answer, answer.len());
    for cut in [1, usize::from(*cut)] {
        match (&whole, upgraded(answer, cut)) {
            // How soon a malformed head is detected depends on the cut, and so does the quoted text.
            (Err(UpgradeError::NotHttp { .. }), Err(UpgradeError::NotHttp { .. })) => {}
            (whole, pieces) => assert_eq!(*whole, pieces),
        }
    }
    match whole {
        Ok(upgraded) => assert!(answer.ends_with(&upgraded.leftover)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The outcome at the end of the stream, with the bytes after the answer.
fn upgraded(answer: &[u8], cut: usize) -> Result<Upgraded, UpgradeError> {
    let mut upgrade = Upgrade::new(&UpgradeRequest {
        host: "localhost",
        target: "/socket/websocket",
        headers: &[],
        subprotocols: &["phoenix".to_owned()],
        key: *b"the sample nonce",
    })?;
    let mut pieces = answer.chunks(cut.max(1));
    while let Some(piece) = pieces.next() {
        if let UpgradeStep::Done(mut upgraded) = upgrade.handle_read(piece)? {
            let rest: Vec<u8> = pieces.flatten().copied().collect();
            upgraded.leftover = [&upgraded.leftover[..], &rest].concat().into();
            return Ok(upgraded);
        }
    }
    Err(upgrade.handle_eof())
}
