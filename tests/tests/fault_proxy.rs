//! The fault proxy injects the faults that were set, and leaves no socket open. These tests use
//! plain sockets. Without them, a fault that is not injected would go unnoticed, because the tests
//! of the clients would then pass.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use phx_tests::fault_proxy::{FaultProxy, Manner, Way};
use phx_tests::ports::Reserved;
use phx_tests::resources::sockets_at;
use phx_tests::rng::Rng;
use phx_tests::waiting::{DEADLINE, wait_until};

/// A proxy, and the two ends of one connection through it.
struct Line {
    proxy: FaultProxy,
    client: TcpStream,
    server: TcpStream,
}

impl Line {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(prepare: impl FnOnce(&FaultProxy)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap(), Rng::from_env()).unwrap();
        prepare(&proxy);
        let client = TcpStream::connect(proxy.addr()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        assert!(wait_until(|| proxy.live() == 1));
        Self { proxy, client, server }
    }

    /// Closes the line, and asserts that the proxy left no socket behind.
    fn end(self) {
        // The port stays reserved until the sockets are counted, so that no socket of another test
        // is included.
        let port = self.proxy.port();
        self.proxy.close();
        drop((self.client, self.server));
        assert_eq!(sockets_at(port.addr()).unwrap(), 0, "the proxy left sockets behind");
    }
}

/// Reads until the end of the stream.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).unwrap();
    seen
}

/// The number of reads that it takes to receive this many bytes.
fn reads_of(stream: &mut TcpStream, bytes: usize) -> usize {
    let mut buffer = vec![0; bytes];
    let (mut reads, mut seen) = (0, 0);
    while seen < bytes {
        let count = stream.read(&mut buffer[seen..]).unwrap();
        assert_ne!(count, 0, "the stream ended");
        seen += count;
        reads += 1;
    }
    reads
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn harmless_manners_keep_all_bytes() {
    let mut rng = Rng::from_env();
    let mut manners: Vec<Manner> = (0..8).map(|_| Manner::harmless(&mut rng)).collect();
    manners.push(Manner::Slow { bytes: 999, every: Duration::from_millis(1) });
    for manner in manners {
        println!("{manner:?}");
        let mut line = Line::with(|proxy| proxy.treat_new(manner, manner));
        let sent = pattern(30_000);
        let mut seen = vec![0; sent.len()];
        line.client.write_all(&sent).unwrap();
        line.server.read_exact(&mut seen).unwrap();
        assert!(seen == sent, "up");
        line.server.write_all(&sent).unwrap();
        line.client.read_exact(&mut seen).unwrap();
        assert!(seen == sent, "down");
        // The end of one direction is forwarded, and the other stays open.
        line.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(line.server.read(&mut [0]).unwrap(), 0);
        line.server.write_all(b"x").unwrap();
        line.client.read_exact(&mut [0]).unwrap();
        line.end();
    }
}

/// Split bytes arrive in pieces, coalesced ones in one.
#[test]
fn split_and_coalesce_shape_reads() {
    // A late reader finds all pieces at once, so it may take more than one attempt.
    let split = Manner::Split { most: 3 };
    let arrives_in_pieces = || {
        let mut line = Line::with(|proxy| proxy.treat_new(split, split));
        line.client.write_all(&pattern(60)).unwrap();
        let reads = reads_of(&mut line.server, 60);
        line.end();
        reads > 1
    };
    assert!(wait_until(arrives_in_pieces), "always in one piece");

    // The wait for further bytes ends with the stream, so it can be longer than any pause of the
    // test. Without coalescing, the bytes would arrive in several reads because of the pauses
    // between them.
    let coalesce = Manner::Coalesce { wait: DEADLINE };
    for _ in 0..10 {
        let mut line = Line::with(|proxy| proxy.treat_new(coalesce, coalesce));
        thread::scope(|scope| {
            let reads = scope.spawn(|| reads_of(&mut line.server, 20));
            for byte in 0..20 {
                line.client.write_all(&[byte]).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
            line.client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(reads.join().unwrap(), 1);
        });
        line.end();
    }

    // While the stream stays open, the collected bytes are written when the wait is over.
    let coalesce = Manner::Coalesce { wait: Duration::from_millis(20) };
    let mut line = Line::with(|proxy| proxy.treat_new(coalesce, coalesce));
    line.client.write_all(b"x").unwrap();
    line.server.read_exact(&mut [0]).unwrap();
    line.end();
}

#[test]
fn cut_is_eof_and_reset_an_error() {
    let mut line = Line::new();
    assert_eq!(line.proxy.cut(), 1);
    assert_eq!(line.client.read(&mut [0]).unwrap(), 0);
    assert_eq!(line.server.read(&mut [0]).unwrap(), 0);
    assert_eq!(line.proxy.live(), 0);
    line.end();

    let mut line = Line::new();
    assert_eq!(line.proxy.reset(), 1);
    for socket in [&mut line.client, &mut line.server] {
        let error = socket.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    line.end();
}

#[test]
fn reset_of_one_end_is_forwarded() {
    let mut line = Line::new();
    // Closing a stream with an unread byte sends a reset (RFC 1122 section 4.2.2.13).
    line.server.write_all(b"x").unwrap();
    line.client.peek(&mut [0]).unwrap();
    drop(line.client);
    let error = line.server.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(wait_until(|| line.proxy.live() == 0));
    line.proxy.close();
}

#[test]
fn half_open_connection_loses_one_direction() {
    let mut line = Line::new();
    line.proxy.treat_live(Way::Up, Manner::Swallow);
    line.client.write_all(b"lost").unwrap();
    line.server.write_all(b"kept").unwrap();
    let mut kept = [0; 4];
    line.client.read_exact(&mut kept).unwrap();
    assert_eq!(&kept, b"kept");
    assert!(
        wait_until(|| line.proxy.swallowed() == 4),
        "the bytes were forwarded, or are still held"
    );
    // If the discarded bytes had been held, they would arrive before these.
    line.proxy.treat_live(Way::Up, Manner::Whole);
    line.client.write_all(b"again").unwrap();
    line.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut line.server), b"again");
    line.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut line.client), b"");
    line.end();
}

