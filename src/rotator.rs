//! Speaks for this member, and turns the keys: writes its record, and does what the policy asks for
//! when it is due.
//!
//! Everything is looked at once a second. Decisions are `claviger_keystore::rotation`'s, which is
//! pure; this is where their time passes and their commits are made.

mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_keystore::Keystore;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::member::{MemberName, MemberRecord, RootRecord};
use claviger_keystore::rotation::{self, Action, Request};
use claviger_keystore::store::new_instance;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::convergence::Convergence;
use crate::member_lock::MemberLock;
use crate::service::Clock;
use report::{Moment, Reporter, Seen, differs};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A record is written at least this often, so that it is not taken for an old one.
const REPEAT: Duration = Duration::from_secs(60);

/// What a rotator is made of.
pub struct Deps {
    /// The keys.
    pub keystore: Arc<Keystore>,
    /// What the apiservers have understood.
    pub convergence: Arc<Convergence>,
    /// How the roots are, from whoever asks them.
    pub roots: watch::Receiver<Vec<RootRecord>>,
    /// This member.
    pub name: MemberName,
    /// Where the keyring lies: who acts for this member holds the lock beside it.
    pub keyring: PathBuf,
    /// What time it is.
    pub clock: Clock,
}

/// The task that speaks for this member.
pub struct Rotator {
    deps: Deps,
    /// Taken as soon as nobody else acts for this member, and kept.
    lock: Option<MemberLock>,
    /// Made once the keyring is open: an earlier instance's record is read then.
    reporter: Option<Reporter>,
    /// The record that lies in the storage, and when it was written.
    written: Option<(MemberRecord, Duration)>,
    /// Since when the policy's rotation is due, by CLOCK_BOOTTIME.
    due_since: Option<Duration>,
    /// What was last said about a failure or a wait, so that it is said once.
    said: Option<String>,
}

impl Rotator {
    /// The rotator of one member.
    pub fn new(deps: Deps) -> Self {
        Self {
            deps,
            lock: None,
            reporter: None,
            written: None,
            due_since: None,
            said: None,
        }
    }

    /// Goes on until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let go_on = async move {
            loop {
                looks.tick().await;
                let now = Moment {
                    boottime: (self.deps.clock.boottime)(),
                    wall: (self.deps.clock.wall)(),
                };
                let looked = self.look(now).await;
                self.tell(looked);
            }
        };
        shutdown.run_until_cancelled(go_on).await;
    }

    /// Says for whom a rotation waits, if it does.
    async fn look(&mut self, now: Moment) -> Result<Option<String>, Error> {
        if self.lock.is_none() {
            let taken =
                MemberLock::take(&self.deps.keyring).map_err(|source| StorageError::Io {
                    doing: "locking this member beside",
                    path: self.deps.keyring.clone(),
                    source,
                })?;
            let Some(lock) = taken else {
                // A command that acts while no plugin runs, or another plugin.
                return Ok(None);
            };
            self.lock = Some(lock);
        }
        self.report(now).await?;
        self.turn(now).await
    }

    /// Writes this member's record where it says something new, or is a minute old.
    async fn report(&mut self, now: Moment) -> Result<(), Error> {
        let keystore = self.deps.keystore.clone();
        let (Some(keyring), Some(acknowledged)) =
            (keystore.keyring().await, keystore.acknowledged().await)
        else {
            return Ok(());
        };
        let reporter = match &mut self.reporter {
            Some(reporter) => reporter,
            none => {
                let members = keystore.members().await?;
                let name = self.deps.name.clone();
                let own = members.iter().find(|member| member.name == name);
                let earlier = own.and_then(|member| member.record());
                // A command that destroyed a key may have been killed before it was through.
                keystore.drop_destroyed(now.wall).await?;
                none.insert(Reporter::new(name, new_instance()?, earlier))
            }
        };
        let answers = keystore
            .view()
            .snapshot()
            .ok()
            .and_then(|snapshot| snapshot.primary().ok());
        let roots = self.deps.roots.borrow().clone();
        let seen = Seen {
            acknowledged,
            answers,
            convergence: &self.deps.convergence,
            roots: &roots,
        };
        let record = reporter.record(&keyring, seen, now);
        if let Some((written, at)) = &self.written
            && now.boottime.saturating_sub(*at) < REPEAT
            && !differs(&record, written)
        {
            return Ok(());
        }
        keystore.put_member(&record).await?;
        self.written = Some((record, now.boottime));
        Ok(())
    }

    /// Does the next step of a rotation that is due, or that a restore began.
    async fn turn(&mut self, now: Moment) -> Result<Option<String>, Error> {
        let keystore = &self.deps.keystore;
        let Some(keyring) = keystore.keyring().await else {
            return Ok(None);
        };
        let header = keyring.header();
        let due = rotation::due_at(header).is_some_and(|at| at <= now.wall);
        let due_since = due.then(|| self.due_since.unwrap_or(now.boottime));
        self.due_since = due_since;
        if !due && header.primary().is_some() {
            return Ok(None);
        }
        let due_for = due_since.map_or(Duration::ZERO, |since| now.boottime.saturating_sub(since));
        let step = keystore.step(Request::Timer { due_for }, Some(&self.deps.name), now.wall);
        match step.await {
            Ok(Action::Wait(awaited)) => {
                let who: Vec<_> = awaited.iter().map(ToString::to_string).collect();
                Ok(Some(who.join("; ")))
            }
            // After a conflict somebody else took the step.
            Ok(_) | Err(Error::Storage(StorageError::Conflict)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn tell(&mut self, looked: Result<Option<String>, Error>) {
        let says = match &looked {
            Ok(waits) => waits.clone(),
            Err(e) => Some(e.to_string()),
        };
        if self.said != says {
            match (&looked, &says) {
                (Ok(Some(who)), _) => tracing::warn!(who, "the rotation waits"),
                (Err(_), Some(error)) => tracing::error!(
                    error,
                    "this member cannot tell the others how it is, or turn the keys; it is tried \
                     again every second"
                ),
                _ => {}
            }
            self.said = says;
        }
    }
}
