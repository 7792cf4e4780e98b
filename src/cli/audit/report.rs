//! The answer of `claviger audit`: the counts, what they mean, and the claim, which says no more
//! than what was read.

mod listing;
mod screen;

use std::collections::{BTreeMap, BTreeSet};

use claviger_keystore::key::{KeyId, KeyState};
use jiff::Timestamp;
use serde::Serialize;

use super::snapshots::{self, Kind, Snapshots};
use super::subject::Subject;
use crate::audit::keyspace::Live;
use crate::audit::object::Protection;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::tally::{Counts, Place, Row, Tally};
use listing::Listing;

/// Longer key ids of other plugins are cut on the screen.
const LONGEST_SHOWN: usize = 48;

/// What was read.
pub(super) struct Found {
    pub(super) live: Option<Live>,
    pub(super) endpoint: String,
    pub(super) prefix: String,
    pub(super) tally: Tally,
    pub(super) scope: Scope,
    pub(super) subject: Option<Subject>,
    pub(super) snapshots: Snapshots,
    /// Of our keys: that no member can write under them, or why that is not known.
    pub(super) quiet: BTreeMap<KeyId, Result<(), String>>,
    pub(super) list: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Report {
    /// Whether the answer is yes: nothing to rewrite, or nothing that names the key of `--key`.
    clean: bool,
    etcd: Option<EtcdRow>,
    snapshots: Snapshots,
    /// What `--key` asked about.
    key: Option<String>,
    rows: Vec<RowShown>,
    /// Objects in the clear of resources that nobody encrypts.
    clear_objects: u64,
    /// Current objects that a rewrite would protect otherwise.
    stale_objects: u64,
    exceptions: Exceptions,
    /// What was asked for, for each key that may have to go.
    keys: Vec<KeyVerdict>,
    /// What was shown, where something was.
    claims: Vec<String>,
    /// Every object of `--list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<listing::Listed>>"))]
    objects: Option<Listing>,
    #[serde(skip)]
    next: Option<String>,
}

/// The etcd that was read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct EtcdRow {
    pub(super) endpoint: String,
    pub(super) revision: i64,
    /// The oldest revision that etcd could still show.
    history_from: i64,
    keys: u64,
    /// How many values were read; the others are as an earlier audit saw them.
    values_read: u64,
    prefix: String,
}

/// One resource under one protection.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct RowShown {
    /// The resource; `(outside /registry)` for what is none of this cluster's objects.
    pub(super) resource: String,
    pub(super) protection: ProtectionShown,
    /// The state of our key.
    #[cfg_attr(test, schemars(schema_with = "crate::cli::schema::key_state_or_null"))]
    pub(super) state: Option<KeyState>,
    pub(super) current: u64,
    pub(super) history: u64,
    /// Snapshot files that have at least one.
    snapshots: u64,
    /// Values in all of them.
    pub(super) snapshot_values: u64,
    /// Whether a rewrite would protect the current ones otherwise.
    stale: bool,
    examples: Vec<String>,
}

/// What protects.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct ProtectionShown {
    /// `plaintext`, `kms:v2`, `aescbc:v1`, …
    pub(super) kind: String,
    /// The KMS provider's name.
    pub(super) provider: Option<String>,
    /// The key id, or the key's name.
    pub(super) key: Option<String>,
    #[serde(skip)]
    shown: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Exceptions {
    count: u64,
    /// The first hundred.
    first: Vec<ExceptionShown>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct ExceptionShown {
    object: String,
    history: bool,
    snapshot: Option<String>,
    reason: String,
}

/// What one key still protects, all resources together.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct KeyVerdict {
    key: String,
    #[serde(skip)]
    shown: String,
    current: u64,
    history: u64,
    snapshots: u64,
    /// Until when the newest of these is kept, as the policy has it.
    needed_until: Option<Timestamp>,
    /// Whether anything names it.
    needed: bool,
    /// One of ours, which `key disable` and `key destroy` are about.
    #[serde(skip)]
    ours: bool,
    #[serde(skip)]
    kinds: BTreeSet<Kind>,
    /// Something to disable; plaintext and other providers' keys are not.
    #[serde(skip)]
    examples: Vec<String>,
}

