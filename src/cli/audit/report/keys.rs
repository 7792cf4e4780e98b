//! What each key that may have to go still protects, all resources together.

use std::collections::{BTreeMap, BTreeSet};

use claviger_keystore::key::KeyState;
use jiff::Timestamp;
use serde::Serialize;

use super::rows::shown;
use crate::audit::object::Protection;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::tally::{Counts, Row, Tally};
use crate::cli::audit::snapshots::{self, Kind, Snapshots};
use crate::cli::audit::subject::Subject;

/// What one key still protects, all resources together.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyVerdict {
    pub(super) key: String,
    #[serde(skip)]
    pub(super) shown: String,
    pub(super) current: u64,
    pub(super) history: u64,
    pub(super) snapshots: u64,
    /// Until when the newest of these is kept, as the policy has it.
    pub(super) needed_until: Option<Timestamp>,
    /// Whether anything names it.
    pub(super) needed: bool,
    /// One of ours, which `key disable` and `key destroy` are about; plaintext and the keys of other
    /// providers are not.
    #[serde(skip)]
    pub(super) ours: bool,
    #[serde(skip)]
    pub(super) kinds: BTreeSet<Kind>,
    #[serde(skip)]
    pub(super) examples: Vec<String>,
}

impl KeyVerdict {
    fn new(key: String, shown: String, ours: bool) -> Self {
        Self {
            key,
            shown,
            current: 0,
            history: 0,
            snapshots: 0,
            needed_until: None,
            needed: false,
            kinds: BTreeSet::new(),
            ours,
            examples: Vec::new(),
        }
    }

    fn add(&mut self, row: &Row) {
        let Counts {
            current,
            history,
            snapshot_values,
            ..
        } = row.counts;
        self.current += current;
        self.history += history;
        self.kinds.insert(snapshots::kind(row));
        self.needed |= current + history + snapshot_values > 0;
        self.examples.extend(row.examples.iter().cloned());
    }

    /// Which snapshots need it, now that all that it protects is known.
    pub(super) fn find_in(&mut self, snapshots: &Snapshots) {
        if let Some((count, newest)) = snapshots.need(&self.kinds) {
            self.snapshots = count;
            self.needed_until = snapshots.kept_until(newest);
        }
    }

    pub(super) fn about(subject: &Subject, tally: &Tally, scope: &Scope) -> Self {
        let (shown, ours) = match subject {
            Subject::Ours(id) => (id.short(), scope.keys.contains_key(id)),
            _ => (subject.to_string(), false),
        };
        let mut verdict = Self::new(subject.to_string(), shown, ours);
        for row in tally.rows().iter().filter(|row| subject.is_of(row)) {
            // What nobody encrypts is no plaintext that is asked about.
            if scope.verdict(row, tally) != Verdict::Clear {
                verdict.add(row);
            }
        }
        verdict
    }
}

/// The keys that may have to go: ours that are retired or disabled, and whatever is stale.
pub(super) fn leaving(tally: &Tally, scope: &Scope, verdicts: &[Verdict]) -> Vec<KeyVerdict> {
    let leaves = |state: KeyState| matches!(state, KeyState::Retired | KeyState::Disabled);
    let mut found: BTreeMap<String, KeyVerdict> = BTreeMap::new();
    for (id, _) in scope.keys.iter().filter(|(_, state)| leaves(**state)) {
        let verdict = KeyVerdict::new(id.to_string(), id.short(), true);
        found.insert(id.to_string(), verdict);
    }
    for (row, verdict) in tally.rows().iter().zip(verdicts) {
        let key = match (&row.protection, scope.state(&row.protection)) {
            (Protection::KmsV2 { key_id, .. }, Some((_, state))) if leaves(state) => key_id.clone(),
            (protection, _) if *verdict == Verdict::Stale => protection.to_string(),
            _ => continue,
        };
        let new = || KeyVerdict::new(key.clone(), shown(&row.protection, scope), false);
        found.entry(key.clone()).or_insert_with(new).add(row);
    }
    found.into_values().collect()
}
