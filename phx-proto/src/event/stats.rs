//! Counters of a socket.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Time;

/// Counters and current values of a socket, from [`Socket::stats`](crate::Socket::stats). Counters only
/// grow; values marked "now" go up and down.
///
/// ```
/// use phx_proto::event::Stats;
///
/// fn show(stats: &Stats) {
///     println!("{} lost, {} in the queue", stats.lost_connections, stats.queued_pushes);
///     for (cause, count) in &stats.reconnects {
///         println!("{cause} {count}");
///     }
/// }
/// # show(&Stats::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames passed to the driver to be written.
    pub frames_out: u64,
    /// Bytes of the frames passed to the driver.
    pub bytes_out: u64,
    /// Frames received, except those of an earlier connection.
    pub frames_in: u64,
    /// Bytes of the frames received.
    pub bytes_in: u64,
    /// Connections that opened.
    pub connections: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Open connections that were lost.
    pub lost_connections: u64,
    /// Lost connections and failed attempts that were followed by a retry, by the
    /// [name](crate::Cause::name) of the cause.
    pub reconnects: BTreeMap<&'static str, u64>,
    /// Messages delivered, including unrouted ones.
    pub messages: u64,
    /// Messages dropped because their topic was not wanted, or not joined at the moment.
    pub messages_not_joined: u64,
    /// Unrouted messages that were dropped because
    /// [`Socket::report_unrouted`](crate::Socket::report_unrouted) was off. With the driver, it is off
    /// while no stream of `Client::unrouted` takes messages. They count in `messages_not_joined` too.
    pub messages_unrouted: u64,
    /// Frames of an earlier instance of a channel. An ordinary leave adds one: the `phx_close` that
    /// follows the reply.
    pub stale_frames: u64,
    /// Inputs that carried the id of an earlier connection.
    pub stale_inputs: u64,
    /// Replies for which no call was waiting: second replies, late replies, and replies to casts.
    pub late_replies: u64,
    /// Messages that mailboxes dropped, and signals that streams of signals dropped. The drops of a
    /// mailbox are added only when a stream reads that mailbox. A handle that joins has a first mailbox,
    /// which streams of [`on`](crate::client::Channel::on) do not read; if the application uses only such
    /// streams, the drops of that mailbox are never added. Without the driver, the number is 0.
    pub mailbox_drops: u64,
    /// Frames that could not be decoded.
    pub protocol_errors: u64,
    /// Pushes accepted and not yet written, now.
    pub queued_pushes: usize,
    /// Bytes of payloads and event names of the queued pushes, now.
    pub queued_bytes: usize,
    /// Repeats of pushes by [`Channel::push_repeating`](crate::client::Channel::push_repeating) that the
    /// push queue accepted. Always 0 without the driver.
    pub pushes_repeated: u64,
    /// Calls written and not yet answered, now.
    pub pushes_in_flight: usize,
    /// Round-trip time of the last heartbeat.
    pub last_rtt: Option<Duration>,
    /// Time from writing to reply of the last successful join.
    pub last_join: Option<Duration>,
    /// Time at which the last frame was received.
    pub last_frame_at: Option<Time>,
}