impl Report {
    pub(super) fn new(found: Found) -> Self {
        let Found {
            live,
            endpoint,
            prefix,
            tally,
            scope,
            subject,
            snapshots,
            quiet,
            list,
        } = found;
        let verdicts: Vec<Verdict> = tally
            .rows()
            .iter()
            .map(|row| scope.verdict(row, &tally))
            .collect();
        let judged = || tally.rows().iter().zip(&verdicts);
        let current = |wanted: Verdict| -> u64 {
            let rows = judged().filter(|(_, verdict)| **verdict == wanted);
            rows.map(|(row, _)| row.counts.current).sum()
        };
        let mut rows: Vec<RowShown> = judged()
            .filter(|(_, verdict)| **verdict != Verdict::Clear)
            .map(|(row, verdict)| RowShown::of(row, *verdict == Verdict::Stale, &prefix, &scope))
            .collect();
        rows.sort_by(|a, b| {
            (&a.resource, &a.protection.shown).cmp(&(&b.resource, &b.protection.shown))
        });
        let mut keys = match &subject {
            Some(subject) => vec![KeyVerdict::about(subject, &tally, &scope)],
            None => leaving(&tally, &scope, &verdicts),
        };
        keys.iter_mut().for_each(|key| key.find_in(&snapshots));
        let stale_objects = current(Verdict::Stale);
        let unneeded = subject.is_none() || keys.iter().all(|key| !key.needed);
        let exceptions = tally.exception_count();
        let clean = exceptions == 0 && unneeded && (subject.is_some() || stale_objects == 0);
        let mut live = live;
        let ledger = live.as_mut().and_then(|live| live.ledger.take());
        let objects = ledger.filter(|_| list).map(|ledger| Listing {
            ledger,
            prefix: prefix.clone(),
            listed: listed(&tally, &verdicts, subject.as_ref()),
            names: rows_shown(&tally, &scope),
        });
        let etcd = live.map(|live| EtcdRow {
            endpoint,
            revision: live.pin.revision,
            history_from: live.history_from,
            keys: live.pin.keys,
            values_read: live.fetched,
            prefix,
        });
        let mut report = Self {
            clean,
            etcd,
            snapshots,
            key: subject.map(|subject| subject.to_string()),
            rows,
            clear_objects: current(Verdict::Clear),
            stale_objects,
            exceptions: Exceptions::of(&tally),
            keys,
            claims: Vec::new(),
            objects,
            next: None,
        };
        report.claims = report.claims(&quiet);
        report.next = report.next();
        report
    }

    pub(super) fn etcd(&self) -> Option<&EtcdRow> {
        self.etcd.as_ref()
    }

    pub(super) fn rows(&self) -> &[RowShown] {
        &self.rows
    }

    pub(super) fn stale(&self) -> u64 {
        self.stale_objects
    }

    pub(super) fn exceptions(&self) -> u64 {
        self.exceptions.count
    }

    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    /// For each key that nothing names: exactly what was looked at, and what was not.
    fn claims(&self, quiet: &BTreeMap<KeyId, Result<(), String>>) -> Vec<String> {
        // Over a value that nobody can read, nothing is claimed.
        if self.exceptions.count > 0 {
            return Vec::new();
        }
        let place = self.place();
        let claim = |key: &KeyVerdict| {
            if key.key == "plaintext" {
                return format!("{place}no object is in the clear that should not be");
            }
            let quiet = key.key.parse().ok().and_then(|id: KeyId| quiet.get(&id));
            let name = &key.key;
            match quiet {
                Some(Ok(())) => format!(
                    "{place}no object names {name}, and no member can still write under it; not \
                     shown: backups that were not given"
                ),
                Some(Err(why)) => format!(
                    "{place}no object names {name}; not shown: that no member can still write \
                     under it ({why}), and backups that were not given"
                ),
                None => format!(
                    "{place}no object names {name}; not shown: that nobody can still write under \
                     it, and backups that were not given"
                ),
            }
        };
        let clean = self.keys.iter().filter(|key| !key.needed);
        clean.map(claim).collect()
    }

    /// What was looked at.
    fn place(&self) -> String {
        let snapshots = match self.snapshots.files.len() {
            0 => String::new(),
            1 => "in this snapshot, ".to_owned(),
            n => format!("in these {n} snapshots, "),
        };
        match &self.etcd {
            Some(etcd) => format!(
                "at etcd revision {}, over the whole keyspace and its history from revision {}, \
                 {snapshots}",
                etcd.revision, etcd.history_from
            ),
            None => snapshots,
        }
    }

    fn next(&self) -> Option<String> {
        let stale = |key: &&KeyVerdict| key.current > 0 && key.ours;
        if self.exceptions.count > 0 {
            Some("look at the exceptions: kube-apiserver cannot read these objects".to_owned())
        } else if let Some(key) = self.keys.iter().find(stale) {
            Some(format!("claviger migrate --key {}", key.shown))
        } else if self.stale_objects > 0 {
            Some("claviger migrate".to_owned())
        } else {
            None
        }
    }
}

