//! What runs beside the server. Without one of these the plugin would answer calls, and nobody would
//! see that it no longer follows its keyring; so it ends, and whoever started it starts it again.

use std::future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cli::failure::{Exit, Failure};

/// The tasks beside the server.
#[derive(Default)]
pub(super) struct Parts(JoinSet<()>);

impl Parts {
    pub(super) fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(part);
    }

    /// Ready when one of them panicked. One that came to its end is none the worse.
    pub(super) async fn broken(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            if ended.is_err() {
                return;
            }
        }
        future::pending().await
    }

    /// What is said of one that panicked.
    pub(super) fn failure() -> Failure {
        let (doing, cause) = (
            "following the keyring",
            "a fault of our own; the log says where",
        );
        let next = "start the plugin again, and report the fault if it comes again";
        Failure::new(Exit::Fault, doing, cause, next)
    }

    /// Waits for so long until all came to their end.
    pub(super) async fn end_within(&mut self, patience: Duration) {
        let ended = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_noticed_and_an_end_is_not() {
        let mut parts = Parts::default();
        parts.spawn(async {});
        let noticed = tokio::time::timeout(Duration::from_secs(1), parts.broken()).await;
        assert!(noticed.is_err());
        parts.spawn(future::pending());
        parts.spawn(async { panic!("a fault of the test's own") });
        parts.broken().await;
        parts.end_within(Duration::from_secs(1)).await;
    }
}
