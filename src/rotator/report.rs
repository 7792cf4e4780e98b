//! What this member says of itself: its record, made anew from what it sees.
//!
//! Monotonic times are CLOCK_BOOTTIME and stay in this process; dates in the record are the wall
//! clock's, and no member compares them with its own.

use std::collections::HashMap;
use std::time::Duration;

use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::member::{
    Acknowledged, Connections, InstanceId, MemberName, MemberRecord, RootRecord, Since,
};
use jiff::Timestamp;

use crate::convergence::{Convergence, LEASE};
use crate::publication::RECENT;

/// The document format that this member understands.
const FORMATS: [u64; 1] = [1];

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// CLOCK_BOOTTIME.
    pub(super) boottime: Duration,
    pub(super) wall: Timestamp,
}

/// What this process remembers for its record.
#[derive(Debug)]
pub(super) struct Reporter {
    name: MemberName,
    instance: InstanceId,
    /// The primary, and since when it is that.
    primary: Option<(KeyId, Duration)>,
    /// When each other key was first seen not to be the primary.
    left: HashMap<KeyId, Duration>,
    quiet: Vec<Since>,
    converged: Option<Since>,
    restarted: Vec<Since>,
}

impl Reporter {
    /// A member that starts. What an earlier instance of it had shown to be quiet stays so, and so
    /// does a restart that it saw; what its connections had understood is to be seen again.
    pub(super) fn new(
        name: MemberName,
        instance: InstanceId,
        earlier: Option<&MemberRecord>,
    ) -> Self {
        let earlier = earlier.cloned();
        let (quiet, restarted) = earlier
            .map(|record| (record.quiet, record.restarted))
            .unwrap_or_default();
        Self {
            name,
            instance,
            primary: None,
            left: HashMap::new(),
            quiet,
            converged: None,
            restarted,
        }
    }

    /// The record at this moment.
    pub(super) fn record(
        &mut self,
        keyring: &Keyring,
        seen: Seen<'_>,
        now: Moment,
    ) -> MemberRecord {
        self.follow(keyring, now);
        let mut connections = Connections::default();
        let mut published = None;
        if let Some((id, since)) = self.primary {
            let progress = seen.convergence.progress(id, since, now.boottime);
            connections = Connections {
                open: count(progress.open),
                converged: count(progress.converged),
            };
            let kept = self.converged.filter(|converged| converged.id == id);
            let stamp = || Since {
                id,
                since: now.wall,
            };
            self.converged = progress.done.then(|| kept.unwrap_or_else(stamp));
            published = (now.boottime.saturating_sub(since) >= RECENT).then_some(id);
        }
        self.note_restarts(keyring, seen.convergence, now.wall);
        MemberRecord {
            name: self.name.clone(),
            instance: self.instance,
            written: now.wall,
            acknowledged: seen.acknowledged,
            formats: FORMATS.to_vec(),
            answers: seen.answers,
            published,
            quiet: self.quiet.clone(),
            connections,
            converged: self.converged,
            restarted: self.restarted.clone(),
            roots: seen.roots.to_vec(),
            last_read: now.wall,
        }
    }

    /// Follows which keys are written under. No answer gives a key that is not the primary for more
    /// than [`RECENT`] after it was swapped out, and [`LEASE`] later nothing is under way with it.
    fn follow(&mut self, keyring: &Keyring, now: Moment) {
        let primary = keyring.primary();
        if self.primary.map(|(id, _)| id) != primary {
            self.primary = primary.map(|id| (id, now.boottime));
        }
        let keys = &keyring.header().keys;
        for key in keys {
            match key.state {
                KeyState::Retired | KeyState::Disabled => {
                    let left = *self.left.entry(key.id).or_insert(now.boottime);
                    let silent = now.boottime.saturating_sub(left) >= RECENT + LEASE;
                    if silent && !self.quiet.iter().any(|quiet| quiet.id == key.id) {
                        self.quiet.push(Since {
                            id: key.id,
                            since: now.wall,
                        });
                    }
                }
                KeyState::Staged | KeyState::Primary | KeyState::Destroyed => {}
            }
        }
        // A destroyed key's id stays in the keyring for ever; nobody asks whether it is quiet.
        let matters = |id: &KeyId| {
            let key = keyring.key(id);
            key.is_some_and(|key| matches!(key.state, KeyState::Retired | KeyState::Disabled))
        };
        self.quiet.retain(|quiet| matters(&quiet.id));
        self.left.retain(|id, _| matters(id));
    }

