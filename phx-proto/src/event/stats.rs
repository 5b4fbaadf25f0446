//! Counters, for people and for tests.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Time;

/// What happened so far, from [`Socket::stats`](crate::Socket::stats). Counters only grow.
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
    /// Frames handed out to be written.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames received on the current connection of their time.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Connections that opened.
    pub connections: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Open connections that were lost.
    pub lost_connections: u64,
    /// Why each of them, and each failed attempt, was followed by another: reconnects by the
    /// [name](crate::Cause::name) of the cause.
    pub reconnects: BTreeMap<&'static str, u64>,
    /// Messages delivered.
    pub messages: u64,
    /// Messages for a topic that is not wanted, or not joined at the moment.
    pub messages_not_joined: u64,
    /// Frames of an earlier instance of a channel. An ordinary leave adds one: the `phx_close` that
    /// follows the reply.
    pub stale_frames: u64,
    /// Inputs that carried the id of an earlier connection.
    pub stale_inputs: u64,
    /// Replies that no call waits for: a second reply, a reply that came too late, a reply to a cast.
    pub late_replies: u64,
    /// Messages that mailboxes dropped, and signals that streams of signals dropped. A mailbox counts only
    /// once it is read: the first mailbox of a handle that uses only [`on`](crate::client::Channel::on)
    /// counts nothing. Always 0 without the driver.
    pub mailbox_drops: u64,
    /// Frames that could not be decoded.
    pub protocol_errors: u64,
    /// Pushes accepted and not yet written, now.
    pub queued_pushes: usize,
    /// The bytes of their payloads and event names, now.
    pub queued_bytes: usize,
    /// Calls written and not yet answered, now.
    pub pushes_in_flight: usize,
    /// The last heartbeat's round-trip time.
    pub last_rtt: Option<Duration>,
    /// How long the last join that was answered with ok took, from its writing.
    pub last_join: Option<Duration>,
    /// When the last frame was received.
    pub last_frame_at: Option<Time>,
}
