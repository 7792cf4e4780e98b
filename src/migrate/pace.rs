//! How fast kube-apiserver is asked: at most so often, and not before it wants to be asked again.
//!
//! How many calls are in flight at once is the caller's limit; one that waits here is one of them.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The turns of one run. All of its calls share one task, hence no locks.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two calls.
    gap: Duration,
    /// When the next call may be made.
    next: Cell<Instant>,
}

impl Pace {
    /// At most this many calls a second; as many as come without a rate.
    pub(super) fn new(rate: Option<NonZeroU32>) -> Self {
        Self {
            gap: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get()),
            next: Cell::new(Instant::now()),
        }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) {
        loop {
            let (now, next) = (Instant::now(), self.next.get());
            if next <= now {
                self.next.set(now + self.gap);
                return;
            }
            sleep_until(next).await;
        }
    }

    /// Nobody has a turn for this long.
    pub(super) fn hold(&self, pause: Duration) {
        self.next.set(self.next.get().max(Instant::now() + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spread_over_a_second() {
        let pace = Pace::new(NonZeroU32::new(10));
        let started = Instant::now();
        futures_util::future::join_all((0..21).map(|_| pace.turn())).await;
        assert_eq!(started.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits_until_told_to() {
        let pace = Pace::new(None);
        let started = Instant::now();
        futures_util::future::join_all((0..1000).map(|_| pace.turn())).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        pace.hold(Duration::from_secs(7));
        pace.hold(Duration::from_secs(2));
        futures_util::future::join_all((0..1000).map(|_| pace.turn())).await;
        assert_eq!(started.elapsed().as_secs(), 7);
    }
}
