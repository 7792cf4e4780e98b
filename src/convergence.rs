//! Whether every kube-apiserver that talks to this member has moved on to the primary.
//!
//! An apiserver asks Status, and where the key id is another than before, Encrypt next, for a new
//! seed. Until it has done that it writes under the old seed, and rewriting an object through it
//! would move that object *back*. A connection has *converged* on a key when a Status was answered
//! with it and a later Status came with no Encrypt in between: nothing was left to do.
//!
//! A second Status counts only [`RECENT`] after the first: a health check may ask one between the
//! apiserver's Status and its Encrypt.
//!
//! Times are CLOCK_BOOTTIME.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_keystore::key::KeyId;

use crate::publication::RECENT;

/// For how long an apiserver that went away may go on with what it had: its lease of a key (3 min),
/// the Status and the writes that are under way (1 min and 10 s), and a margin.
pub const LEASE: Duration = Duration::from_secs(5 * 60);

/// What the apiservers behind this member's connections have understood.
#[derive(Debug, Default)]
pub struct Convergence(Mutex<Talks>);

#[derive(Debug, Default)]
struct Talks {
    next: u64,
    open: HashMap<u64, Arc<Talk>>,
    /// When the last connection closed that had converged on this key, or on none.
    closed: HashMap<Option<KeyId>, Duration>,
}

/// What was said over one connection.
#[derive(Debug)]
struct Talk {
    /// The primary when it was opened.
    found: Option<KeyId>,
    /// What was disabled by then.
    disabled: Vec<KeyId>,
    /// The first of the Status answers in a row that gave this key, with no Encrypt since.
    first: ArcSwapOption<(KeyId, Duration)>,
    encrypted: AtomicBool,
    converged: ArcSwapOption<KeyId>,
    /// An Encrypt came although the primary is the one that it found: its apiserver started anew.
    fresh: AtomicBool,
}

/// The end of one connection at which its calls are noted. The connection counts as open until this
/// is dropped.
#[derive(Debug)]
pub struct Told {
    convergence: Arc<Convergence>,
    number: u64,
    talk: Arc<Talk>,
    clock: fn() -> Duration,
}

/// How far the apiservers behind this member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Open connections that asked Status.
    pub open: usize,
    /// Those of them that have converged on the primary.
    pub converged: usize,
    /// Whether nobody is left who may write under another key than the primary.
    pub done: bool,
}

impl Convergence {
    fn talks(&self) -> MutexGuard<'_, Talks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was opened, and found this primary, and these keys disabled.
    pub fn opened(
        self: &Arc<Self>,
        primary: Option<KeyId>,
        disabled: Vec<KeyId>,
        clock: fn() -> Duration,
    ) -> Told {
        let talk = Arc::new(Talk {
            found: primary,
            disabled,
            first: ArcSwapOption::empty(),
            encrypted: AtomicBool::new(false),
            converged: ArcSwapOption::empty(),
            fresh: AtomicBool::new(false),
        });
        let mut talks = self.talks();
        talks.next += 1;
        let number = talks.next;
        talks.open.insert(number, talk.clone());
        Told {
            convergence: self.clone(),
            number,
            talk,
            clock,
        }
    }

    /// How far they are with `primary`, which this member answers since `published`.
    pub fn progress(&self, primary: KeyId, published: Duration, now: Duration) -> Progress {
        let mut talks = self.talks();
        talks.closed.retain(|_, at| now.saturating_sub(*at) < LEASE);
        let asked: Vec<_> = talks.open.values().filter(|talk| talk.asked()).collect();
        let converged = asked
            .iter()
            .filter(|talk| talk.converged_on(primary))
            .count();
        let left = talks.closed.keys().any(|id| *id != Some(primary));
        let quiet = now.saturating_sub(published) >= LEASE;
        Progress {
            open: asked.len(),
            converged,
            done: converged == asked.len() && !left && (converged > 0 || quiet),
        }
    }

    /// Whether every apiserver behind this member started, or was reloaded, after `id` was disabled:
    /// what it holds of that key in its caches is gone. Where none is connected, nobody knows.
    pub fn restarted_since_disabled(&self, id: &KeyId) -> bool {
        let talks = self.talks();
        let asked = || talks.open.values().filter(|talk| talk.asked());
        asked().all(|talk| talk.disabled.contains(id))
            && asked().any(|talk| talk.fresh.load(Ordering::Relaxed))
    }
}

impl Talk {
    fn asked(&self) -> bool {
        self.first.load().is_some()
    }

    fn converged_on(&self, id: KeyId) -> bool {
        self.converged.load().as_deref() == Some(&id)
    }
}

impl Told {
    /// A Status call is answered with this key.
    pub fn status(&self, id: KeyId, now: Duration) {
        let talk = &self.talk;
        let in_between = talk.encrypted.swap(false, Ordering::Relaxed);
        match talk.first.load().as_deref() {
            Some((first, at)) if *first == id && !in_between => {
                if now.saturating_sub(*at) >= RECENT && !talk.converged_on(id) {
                    talk.converged.store(Some(Arc::new(id)));
                }
            }
            _ => talk.first.store(Some(Arc::new((id, now)))),
        }
    }

