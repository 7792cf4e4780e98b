//! How calls run: where they arrive, for as long as they need not wait.
//!
//! hyper gives each call to an executor, which is meant to make a task of it. A call of ours that
//! has arrived whole is answered by a few microseconds of computing, and a task for it costs about
//! as much again. So calls are kept until the connection has nothing more to read, and then asked
//! once, all of them, before the connection writes their answers. What must wait becomes a task.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection that have arrived and were not asked yet.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.arrived().push(Box::pin(call));
    }
}

impl Calls {
    fn arrived(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            arrived.into_iter().for_each(ask);
        }
    }
}

/// Nobody need wake a call that is asked here: it is answered, or asked again as a task.
fn ask(mut call: Call) {
    let mut once = Context::from_waker(Waker::noop());
    if call.as_mut().poll(&mut once).is_pending() {
        tokio::spawn(call);
    }
}