#[test]
fn stalled_direction_loses_nothing() {
    let mut line = Line::new();
    line.proxy.treat_live(Way::Up, Manner::Stall);
    line.client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut written = 0;
    let chunk = pattern(251 * 64);
    // The loop is bounded. It writes more bytes than all socket buffers together can hold.
    let full = (0..4_096).any(|_| match line.client.write(&chunk[written % 251..]) {
        Ok(count) => {
            written += count;
            false
        }
        Err(_) => true,
    });
    assert!(full, "the stalled direction is still read");
    line.proxy.treat_live(Way::Up, Manner::Whole);
    let mut seen = vec![0; written];
    line.server.read_exact(&mut seen).unwrap();
    assert!(seen == pattern(written));
    line.end();
}

#[test]
fn slow_direction_takes_time() {
    let slow = Manner::Slow { bytes: 10, every: Duration::from_millis(5) };
    let mut line = Line::with(|proxy| proxy.treat_new(Manner::Whole, slow));
    let start = Instant::now();
    line.server.write_all(&pattern(100)).unwrap();
    line.client.read_exact(&mut [0; 100]).unwrap();
    // At least nine pauses precede the last piece, and a sleep is never too short.
    assert!(start.elapsed() >= Duration::from_millis(45));
    line.end();
}

#[test]
fn cut_next_after_counts_server_bytes() {
    let mut line = Line::with(|proxy| proxy.cut_next_after(7));
    line.server.write_all(b"0123456789").unwrap();
    assert_eq!(read_all(&mut line.client), b"0123456");
    line.end();
}

#[test]
fn unreachable_server_ends_the_client() {
    let unreachable = Reserved::new();
    let proxy = FaultProxy::start(unreachable.addr(), Rng::new(1)).unwrap();
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    proxy.close();
}

#[test]
fn close_ends_stalled_connections() {
    let mut line = Line::with(|proxy| proxy.treat_new(Manner::Stall, Manner::Stall));
    line.client.write_all(b"x").unwrap();
    line.server.write_all(b"x").unwrap();
    line.end();
}