    /// An Encrypt call is answered under this key.
    pub fn encrypt(&self, id: KeyId) {
        self.talk.encrypted.store(true, Ordering::Relaxed);
        if self.talk.found == Some(id) && !self.talk.fresh.load(Ordering::Relaxed) {
            self.talk.fresh.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut talks = self.convergence.talks();
        talks.open.remove(&self.number);
        if self.talk.asked() {
            let converged = self.talk.converged.load().as_deref().copied();
            talks.closed.insert(converged, (self.clock)());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: u8) -> KeyId {
        format!("k1-{digit:032x}").parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(10_000 + seconds)
    }

    fn open(convergence: &Arc<Convergence>, primary: KeyId, disabled: &[KeyId]) -> Told {
        convergence.opened(Some(primary), disabled.to_vec(), || at(1_000))
    }

    fn done(convergence: &Convergence, primary: KeyId, now: u64) -> bool {
        convergence.progress(primary, at(0), at(now)).done
    }

    #[test]
    fn two_status_calls_with_no_encrypt_between_are_convergence() {
        let convergence = Arc::new(Convergence::default());
        let told = open(&convergence, id(1), &[]);
        told.status(id(1), at(0));
        told.status(id(1), at(60));
        assert!(done(&convergence, id(1), 60));

        told.status(id(2), at(120));
        assert!(!done(&convergence, id(2), 120), "it may write under key 1");
        told.encrypt(id(2));
        told.status(id(2), at(180));
        assert!(!done(&convergence, id(2), 180), "it asked for a seed since");
        told.status(id(2), at(240));
        assert!(done(&convergence, id(2), 240));
        told.encrypt(id(2));
        assert!(
            done(&convergence, id(2), 241),
            "what it has understood stays"
        );
    }

    #[test]
    fn a_health_check_between_status_and_encrypt_proves_nothing() {
        let convergence = Arc::new(Convergence::default());
        let told = open(&convergence, id(1), &[]);
        told.status(id(1), at(0));
        told.status(id(1), at(9));
        assert!(!done(&convergence, id(1), 9));
        told.status(id(1), at(10));
        assert!(done(&convergence, id(1), 10));
    }

    #[test]
    fn every_connection_that_asked_must_converge_and_no_other() {
        let convergence = Arc::new(Convergence::default());
        let (one, two) = (
            open(&convergence, id(1), &[]),
            open(&convergence, id(1), &[]),
        );
        let _silent = open(&convergence, id(1), &[]);
        one.status(id(1), at(0));
        one.status(id(1), at(20));
        two.status(id(1), at(20));
        let progress = convergence.progress(id(1), at(0), at(20));
        let expected = Progress {
            open: 2,
            converged: 1,
            done: false,
        };
        assert_eq!(progress, expected);
        two.status(id(1), at(40));
        assert!(done(&convergence, id(1), 40));
    }

    #[test]
    fn a_connection_that_closed_before_it_converged_holds_up_for_five_minutes() {
        let convergence = Arc::new(Convergence::default());
        let stays = open(&convergence, id(1), &[]);
        stays.status(id(1), at(900));
        stays.status(id(1), at(960));
        let lost = open(&convergence, id(1), &[]);
        lost.status(id(1), at(990));
        drop(lost);
        assert!(!done(&convergence, id(1), 1_000));
        assert!(!done(&convergence, id(1), 1_299));
        assert!(done(&convergence, id(1), 1_300));

        let moved = open(&convergence, id(1), &[]);
        moved.status(id(1), at(1_300));
        moved.status(id(1), at(1_310));
        drop(moved);
        assert!(done(&convergence, id(1), 1_301), "it closed converged");
        assert!(
            !done(&convergence, id(2), 1_299),
            "but not on the key after"
        );
    }

    #[test]
    fn where_nobody_is_connected_five_minutes_must_pass() {
        let convergence = Convergence::default();
        assert!(!done(&convergence, id(1), 299));
        assert!(done(&convergence, id(1), 300));
    }

    #[test]
    fn an_apiserver_that_started_after_the_disable_is_told_from_one_that_was_there() {
        let convergence = Arc::new(Convergence::default());
        assert!(
            !convergence.restarted_since_disabled(&id(1)),
            "nobody is there"
        );
        let before = open(&convergence, id(2), &[]);
        before.status(id(2), at(0));
        before.encrypt(id(2));
        let after = open(&convergence, id(2), &[id(1)]);
        after.status(id(2), at(5));
        assert!(!convergence.restarted_since_disabled(&id(1)));
        after.encrypt(id(2));
        assert!(
            !convergence.restarted_since_disabled(&id(1)),
            "the old one is open"
        );
        drop(before);
        assert!(convergence.restarted_since_disabled(&id(1)));
    }

    #[test]
    fn a_reconnect_or_a_new_seed_for_a_new_key_is_no_restart() {
        let convergence = Arc::new(Convergence::default());
        let told = open(&convergence, id(2), &[id(1)]);
        told.status(id(2), at(0));
        told.encrypt(id(3));
        assert!(!convergence.restarted_since_disabled(&id(1)));
    }
}
