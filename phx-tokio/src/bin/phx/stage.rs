//! The stages in which printing tasks end.

use tokio::sync::watch;

/// A stage of the shutdown. Reaching a stage includes reaching the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Print everything that arrives.
    Follow,
    /// Print what has arrived, and then end.
    Drain,
    /// Count what has arrived, and then end.
    Count,
}

/// Waits until the shutdown has reached a stage.
pub(crate) async fn reached(stages: &mut watch::Receiver<Stage>, stage: Stage) {
    // If the sender was dropped, no further stage is reached, and the future stays pending.
    if stages.wait_for(|now| *now >= stage).await.is_err() {
        core::future::pending().await
    }
}
