//! Every stale object once: what is tried again, when it is given up, and what stops everything.
//!
//! | kube-apiserver | what follows |
//! |---|---|
//! | 2xx | rewritten |
//! | 404 of the object | deleted meanwhile: nothing is left to rewrite |
//! | 409, 5xx, a broken or late answer | tried again after a pause that doubles; then a failure |
//! | 429 | everybody waits as long as it says; after [`Limits::patience`] a failure |
//! | no connection | tried again until nothing answered for [`Limits::patience`]; then all stops |
//! | 401 | all stops |
//! | anything else | a failure, with the reason that kube-apiserver gives |
//!
//! A webhook that is down answers 500 for every object of a resource. So after [`STREAK`] failures
//! of a resource in a row its objects are tried once each, until one succeeds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::api::{Api, CallError, NoAnswer, Refusal};
use super::discovery::{Apis, NoPath};
use super::pace::Pace;
use crate::audit::object::{Name, Resource};

/// After so many failures in a row a resource's objects are not tried twice.
const STREAK: u32 = 8;

/// The most failures that are kept one by one; all are counted.
pub const FAILURES: usize = 1000;

/// How hard kube-apiserver is pressed, and how long an object is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once; at least one. Administrators' calls are not subject to kube-apiserver's own
    /// fairness between callers, so this is what leaves the others alone.
    pub in_flight: usize,
    /// Calls a second.
    pub rate: Option<NonZeroU32>,
    /// How often one object is tried; at least once.
    pub attempts: u32,
    /// Before the second try; it doubles from one to the next.
    pub pause: Duration,
    /// The longest pause that kube-apiserver may ask for.
    pub longest_pause: Duration,
    /// How long kube-apiserver may be away, or say "later".
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 8,
            rate: None,
            attempts: 5,
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Kube-apiserver says that it stored it.
    Rewritten,
    /// It was deleted before its turn.
    Deleted,
    /// It is as it was, for this reason.
    Failed(String),
}

/// An object that is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failed {
    /// The object: `secrets/prod/db`.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// What became of all.
#[derive(Debug, Default)]
pub struct Tally {
    /// Stored anew, as kube-apiserver says.
    pub rewritten: u64,
    /// Deleted before their turn.
    pub deleted: u64,
    /// As they were.
    pub failed: u64,
    /// The first [`FAILURES`] of those.
    pub failures: Vec<Failed>,
    /// Resources of which kube-apiserver forbade a patch.
    pub forbidden: BTreeSet<Resource>,
}

/// Why not every object had its turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The caller wanted it.
    #[error("interrupted")]
    Asked,
    /// Kube-apiserver does not know us, or no longer.
    #[error("{0}")]
    Unauthorized(String),
    /// Kube-apiserver is away.
    #[error("{0}")]
    Away(NoAnswer),
}

/// What to do after a call that was not carried out.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Done(Outcome),
    /// Try this object again after a pause.
    Again(Duration),
    /// Everybody waits, then this object is tried again. It does not count as a try.
    Hold(Duration),
    Stop(Stop),
}

/// Rewrites every object of a stream of etcd keys, below this prefix (`/registry`). `seen` hears of
/// each when it is done.
///
/// Once `stop` is cancelled no call is begun, and those in flight are waited for.
///
/// # Errors
/// The first error of the stream: where the keys cannot be read to their end.
pub async fn rewrite<E>(
    (api, apis, limits): (&Api, &Apis, &Limits),
    prefix: &str,
    keys: impl Stream<Item = Result<Vec<u8>, E>>,
    seen: impl Fn(&Outcome),
    stop: &CancellationToken,
) -> Result<(Tally, Option<Stop>), E> {
    let run = Run::new(api, apis, limits, stop.child_token());
    let broken = RefCell::new(None);
    keys.take_until(run.stop.cancelled())
        .for_each_concurrent(limits.in_flight, async |key| match key {
            Ok(key) => {
                if let Some(outcome) = run.object(&key, prefix).await {
                    seen(&outcome);
                }
            }
            Err(error) => {
                run.stop.cancel();
                broken.borrow_mut().get_or_insert(error);
            }
        })
        .await;
    if let Some(error) = broken.into_inner() {
        return Err(error);
    }
    let stopped = run.stopped.into_inner();
    let asked = run.stop.is_cancelled().then_some(Stop::Asked);
    Ok((run.tally.into_inner(), stopped.or(asked)))
}

struct Run<'a> {
    api: &'a Api,
    apis: &'a Apis,
    limits: &'a Limits,
    pace: Pace,
    stop: CancellationToken,
    stopped: RefCell<Option<Stop>>,
    /// When kube-apiserver last answered anything.
    heard: Cell<Instant>,
    /// Failures in a row, by resource.
    streaks: RefCell<HashMap<Resource, u32>>,
    tally: RefCell<Tally>,
}

