//! The proxy that breaks connections does what it is told, and leaves nothing behind. Plain
//! sockets, no client of ours: a fault that does not happen would make every test of it pass.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use phx_tests::dice::Dice;
use phx_tests::fault_proxy::{FaultProxy, Manner, Way};
use phx_tests::left_behind::sockets_at;
use phx_tests::ports::Reserved;
use phx_tests::waiting::{DEADLINE, comes_true};

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
        let proxy = FaultProxy::start(listener.local_addr().unwrap(), Dice::thrown()).unwrap();
        prepare(&proxy);
        let client = TcpStream::connect(proxy.addr()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        assert!(comes_true(|| proxy.live() == 1));
        Self { proxy, client, server }
    }

    /// Ends it, and sees to it that nothing of the proxy is left.
    fn end(self) {
        // Reserved until it was looked at, so that no other test's sockets are counted.
        let port = self.proxy.port();
        self.proxy.close();
        drop((self.client, self.server));
        assert_eq!(sockets_at(port.addr()).unwrap(), 0, "the proxy left sockets behind");
    }
}

/// What can be read until the end of the stream.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).unwrap();
    seen
}

/// How many reads it takes to receive so many bytes.
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
fn every_harmless_manner_passes_every_byte_both_ways_in_order() {
    let mut dice = Dice::thrown();
    let mut manners: Vec<Manner> = (0..8).map(|_| Manner::harmless(&mut dice)).collect();
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
        // The end of one direction is passed on, and the other stays open.
        line.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(line.server.read(&mut [0]).unwrap(), 0);
        line.server.write_all(b"x").unwrap();
        line.client.read_exact(&mut [0]).unwrap();
        line.end();
    }
}

#[test]
fn bytes_that_are_split_arrive_in_pieces_and_coalesced_ones_in_one() {
    // A reader that is late finds all pieces at once, so it may take more than one attempt.
    let split = Manner::Split { most: 3 };
    let arrives_in_pieces = || {
        let mut line = Line::with(|proxy| proxy.treat_new(split, split));
        line.client.write_all(&pattern(60)).unwrap();
        let reads = reads_of(&mut line.server, 60);
        line.end();
        reads > 1
    };
    assert!(comes_true(arrives_in_pieces), "always in one piece");

    // The end of the stream ends the wait for more, so the wait can be longer than any pause here.
    // The pauses are for a proxy that does not gather: then bytes arrive together now and then.
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

    // Without it, what was gathered is written once the wait is over.
    let coalesce = Manner::Coalesce { wait: Duration::from_millis(20) };
    let mut line = Line::with(|proxy| proxy.treat_new(coalesce, coalesce));
    line.client.write_all(b"x").unwrap();
    line.server.read_exact(&mut [0]).unwrap();
    line.end();
}

#[test]
fn a_cut_is_an_end_of_the_stream_and_a_reset_is_an_error_at_both_ends() {
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
fn a_reset_of_one_end_is_passed_on() {
    let mut line = Line::new();
    // With a byte unread, closing is a reset (RFC 1122 section 4.2.2.13).
    line.server.write_all(b"x").unwrap();
    line.client.peek(&mut [0]).unwrap();
    drop(line.client);
    let error = line.server.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(comes_true(|| line.proxy.live() == 0));
    line.proxy.close();
}

#[test]
fn a_half_open_connection_loses_one_direction_and_keeps_the_other() {
    let mut line = Line::new();
    line.proxy.treat_live(Way::Up, Manner::Swallow);
    line.client.write_all(b"lost").unwrap();
    line.server.write_all(b"kept").unwrap();
    let mut kept = [0; 4];
    line.client.read_exact(&mut kept).unwrap();
    assert_eq!(&kept, b"kept");
    assert!(comes_true(|| line.proxy.swallowed() == 4), "it was passed on, or is still held");
    // What was swallowed would arrive before what follows it.
    line.proxy.treat_live(Way::Up, Manner::Whole);
    line.client.write_all(b"again").unwrap();
    line.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut line.server), b"again");
    line.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut line.client), b"");
    line.end();
}

#[test]
fn a_stalled_direction_takes_nothing_more_and_loses_nothing() {
    let mut line = Line::new();
    line.proxy.treat_live(Way::Up, Manner::Stall);
    line.client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut written = 0;
    let chunk = pattern(251 * 64);
    // More than the sockets between them hold; bounded all the same.
    let full = (0..4_096).any(|_| match line.client.write(&chunk[written % 251..]) {
        Ok(count) => {
            written += count;
            false
        }
        Err(_) => true,
    });
    assert!(full, "somebody reads");
    line.proxy.treat_live(Way::Up, Manner::Whole);
    let mut seen = vec![0; written];
    line.server.read_exact(&mut seen).unwrap();
    assert!(seen == pattern(written));
    line.end();
}

#[test]
fn a_slow_direction_takes_its_time() {
    let slow = Manner::Slow { bytes: 10, every: Duration::from_millis(5) };
    let mut line = Line::with(|proxy| proxy.treat_new(Manner::Whole, slow));
    let start = Instant::now();
    line.server.write_all(&pattern(100)).unwrap();
    line.client.read_exact(&mut [0; 100]).unwrap();
    // Nine pauses at least lie before the last piece, and a sleep is never too short.
    assert!(start.elapsed() >= Duration::from_millis(45));
    line.end();
}

#[test]
fn the_next_connection_is_cut_after_so_many_bytes_from_the_server() {
    let mut line = Line::with(|proxy| proxy.cut_next_after(7));
    line.server.write_all(b"0123456789").unwrap();
    assert_eq!(read_all(&mut line.client), b"0123456");
    line.end();
}

#[test]
fn a_server_that_is_down_is_a_client_that_is_hung_up_on() {
    let nobody = Reserved::new();
    let proxy = FaultProxy::start(nobody.addr(), Dice::new(1)).unwrap();
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    proxy.close();
}

#[test]
fn closing_ends_connections_that_stall_in_both_directions() {
    let mut line = Line::with(|proxy| proxy.treat_new(Manner::Stall, Manner::Stall));
    line.client.write_all(b"x").unwrap();
    line.server.write_all(b"x").unwrap();
    line.end();
}
