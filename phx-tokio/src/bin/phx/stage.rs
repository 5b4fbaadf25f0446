//! How far the tasks go that print, while a command ends.

use tokio::sync::watch;

/// A stage of the end. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// They print what comes.
    Follow,
    /// They print what is there.
    Drain,
    /// They count what is there.
    Count,
}

/// Waits until the end has come that far.
pub(crate) async fn reached(stages: &mut watch::Receiver<Stage>, stage: Stage) {
    // The sender lives as long as the tasks matter.
    if stages.wait_for(|now| *now >= stage).await.is_err() {
        core::future::pending().await
    }
}