impl<'a> Run<'a> {
    fn new(api: &'a Api, apis: &'a Apis, limits: &'a Limits, stop: CancellationToken) -> Self {
        Self {
            api,
            apis,
            limits,
            pace: Pace::new(limits.rate),
            stop,
            stopped: RefCell::default(),
            heard: Cell::new(Instant::now()),
            streaks: RefCell::default(),
            tally: RefCell::default(),
        }
    }

    /// Rewrites one object. `None` where it had no turn, or was interrupted before its end.
    async fn object(&self, key: &[u8], prefix: &str) -> Option<Outcome> {
        let Some(name) = Name::parse(key, prefix) else {
            let shown = key.escape_ascii().to_string();
            return Some(self.count(shown, None, Outcome::Failed(NoPath::Strange.to_string())));
        };
        let resource = Resource::stored_under(name.kind);
        let outcome = match self.apis.path(&name) {
            Ok(path) => self.path(&path, &resource).await?,
            Err(reason) => Outcome::Failed(reason.to_string()),
        };
        Some(self.count(name.to_string(), Some(resource), outcome))
    }

    async fn path(&self, path: &str, resource: &Resource) -> Option<Outcome> {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            let turn = self.stop.run_until_cancelled(self.pace.turn());
            turn.await?;
            let answer = self.api.rewrite(path).await;
            let Err(error) = answer else {
                self.heard.set(Instant::now());
                return Some(Outcome::Rewritten);
            };
            if let CallError::Refused(refusal) = &error {
                self.heard.set(Instant::now());
                if refusal.status == 403 {
                    let mut tally = self.tally.borrow_mut();
                    tally.forbidden.insert(resource.clone());
                }
            }
            tried += 1;
            match self.next(&error, tried, begun, resource) {
                Next::Done(outcome) => return Some(outcome),
                Next::Again(pause) => self.stop.run_until_cancelled(sleep(pause)).await?,
                Next::Hold(pause) => {
                    tried -= 1;
                    self.pace.hold(pause);
                }
                Next::Stop(why) => {
                    self.stopped.borrow_mut().get_or_insert(why);
                    self.stop.cancel();
                    return None;
                }
            }
        }
    }

    fn next(&self, error: &CallError, tried: u32, begun: Instant, resource: &Resource) -> Next {
        let limits = self.limits;
        let again = || {
            let streak = self.streaks.borrow().get(resource).copied();
            if tried >= limits.attempts || streak >= Some(STREAK) {
                return Next::Done(Outcome::Failed(error.to_string()));
            }
            let pause = limits.pause.saturating_mul(1 << (tried - 1).min(16));
            Next::Again(pause.min(limits.longest_pause))
        };
        match error {
            CallError::Refused(refusal) => match refusal.status {
                401 => Next::Stop(Stop::Unauthorized(refusal.message.clone())),
                404 if refusal.names_object => Next::Done(Outcome::Deleted),
                429 if begun.elapsed() < limits.patience => Next::Hold(wait(refusal, limits)),
                409 | 500..=599 => again(),
                _ => Next::Done(Outcome::Failed(error.to_string())),
            },
            CallError::NoAnswer(why) if self.heard.get().elapsed() >= limits.patience => {
                Next::Stop(Stop::Away(why.clone()))
            }
            CallError::NoAnswer(NoAnswer::Unreachable(_)) => {
                let pause = limits.pause.saturating_mul(1 << (tried - 1).min(3));
                Next::Again(pause.min(limits.longest_pause))
            }
            CallError::NoAnswer(_) => again(),
        }
    }

    fn count(&self, object: String, resource: Option<Resource>, outcome: Outcome) -> Outcome {
        let mut tally = self.tally.borrow_mut();
        let mut streaks = self.streaks.borrow_mut();
        match &outcome {
            Outcome::Rewritten => {
                tally.rewritten += 1;
                resource.map(|resource| streaks.remove(&resource));
            }
            Outcome::Deleted => tally.deleted += 1,
            Outcome::Failed(reason) => {
                tally.failed += 1;
                if let Some(resource) = resource {
                    *streaks.entry(resource).or_default() += 1;
                }
                if tally.failures.len() < FAILURES {
                    let reason = reason.clone();
                    tally.failures.push(Failed { object, reason });
                }
            }
        }
        outcome
    }
}

/// How long kube-apiserver wants everybody to wait; a second where it does not say.
fn wait(refusal: &Refusal, limits: &Limits) -> Duration {
    let asked = refusal.retry_after.unwrap_or(Duration::from_secs(1));
    asked.clamp(limits.pause, limits.longest_pause)
}
