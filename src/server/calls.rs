//! How calls run: where they arrive, for as long as they need not wait.
//!
//! hyper gives each call to an executor, which is meant to make a task of it. A call of ours that
//! has arrived whole is answered by a few microseconds of computing, and a task for it costs about
//! as much again (`cargo bench --bench socket`, before and after). So calls are kept until the connection has nothing more to read, and then asked
//! once, all of them, before the connection writes their answers. What must wait becomes a task,
//! which ends in time whatever the peer does: it may give us no window for the answer.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::timeout;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection that have arrived and were not asked yet.
#[derive(Clone)]
pub(super) struct Calls {
    arrived: Arc<Mutex<Vec<Call>>>,
    limit: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.arrived().push(Box::pin(call));
    }
}

impl Calls {
    /// A call that waits longer than `limit` is dropped, which resets its stream.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            arrived: Arc::default(),
            limit,
        }
    }

    fn arrived(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the connection and the calls that come over it, until both must wait.
    pub(super) fn poll<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        loop {
            let ended = connection.as_mut().poll(context);
            let arrived = mem::take(&mut *self.arrived());
            if ended.is_ready() || arrived.is_empty() {
                return ended;
            }
            arrived.into_iter().for_each(|call| ask(call, self.limit));
        }
    }
}

/// Nobody need wake a call that is asked here: it is answered, or asked again as a task.
fn ask(mut call: Call, limit: Duration) {
    let mut once = Context::from_waker(Waker::noop());
    if call.as_mut().poll(&mut once).is_pending() {
        tokio::spawn(async move {
            if timeout(limit, call).await.is_err() {
                tracing::debug!("a call is dropped whose answer was not taken in time");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A connection over which these batches of calls come, one batch each time it is polled. It
    /// notes when it is polled, and ends after the last.
    fn connection(
        calls: &Calls,
        batches: Vec<Vec<Call>>,
        notes: mpsc::UnboundedSender<&'static str>,
    ) -> impl Future<Output = ()> + use<> {
        let calls = calls.clone();
        let mut batches = batches.into_iter();
        poll_fn(move |_| {
            notes.send("polled").unwrap();
            match batches.next() {
                Some(batch) => batch.into_iter().for_each(|call| calls.execute(call)),
                None => return Poll::Ready(()),
            }
            Poll::Pending
        })
    }

    fn noting(notes: &mpsc::UnboundedSender<&'static str>, note: &'static str) -> Call {
        let notes = notes.clone();
        Box::pin(async move { notes.send(note).unwrap() })
    }

    #[tokio::test]
    async fn calls_that_come_together_are_answered_before_the_connection_goes_on() {
        let (notes, mut noted) = mpsc::unbounded_channel();
        let calls = Calls::new(LIMIT);
        let batches = vec![
            vec![noting(&notes, "one"), noting(&notes, "two")],
            vec![noting(&notes, "three")],
        ];
        let mut connection = pin!(connection(&calls, batches, notes));
        // No waker is ever woken: whatever happens, happens within one poll.
        let mut once = Context::from_waker(Waker::noop());
        assert!(calls.poll(connection.as_mut(), &mut once).is_ready());

        let order: Vec<_> = std::iter::from_fn(|| noted.try_recv().ok()).collect();
        assert_eq!(order, ["polled", "one", "two", "polled", "three", "polled"]);
    }

    #[tokio::test]
    async fn a_call_that_must_wait_holds_nobody_up_and_is_answered_when_it_can_be() {
        let (notes, mut noted) = mpsc::unbounded_channel();
        let calls = Calls::new(LIMIT);
        let (go, wait) = oneshot::channel();
        let later = {
            let notes = notes.clone();
            async move {
                wait.await.unwrap();
                notes.send("later").unwrap();
            }
        };
        let batches: Vec<Vec<Call>> = vec![vec![Box::pin(later), noting(&notes, "now")]];
        let mut connection = pin!(connection(&calls, batches, notes));
        poll_fn(|context| calls.poll(connection.as_mut(), context)).await;
        let order: Vec<_> = std::iter::from_fn(|| noted.try_recv().ok()).collect();
        assert_eq!(order, ["polled", "now", "polled"]);

        go.send(()).unwrap();
        assert_eq!(noted.recv().await, Some("later"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_too_long_is_dropped() {
        let (notes, _noted) = mpsc::unbounded_channel();
        let calls = Calls::new(LIMIT);
        let began = tokio::time::Instant::now();
        // Dropped, it drops its half of this channel.
        let (held, mut dropped) = mpsc::unbounded_channel::<()>();
        let never = async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        let batches: Vec<Vec<Call>> = vec![vec![Box::pin(never), noting(&notes, "now")]];
        let mut connection = pin!(connection(&calls, batches, notes));
        poll_fn(|context| calls.poll(connection.as_mut(), context)).await;
        assert_eq!(dropped.recv().await, None);
        assert_eq!(began.elapsed(), LIMIT);
    }
}