/// Which rows' objects a list has: those that were asked about, else those that are stale.
fn listed(tally: &Tally, verdicts: &[Verdict], subject: Option<&Subject>) -> Vec<bool> {
    let rows = tally.rows().iter().zip(verdicts);
    let listed = rows.map(|(row, verdict)| match subject {
        Some(subject) => subject.is_of(row) && *verdict != Verdict::Clear,
        None => *verdict == Verdict::Stale,
    });
    listed.collect()
}

/// How each row's protection is shown.
fn rows_shown(tally: &Tally, scope: &Scope) -> Vec<String> {
    let rows = tally.rows().iter();
    rows.map(|row| shown(&row.protection, scope)).collect()
}

/// What protects, as a screen has room for it.
fn shown(protection: &Protection, scope: &Scope) -> String {
    if let Some((id, state)) = scope.state(protection) {
        return format!("{} {}", id.short(), state.as_str());
    }
    let text = match protection {
        Protection::KmsV2 { provider, key_id } => match key_id.parse::<KeyId>() {
            Ok(id) => format!("{}/{}", provider.escape_debug(), id.short()),
            Err(_) => protection.to_string(),
        },
        _ => protection.to_string(),
    };
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl RowShown {
    fn of(row: &Row, stale: bool, prefix: &str, scope: &Scope) -> Self {
        let resource = row.resource.as_ref();
        let (kind, provider, key) = match &row.protection {
            Protection::Plaintext => ("plaintext", None, None),
            Protection::KmsV2 { provider, key_id } => ("kms:v2", Some(provider), Some(key_id)),
            Protection::Other { scheme, name } if scheme == "kms:v1" => {
                ("kms:v1", Some(name), None)
            }
            Protection::Other { scheme, name } => (scheme.as_str(), None, Some(name)),
        };
        Self {
            resource: resource.map_or(format!("(outside {prefix})"), ToString::to_string),
            protection: ProtectionShown {
                kind: kind.to_owned(),
                provider: provider.cloned(),
                key: key.cloned(),
                shown: shown(&row.protection, scope),
            },
            state: scope.state(&row.protection).map(|(_, state)| state),
            current: row.counts.current,
            history: row.counts.history,
            snapshots: row.counts.snapshots,
            snapshot_values: row.counts.snapshot_values,
            stale,
            examples: row.examples.clone(),
        }
    }
}

impl Exceptions {
    fn of(tally: &Tally) -> Self {
        let first = tally.exceptions().iter().map(|exception| ExceptionShown {
            object: exception.object.clone(),
            history: exception.place == Place::History,
            snapshot: exception.snapshot.clone(),
            reason: exception.reason.to_string(),
        });
        Self {
            count: tally.exception_count(),
            first: first.collect(),
        }
    }
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
    fn find_in(&mut self, snapshots: &Snapshots) {
        if let Some((count, newest)) = snapshots.need(&self.kinds) {
            self.snapshots = count;
            self.needed_until = snapshots.kept_until(newest);
        }
    }

    fn about(subject: &Subject, tally: &Tally, scope: &Scope) -> Self {
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
fn leaving(tally: &Tally, scope: &Scope, verdicts: &[Verdict]) -> Vec<KeyVerdict> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "k1-000102030405060708090a0b0c0d0e0f";

    fn claims(value: &[u8], quiet: Option<Result<(), String>>) -> Vec<String> {
        let mut tally = Tally::new("/registry");
        tally.add(Place::Current, b"/registry/secrets/a/b", value);
        let id: KeyId = ID.parse().unwrap();
        let report = Report::new(Found {
            live: None,
            endpoint: String::new(),
            prefix: "/registry".to_owned(),
            tally,
            scope: Scope::default(),
            subject: Some(Subject::Ours(id)),
            snapshots: Snapshots::default(),
            quiet: quiet.map(|quiet| (id, quiet)).into_iter().collect(),
            list: false,
        });
        report.claims
    }

    #[test]
    fn a_claim_says_no_more_than_is_known() {
        let other = b"k8s:enc:aescbc:v1:key1:x";
        let end = "not shown: backups that were not given";
        let shown = format!("no object names {ID}, and no member can still write under it; {end}");
        assert_eq!(claims(other, Some(Ok(()))), [shown]);
        let waits = claims(other, Some(Err("cp1 is not quiet".to_owned())));
        assert!(waits[0].contains("not shown: that no member"), "{waits:?}");
        assert!(waits[0].contains("(cp1 is not quiet)"), "{waits:?}");
        let unknown = claims(other, None);
        assert!(unknown[0].contains("not shown: that nobody"), "{unknown:?}");
    }

    #[test]
    fn over_what_cannot_be_read_nothing_is_claimed() {
        assert_eq!(claims(b"k8s:enc:kms:v2:p:", Some(Ok(()))), [""; 0]);
    }
}
