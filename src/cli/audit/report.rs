//! The answer of `claviger audit`: the counts, what they mean, and the claim, which says no more
//! than what was read.

mod claims;
mod exceptions;
mod keys;
mod listing;
mod noted;
mod rows;
mod screen;

use std::collections::BTreeMap;

use claviger_keystore::key::KeyId;
use serde::Serialize;

use super::snapshots::Snapshots;
use super::subject::Subject;
use crate::audit::etcd::Pin;
use crate::audit::keyspace::Live;
use crate::audit::ledger::Ledger;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::tally::Tally;
use exceptions::{Exceptions, VerifiedShown};
use keys::{KeyVerdict, leaving};
use listing::Listing;
use noted::Noted;
pub(super) use rows::RowShown;
use rows::rows_shown;

/// What was read.
pub(super) struct Found {
    pub(super) live: Option<Scanned>,
    pub(super) snapshots: Snapshots,
    /// The counts of both.
    pub(super) tally: Tally,
    /// The prefix of Kubernetes' keys.
    pub(super) prefix: String,
}

/// A scan of a live etcd, without its counts.
pub(super) struct Scanned {
    endpoint: String,
    pin: Pin,
    history_from: i64,
    fetched: u64,
    ledger: Option<Ledger>,
}

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// What `--key` asks about.
    pub(super) subject: Option<Subject>,
    /// Whether the objects are to be listed.
    pub(super) list: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Report {
    /// Whether the answer is yes: nothing needs what has to go, or nothing names the key of `--key`,
    /// and every value could be read.
    clean: bool,
    etcd: Option<EtcdRow>,
    snapshots: Snapshots,
    /// What `--key` asked about.
    key: Option<String>,
    rows: Vec<RowShown>,
    /// Whether an EncryptionConfiguration says which resources are to be encrypted. Else these are
    /// secrets, and those of which some object is encrypted.
    encryption_configuration: bool,
    /// Objects in the clear of resources that are not to be encrypted.
    clear_objects: u64,
    /// Current objects that a rewrite would protect otherwise.
    stale_objects: u64,
    exceptions: Exceptions,
    /// What `--verify` opened; null if nobody tried.
    verified: Option<VerifiedShown>,
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
    #[serde(skip)]
    noted: Noted,
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

impl Scanned {
    /// A scan, and its counts.
    pub(super) fn of(live: Live, endpoint: &str) -> (Self, Tally) {
        let scanned = Self {
            endpoint: endpoint.to_owned(),
            pin: live.pin,
            history_from: live.history_from,
            fetched: live.fetched,
            ledger: live.ledger,
        };
        (scanned, live.tally)
    }

    fn row(self, prefix: &str) -> EtcdRow {
        EtcdRow {
            endpoint: self.endpoint,
            revision: self.pin.revision,
            history_from: self.history_from,
            keys: self.pin.keys,
            values_read: self.fetched,
            prefix: prefix.to_owned(),
        }
    }
}

impl Report {
    pub(super) fn new(
        mut found: Found,
        question: &Question,
        scope: &Scope,
        quiet: &BTreeMap<KeyId, Result<(), String>>,
    ) -> Self {
        let (tally, subject) = (&found.tally, question.subject.as_ref());
        let rows = tally.rows().iter();
        let verdicts: Vec<Verdict> = rows.map(|row| scope.verdict(row, tally)).collect();
        let current = |wanted: Verdict| -> u64 {
            let rows = tally.rows().iter().zip(&verdicts);
            let rows = rows.filter(|(_, verdict)| **verdict == wanted);
            rows.map(|(row, _)| row.counts.current).sum()
        };
        let mut keys = match subject {
            Some(subject) => vec![KeyVerdict::about(subject, tally, scope)],
            None => leaving(tally, scope, &verdicts),
        };
        keys.iter_mut()
            .for_each(|key| key.find_in(&found.snapshots));
        let exceptions = Exceptions::of(tally);
        let ledger = found.live.as_mut().and_then(|live| live.ledger.take());
        let objects = ledger.filter(|_| question.list).map(|ledger| Listing {
            ledger,
            prefix: found.prefix.clone(),
            listed: listed(tally, &verdicts, subject),
            names: rows_shown(tally, scope),
        });
        let mut report = Self {
            clean: exceptions.count == 0 && keys.iter().all(|key| !key.needed),
            key: subject.map(ToString::to_string),
            rows: RowShown::all(tally, &verdicts, &found.prefix, scope),
            encryption_configuration: scope.configuration.is_some(),
            clear_objects: current(Verdict::Clear),
            stale_objects: current(Verdict::Stale),
            exceptions,
            verified: VerifiedShown::of(tally),
            keys,
            claims: Vec::new(),
            objects,
            next: None,
            noted: Noted::new(tally, scope, &found.snapshots),
            etcd: found.live.map(|live| live.row(&found.prefix)),
            snapshots: found.snapshots,
        };
        report.claims = report.claims(quiet);
        report.next = report.next();
        report
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
