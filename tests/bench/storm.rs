//! A consumer that does not keep up: every lost message must be counted, and the mailbox must stay within
//! its memory bound.

use core::time::Duration;

use super::Failure;
use super::frames::{Body, Flood};
use super::measure::resident;
use super::ours::{self, Ours};
use super::server::Server;
use crate::phx::{ChannelEvent, Payload};
use crate::rt;

/// Messages of 1 KiB each, about 200 MB in total.
const MESSAGES: u64 = 200_000;

pub(crate) fn run() -> Result<(), Failure> {
    let server = Server::start()?;
    let port = server.port;
    rt::block_on(async move {
        let mut ours = Ours::open(ours::config(port)?, 1).await?;
        let before = resident();
        let flood = Flood { count: MESSAGES, body: Body::Records, topics: 1 };
        ours.room().push("flood", Payload::json(&flood)?).await?.ok()?;
        let mut peak = 0;
        while ours.client().stats().frames_in < MESSAGES {
            peak = peak.max(resident());
            rt::sleep(Duration::from_millis(1)).await;
        }
        let (mut seen, mut lost) = (0, 0);
        while seen + lost < MESSAGES {
            match ours.stream().next().await {
                Some(ChannelEvent::Message(_)) => seen += 1,
                Some(ChannelEvent::Lagged(count)) => lost += count,
                other => return Err(format!("instead of a message: {other:?}").into()),
            }
        }
        let counted = ours.client().stats().mailbox_drops;
        println!("\na storm of {MESSAGES} messages of 1 KiB to a consumer that reads none of them");
        println!("read after it: {seen}, reported as lost: {lost}, in the statistics: {counted}");
        println!(
            "memory grew by {:.1} MiB; the mailbox may hold 8 MiB",
            peak.saturating_sub(before) as f64 / f64::from(1 << 20)
        );
        if counted != lost { Err("the statistics have another number".into()) } else { Ok(()) }
    })
}