    fn note_restarts(&mut self, keyring: &Keyring, convergence: &Convergence, now: Timestamp) {
        let keys = keyring.header().keys.iter();
        let disabled: Vec<_> = keys
            .filter(|key| key.state == KeyState::Disabled)
            .map(|key| key.id)
            .collect();
        self.restarted.retain(|noted| disabled.contains(&noted.id));
        for id in disabled {
            let noted = self.restarted.iter().any(|noted| noted.id == id);
            if !noted && convergence.restarted_since_disabled(&id) {
                self.restarted.push(Since { id, since: now });
            }
        }
    }
}

/// What a record is made of beside the keyring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) acknowledged: Acknowledged,
    /// What Status answers.
    pub(super) answers: Option<KeyId>,
    pub(super) convergence: &'a Convergence,
    pub(super) roots: &'a [RootRecord],
}

fn count(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX)
}

/// Whether a record says anything else than an earlier one, beside when it was written.
pub(super) fn differs(record: &MemberRecord, earlier: &MemberRecord) -> bool {
    let mut same_date = record.clone();
    same_date.written = earlier.written;
    same_date.last_read = earlier.last_read;
    for (root, earlier) in same_date.roots.iter_mut().zip(&earlier.roots) {
        root.last_success = earlier.last_success;
    }
    same_date != *earlier
}

#[cfg(test)]
mod tests {
    use claviger_keystore::header::{DocumentHash, KeyringKeyId};
    use claviger_keystore::member::MemberName;
    use claviger_keystore::store::new_instance;
    use std::sync::Arc;

    use super::*;

