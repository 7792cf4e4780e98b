//! What an audit has shown, and what to do next. The claims say no more than what was read.

use std::collections::BTreeMap;

use claviger_keystore::key::KeyId;

use super::Report;
use super::exceptions::VerifiedShown;
use super::keys::KeyVerdict;

impl Report {
    /// Exactly what was looked at, and what was not: for each key that nothing names, and for all
    /// that was opened.
    pub(super) fn claims(&self, quiet: &BTreeMap<KeyId, Result<(), String>>) -> Vec<String> {
        // Over a value that nobody can read, nothing is claimed.
        if self.exceptions.count > 0 {
            return Vec::new();
        }
        let place = self.place();
        let unneeded = self.keys.iter().filter(|key| !key.needed);
        let claims = unneeded.map(|key| match key.key == "plaintext" {
            true => self.none_in_the_clear(&place),
            false => unnamed(&place, key, quiet),
        });
        let opened = self
            .verified
            .iter()
            .map(|verified| opened(&place, verified));
        claims.chain(opened).collect()
    }

    fn none_in_the_clear(&self, place: &str) -> String {
        let which = match self.encryption_configuration {
            true => "no object is in the clear that the EncryptionConfiguration wants encrypted",
            false => {
                "no secret is in the clear, nor an object of a resource of which some object is \
                 encrypted"
            }
        };
        format!("{place}{which}; not shown: backups that were not given")
    }

    /// What was looked at.
    fn place(&self) -> String {
        let which = match self.snapshots.all_revisions {
            true => "in all revisions of",
            false => "in the newest revisions of",
        };
        let snapshots = match self.snapshots.files.len() {
            0 => String::new(),
            1 => format!("{which} this snapshot, "),
            n => format!("{which} these {n} snapshots, "),
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

    pub(super) fn next(&self) -> Option<String> {
        let stale = |key: &&KeyVerdict| key.current > 0 && key.ours;
        if self.exceptions.count > 0 {
            Some("look at the exceptions: kube-apiserver cannot read these objects".to_owned())
        } else if let Some(key) = self.keys.iter().find(stale) {
            Some(format!("claviger migrate --key {}", key.shown))
        } else if self.stale_objects > 0 {
            Some("claviger migrate".to_owned())
        } else if self.keys.iter().any(|key| key.history > 0) {
            Some(
                "wait until etcd compacts its history, which kube-apiserver has it do every 5 \
                 minutes, and audit again"
                    .to_owned(),
            )
        } else if self.keys.iter().any(|key| key.snapshots > 0) {
            Some("keep what the snapshots need for as long as they are kept".to_owned())
        } else {
            None
        }
    }
}

/// That nothing names a key.
fn unnamed(place: &str, key: &KeyVerdict, quiet: &BTreeMap<KeyId, Result<(), String>>) -> String {
    let quiet = key.key.parse().ok().and_then(|id: KeyId| quiet.get(&id));
    let name = &key.key;
    match quiet {
        Some(Ok(())) => format!(
            "{place}no object names {name}, and no member can still write under it; not shown: \
             backups that were not given"
        ),
        Some(Err(why)) => format!(
            "{place}no object names {name}; not shown: that no member can still write under it \
             ({why}), and backups that were not given"
        ),
        None => format!(
            "{place}no object names {name}; not shown: that nobody can still write under it, and \
             backups that were not given"
        ),
    }
}

/// What opening showed.
fn opened(place: &str, verified: &VerifiedShown) -> String {
    let VerifiedShown {
        others, plaintext, ..
    } = verified;
    let opened = match verified.opened() {
        0 => "nothing is under a key of Claviger's".to_owned(),
        1 => "the one value under a key of Claviger's opens with this keyring".to_owned(),
        n => format!("all {n} values under keys of Claviger's open with this keyring"),
    };
    let how = match verified.opened() {
        0 => "",
        _ => " (each seed under its key, each object's data under its seed and its key in etcd)",
    };
    format!(
        "{place}{opened}{how}; not verified: {others} values of other providers or clusters, and \
         {plaintext} in the clear"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Found, Question};
    use super::*;
    use crate::audit::scope::Scope;
    use crate::audit::tally::{Place, Tally};
    use crate::cli::audit::snapshots::Snapshots;
    use crate::cli::audit::subject::Subject;

    const ID: &str = "k1-000102030405060708090a0b0c0d0e0f";

    fn claims(value: &[u8], quiet: Option<Result<(), String>>) -> Vec<String> {
        let mut tally = Tally::new("/registry");
        tally.add(Place::Current, b"/registry/secrets/a/b", value);
        let id: KeyId = ID.parse().unwrap();
        let found = Found {
            live: None,
            snapshots: Snapshots::default(),
            tally,
            prefix: "/registry".to_owned(),
        };
        let question = Question {
            subject: Some(Subject::Ours(id)),
            list: false,
        };
        let quiet = quiet.map(|quiet| (id, quiet)).into_iter().collect();
        let report = Report::new(found, &question, &Scope::default(), &quiet);
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
