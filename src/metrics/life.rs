//! The life of the keyring and its keys, as metrics: a rotation that is under way, and what was last
//! done for the day on which all is lost.

use claviger_keystore::rotation::progress::Progress;
use jiff::Timestamp;

use super::Metrics;
use super::family::{Family, seconds};
use super::names::{BACKUP_REVISION, RECOVERY_TESTED, ROTATION_STEP, ROTATION_WAITING};

pub(super) const ROTATION: &[&Family] = &[&ROTATION_STEP, &ROTATION_WAITING];
pub(super) const DONE: &[&Family] = &[&RECOVERY_TESTED, &BACKUP_REVISION];

impl Metrics {
    /// The rotation that is under way, if any.
    pub fn rotation(&self, progress: Option<&Progress>) {
        let step = progress.map_or(0, |progress| progress.step.number());
        let waiting = progress.map_or(0, |progress| progress.awaited.len());
        self.rotation.set(vec![
            ROTATION_STEP.value(Some(f64::from(step))),
            ROTATION_WAITING.value(Some(waiting as f64)),
        ]);
    }

    /// When a recovery key was last shown to open its slot, and which revision the last backup
    /// holds, if ever.
    pub fn last_done(&self, recovery_tested: Option<Timestamp>, backup_revision: Option<u64>) {
        self.done.set(vec![
            RECOVERY_TESTED.value(recovery_tested.map(seconds)),
            BACKUP_REVISION.value(backup_revision.map(|revision| revision as f64)),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use claviger_keystore::rotation::progress::Step;
    use claviger_keystore::rotation::{Awaited, Lack};

    use super::*;
    use crate::metrics::testing::{metrics, value};

    #[test]
    fn a_rotation_and_its_end() {
        let metrics = metrics();
        let seen = || {
            ["step", "waiting_members"]
                .map(|name| value(&metrics, &format!("claviger_rotation_{name}")))
        };
        assert_eq!(seen(), [None, None]);
        metrics.rotation(Some(&Progress {
            step: Step::Publish,
            since: Timestamp::UNIX_EPOCH,
            awaited: vec![Awaited {
                name: "cp1".to_owned(),
                lacks: Lack::NotPublished,
            }],
        }));
        assert_eq!(seen(), [Some(4.0), Some(1.0)]);
        metrics.rotation(None);
        assert_eq!(seen(), [Some(0.0), Some(0.0)]);
    }

    #[test]
    fn what_was_last_done() {
        let metrics = metrics();
        let tested = "claviger_recovery_tested_timestamp_seconds";
        let backup = "claviger_backup_revision";
        assert_eq!(value(&metrics, tested), None);
        let when = "2026-09-14T08:00:00Z".parse().unwrap();
        metrics.last_done(Some(when), Some(42));
        assert_eq!(value(&metrics, tested), Some(1_789_372_800.0));
        assert_eq!(value(&metrics, backup), Some(42.0));
        metrics.last_done(None, None);
        assert_eq!(value(&metrics, tested), None);
        assert_eq!(value(&metrics, backup), None);
    }
}