    fn at(seconds: u64) -> Moment {
        let wall = 1_800_000_000 + i64::try_from(seconds).unwrap();
        Moment {
            boottime: Duration::from_secs(50_000 + seconds),
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    fn name() -> MemberName {
        "cp1".parse().unwrap()
    }

    fn keyring() -> Keyring {
        Keyring::create("test", KeyringKeyId::ZERO, at(0).wall).unwrap()
    }

    fn rotated(keyring: &Keyring) -> Keyring {
        let staged = keyring.stage(at(0).wall).unwrap();
        let id = staged.staged().unwrap();
        staged.activate(&id, at(0).wall).unwrap()
    }

    fn reporter(earlier: Option<&MemberRecord>) -> Reporter {
        Reporter::new(name(), new_instance().unwrap(), earlier)
    }

    fn record(
        reporter: &mut Reporter,
        keyring: &Keyring,
        convergence: &Arc<Convergence>,
        now: Moment,
    ) -> MemberRecord {
        let seen = Seen {
            acknowledged: Acknowledged {
                revision: 1,
                sha256: DocumentHash::ZERO,
            },
            answers: keyring.primary(),
            convergence,
            roots: &[],
        };
        reporter.record(keyring, seen, now)
    }

    #[test]
    fn a_key_is_published_ten_seconds_after_it_became_primary() {
        let (mut reporter, convergence) = (reporter(None), Arc::default());
        let first = keyring();
        assert_eq!(
            record(&mut reporter, &first, &convergence, at(0)).published,
            None
        );
        let published = record(&mut reporter, &first, &convergence, at(10)).published;
        assert_eq!(published, first.primary());
        let second = rotated(&first);
        assert_eq!(
            record(&mut reporter, &second, &convergence, at(11)).published,
            None
        );
        let published = record(&mut reporter, &second, &convergence, at(21)).published;
        assert_eq!(published, second.primary());
    }

    #[test]
    fn the_old_key_is_quiet_five_minutes_after_nobody_is_answered_it_any_more() {
        let (mut reporter, convergence) = (reporter(None), Arc::default());
        let first = keyring();
        let old = first.primary().unwrap();
        record(&mut reporter, &first, &convergence, at(0));
        let second = rotated(&first);
        record(&mut reporter, &second, &convergence, at(100));
        let before = record(&mut reporter, &second, &convergence, at(100 + 309));
        assert_eq!(before.quiet_since(&old), None);
        let after = record(&mut reporter, &second, &convergence, at(100 + 310));
        assert_eq!(after.quiet_since(&old), Some(at(410).wall));
        assert_eq!(after.quiet_since(&second.primary().unwrap()), None);
    }

    #[test]
    fn a_restart_starts_the_wait_anew_but_what_was_quiet_stays_quiet() {
        let (mut reporter, convergence) = (reporter(None), Arc::default());
        let second = rotated(&keyring());
        let old = second.header().keys[0].id;
        let waiting = record(&mut reporter, &second, &convergence, at(0));
        let mut restarted = self::reporter(Some(&waiting));
        record(&mut restarted, &second, &convergence, at(300));
        let still = record(&mut restarted, &second, &convergence, at(310));
        assert_eq!(still.quiet_since(&old), None);
        let quiet = record(&mut restarted, &second, &convergence, at(610));
        assert_eq!(quiet.quiet_since(&old), Some(at(610).wall));

        let mut again = self::reporter(Some(&quiet));
        let kept = record(&mut again, &second, &convergence, at(700));
        assert_eq!(kept.quiet_since(&old), Some(at(610).wall));
    }

    #[test]
    fn what_connections_understood_is_told_and_its_date_stays() {
        let (mut reporter, convergence) = (reporter(None), Arc::<Convergence>::default());
        let first = keyring();
        let id = first.primary().unwrap();
        let told = convergence.opened(Some(id), Vec::new(), || Duration::ZERO);
        told.status(id, at(0).boottime);
        let waiting = record(&mut reporter, &first, &convergence, at(1));
        assert_eq!(
            (waiting.connections.open, waiting.connections.converged),
            (1, 0)
        );
        assert_eq!(waiting.converged, None);
        told.status(id, at(60).boottime);
        let since = |record: MemberRecord| record.converged.map(|converged| converged.since);
        let converged = record(&mut reporter, &first, &convergence, at(61));
        assert_eq!(since(converged), Some(at(61).wall));
        let later = record(&mut reporter, &first, &convergence, at(90));
        assert_eq!(since(later), Some(at(61).wall));

        let rotated = rotated(&first);
        assert_eq!(
            since(record(&mut reporter, &rotated, &convergence, at(91))),
            None
        );
    }

    #[test]
    fn a_restart_of_the_apiserver_is_noted_once_and_forgotten_with_the_disable() {
        let (mut reporter, convergence) = (reporter(None), Arc::<Convergence>::default());
        let second = rotated(&keyring());
        let (old, new) = (second.header().keys[0].id, second.primary().unwrap());
        let disabled = second.disable(&old, at(0).wall).unwrap();
        let none = record(&mut reporter, &disabled, &convergence, at(1));
        assert_eq!(none.restarted_since(&old), None);
        let told = convergence.opened(Some(new), vec![old], || Duration::ZERO);
        told.status(new, at(2).boottime);
        told.encrypt(new);
        let noted = record(&mut reporter, &disabled, &convergence, at(3));
        assert_eq!(noted.restarted_since(&old), Some(at(3).wall));
        drop(told);
        let kept = record(&mut reporter, &disabled, &convergence, at(4));
        assert_eq!(kept.restarted_since(&old), Some(at(3).wall));
        let enabled = disabled.enable(&old, at(5).wall).unwrap();
        let forgotten = record(&mut reporter, &enabled, &convergence, at(5));
        assert_eq!(forgotten.restarted_since(&old), None);
    }

    #[test]
    fn a_record_differs_by_what_it_says_and_not_by_its_date() {
        let (mut reporter, convergence) = (reporter(None), Arc::default());
        let first = keyring();
        let one = record(&mut reporter, &first, &convergence, at(0));
        let two = record(&mut reporter, &first, &convergence, at(5));
        assert!(!differs(&two, &one));
        let published = record(&mut reporter, &first, &convergence, at(10));
        assert!(differs(&published, &one));
    }
}
