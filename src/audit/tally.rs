//! Counts of what protects what. Its size depends on how many different keys and resources there
//! are, never on how many objects.

use std::collections::HashMap;

use super::object::{Header, Malformed, Name, Protection, Resource};
use super::verify::{Verified, Verifier, Verifying};

/// How many names each row remembers.
pub const EXAMPLES: usize = 3;

/// How many exceptions are remembered; the others are counted.
pub const EXCEPTIONS: usize = 100;

/// How many rows there may be. A cluster has some hundred resources, each with a few keys; what comes
/// after is an exception, so that nothing is lost without a word.
const MAX_ROWS: usize = 16_384;

/// Of which time a stored value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// What reads return now.
    Current,
    /// An older revision, until etcd compacts it.
    History,
}

/// How many values one row stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects, at the pinned revision.
    pub current: u64,
    /// Older revisions that etcd still has.
    pub history: u64,
    /// Values in snapshot files, all files together.
    pub snapshot_values: u64,
    /// Snapshot files in which there is at least one.
    pub snapshots: u64,
}

/// One resource under one protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is protected. `None`: whatever lies outside of Kubernetes' prefix.
    pub resource: Option<Resource>,
    /// By what.
    pub protection: Protection,
    /// How much.
    pub counts: Counts,
    /// The first current objects, at most [`EXAMPLES`], as `secrets/prod/db`.
    pub examples: Vec<String>,
}

/// A value that is counted nowhere, because its header cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The object, or its key in etcd.
    pub object: String,
    /// Where the value was found.
    pub place: Place,
    /// In which snapshot file, if not in etcd.
    pub snapshot: Option<String>,
    /// What is wrong with it.
    pub reason: Malformed,
}

/// The counts of one audit.
#[derive(Debug, Clone)]
pub struct Tally {
    prefix: String,
    rows: Vec<Row>,
    /// From a row's label to its place in `rows`.
    index: HashMap<Box<[u8]>, u32>,
    exceptions: Vec<Exception>,
    exception_count: u64,
    foreign: u64,
    label: Vec<u8>,
    verifying: Option<Verifying>,
}

impl Tally {
    /// An empty one, for objects whose keys begin with this prefix (`/registry`, without a final
    /// slash).
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            rows: Vec::new(),
            index: HashMap::new(),
            exceptions: Vec::new(),
            exception_count: 0,
            foreign: 0,
            label: Vec::new(),
            verifying: None,
        }
    }

    /// The same, which also looks behind the headers if there is something to open them with.
    pub fn verifying(self, verifier: Option<&Verifier>) -> Self {
        Self {
            verifying: verifier.map(Verifying::new),
            ..self
        }
    }

    /// What was found behind the headers, if somebody looked.
    pub fn verified(&self) -> Option<&Verified> {
        self.verifying.as_ref().map(|verifying| &verifying.found)
    }

    /// Counts one value, and says in which row (an index into [`Tally::rows`]). `None` for an
    /// exception, and for a plain value outside of the prefix, which is no object: Claviger's own
    /// keys, and those of others.
    pub fn add(&mut self, place: Place, key: &[u8], value: &[u8]) -> Option<u32> {
        let name = Name::parse(key, &self.prefix);
        let row = match (Header::parse(value), name) {
            (Ok(Header::Plaintext), None) => {
                self.foreign += 1;
                return None;
            }
            (Ok(header), name) => {
                if let Some(verifying) = &mut self.verifying {
                    verifying.look(place, (key, name), (value, header));
                }
                self.row(name.map(|name| name.kind), header)
            }
            (Err(reason), _) => Err(reason),
        };
        match row {
            Ok(row) => {
                self.count(row, place, 1);
                self.remember(row, place, key, name);
                Some(row)
            }
            Err(reason) => {
                self.except(place, key, reason);
                None
            }
        }
    }

    /// Counts a value that an earlier audit read: what protects it, or none for what is no object.
    pub(super) fn add_known(&mut self, key: &[u8], protection: Option<&Protection>) -> Option<u32> {
        let Some(protection) = protection else {
            self.foreign += 1;
            return None;
        };
        let name = Name::parse(key, &self.prefix);
        match self.row(name.map(|name| name.kind), protection.as_header()) {
            Ok(row) => {
                self.count(row, Place::Current, 1);
                self.remember(row, Place::Current, key, name);
                Some(row)
            }
            Err(reason) => {
                self.except(Place::Current, key, reason);
                None
            }
        }
    }

    /// Counts one more value of a row, that an earlier audit read.
    pub(super) fn add_again(&mut self, row: u32, key: &[u8]) {
        self.count(row, Place::Current, 1);
        let examples = self.rows.get(row as usize).map(|row| row.examples.len());
        if examples.is_some_and(|examples| examples < EXAMPLES) {
            let name = Name::parse(key, &self.prefix);
            self.remember(row, Place::Current, key, name);
        }
    }

    /// Adds what one snapshot file has: of the file's tally, current values and history together.
    pub fn add_snapshot(&mut self, name: &str, file: &Self) {
        for theirs in &file.rows {
            let values = theirs.counts.current + theirs.counts.history;
            if values == 0 {
                continue;
            }
            let kind = theirs.resource.as_ref();
            let at = self.rows.iter().position(|row| {
                row.resource.as_ref() == kind && row.protection == theirs.protection
            });
            let at = at.unwrap_or_else(|| {
                self.rows.push(Row {
                    counts: Counts::default(),
                    examples: Vec::new(),
                    ..theirs.clone()
                });
                self.rows.len() - 1
            });
            if let Some(row) = self.rows.get_mut(at) {
                row.counts.snapshot_values += values;
                row.counts.snapshots += 1;
            }
        }
        for exception in &file.exceptions {
            self.keep(Exception {
                snapshot: Some(name.to_owned()),
                ..exception.clone()
            });
        }
        self.exception_count += file.exception_count;
        if let (Some(ours), Some(found)) = (&mut self.verifying, file.verified()) {
            ours.found.add_snapshot(name, found);
        }
    }

    /// Adds what was found elsewhere of the same etcd: its history.
    pub fn add_history(&mut self, history: &Self) {
        for theirs in &history.rows {
            let at = self.rows.iter().position(|row| {
                row.resource == theirs.resource && row.protection == theirs.protection
            });
            match at.and_then(|at| self.rows.get_mut(at)) {
                Some(row) => row.counts.history += theirs.counts.history,
                None => self.rows.push(theirs.clone()),
            }
        }
        for exception in &history.exceptions {
            self.keep(exception.clone());
        }
        self.exception_count += history.exception_count;
        if let (Some(ours), Some(found)) = (&mut self.verifying, history.verified()) {
            ours.found.add_history(found);
        }
    }

    /// Notes a value that cannot be counted.
    pub fn except(&mut self, place: Place, key: &[u8], reason: Malformed) {
        let object = shown(key, Name::parse(key, &self.prefix));
        self.keep(Exception {
            object,
            place,
            snapshot: None,
            reason,
        });
        self.exception_count += 1;
    }

    /// Everything that was counted, in the order in which it was first seen.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The first [`EXCEPTIONS`] values that could not be counted.
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// How many values could not be counted.
    pub fn exception_count(&self) -> u64 {
        self.exception_count
    }

    /// How many plain values lie outside of the prefix: no objects of this cluster.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    fn row(&mut self, kind: Option<&str>, header: Header<'_>) -> Result<u32, Malformed> {
        self.label.clear();
        let names = match header {
            Header::Plaintext => ["", "", ""],
            Header::KmsV2 { provider, key_id } => ["kms:v2", provider, key_id],
            Header::Other { scheme, name } => [scheme, name, ""],
        };
        // Of these only the key id may hold a NUL, and it is the last. A kind is never empty.
        for name in [kind.unwrap_or_default()].iter().chain(&names) {
            self.label.extend_from_slice(name.as_bytes());
            self.label.push(0);
        }
        if let Some(row) = self.index.get(self.label.as_slice()) {
            return Ok(*row);
        }
        let row = u32::try_from(self.rows.len())
            .ok()
            .filter(|_| self.rows.len() < MAX_ROWS)
            .ok_or(Malformed::TooMany)?;
        self.rows.push(Row {
            resource: kind.map(Resource::stored_under),
            protection: header.to_protection(),
            counts: Counts::default(),
            examples: Vec::new(),
        });
        self.index.insert(self.label.as_slice().into(), row);
        Ok(row)
    }

    fn count(&mut self, row: u32, place: Place, more: u64) {
        if let Some(row) = self.rows.get_mut(row as usize) {
            match place {
                Place::Current => row.counts.current += more,
                Place::History => row.counts.history += more,
            }
        }
    }

    fn remember(&mut self, row: u32, place: Place, key: &[u8], name: Option<Name<'_>>) {
        if let Some(row) = self.rows.get_mut(row as usize)
            && place == Place::Current
            && row.examples.len() < EXAMPLES
        {
            row.examples.push(shown(key, name));
        }
    }

    fn keep(&mut self, exception: Exception) {
        if self.exceptions.len() < EXCEPTIONS {
            self.exceptions.push(exception);
        }
    }
}

/// The object that lies under a key, for people.
fn shown(key: &[u8], name: Option<Name<'_>>) -> String {
    match name {
        Some(name) => name.to_string(),
        None => key.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY1: &[u8] = b"k8s:enc:aescbc:v1:key1:x";
    const KEY2: &[u8] = b"k8s:enc:aescbc:v1:key2:x";

    fn counts(tally: &Tally) -> Vec<(String, Counts)> {
        let rows = tally.rows().iter();
        rows.map(|row| (row.protection.to_string(), row.counts))
            .collect()
    }

    #[test]
    fn values_are_counted_by_resource_protection_and_place() {
        let mut tally = Tally::new("/registry");
        assert_eq!(
            tally.add(Place::Current, b"/registry/secrets/a/1", KEY1),
            Some(0)
        );
        assert_eq!(
            tally.add(Place::Current, b"/registry/secrets/a/2", KEY2),
            Some(1)
        );
        assert_eq!(
            tally.add(Place::History, b"/registry/secrets/b/3", KEY1),
            Some(0)
        );
        assert_eq!(
            tally.add(Place::Current, b"/registry/pods/a/4", KEY1),
            Some(2)
        );
        assert_eq!(tally.rows()[0].counts.current, 1);
        assert_eq!(tally.rows()[0].counts.history, 1);
        assert_eq!(tally.rows()[0].examples, ["secrets/a/1"]);
        assert_eq!(
            tally.rows()[2].resource,
            Some(Resource::stored_under("pods"))
        );
    }

    #[test]
    fn outside_of_the_prefix_only_what_is_encrypted_counts() {
        let mut tally = Tally::new("/registry");
        assert_eq!(
            tally.add(Place::Current, b"/claviger/prod/keyring", b"{}"),
            None
        );
        assert_eq!(
            tally.add(Place::Current, b"/other/secrets/a/1", KEY1),
            Some(0)
        );
        assert_eq!(tally.foreign(), 1);
        assert_eq!(tally.rows()[0].resource, None);
    }

    #[test]
    fn what_cannot_be_read_is_listed_and_not_counted() {
        let mut tally = Tally::new("/registry");
        for n in 0..EXCEPTIONS + 1 {
            let key = format!("/registry/secrets/a/{n}");
            assert_eq!(tally.add(Place::History, key.as_bytes(), b"k8s:enc:"), None);
        }
        assert_eq!(tally.rows(), []);
        assert_eq!(tally.exceptions().len(), EXCEPTIONS);
        assert_eq!(tally.exception_count(), EXCEPTIONS as u64 + 1);
        assert_eq!(tally.exceptions()[0].object, "secrets/a/0");
    }

    #[test]
    fn more_rows_than_may_be_are_exceptions() {
        let mut tally = Tally::new("/registry");
        for n in 0..=MAX_ROWS {
            let value = format!("k8s:enc:aescbc:v1:key{n}:x");
            tally.add(Place::Current, b"/registry/secrets/a/1", value.as_bytes());
        }
        assert_eq!(tally.rows().len(), MAX_ROWS);
        assert_eq!(tally.exceptions()[0].reason, Malformed::TooMany);
        // Those that are known are counted on.
        let again = tally.add(
            Place::Current,
            b"/registry/secrets/a/2",
            b"k8s:enc:aescbc:v1:key0:x",
        );
        assert_eq!(again, Some(0));
    }

    #[test]
    fn history_and_snapshots_are_added_to_the_rows_they_belong_to() {
        let mut tally = Tally::new("/registry");
        tally.add(Place::Current, b"/registry/secrets/a/1", KEY1);
        let mut history = Tally::new("/registry");
        history.add(Place::History, b"/registry/secrets/a/2", KEY2);
        history.add(Place::History, b"/registry/secrets/a/2", KEY1);
        tally.add_history(&history);
        let mut file = Tally::new("/registry");
        file.add(Place::Current, b"/registry/secrets/a/1", KEY2);
        file.add(Place::History, b"/registry/secrets/a/1", KEY2);
        file.add(Place::Current, b"/registry/secrets/a/2", b"k8s:enc:");
        tally.add_snapshot("one", &file);
        tally.add_snapshot("two", &file);
        let expected = [("aescbc:key1", [1, 1, 0, 0]), ("aescbc:key2", [0, 1, 4, 2])];
        let expected = expected.map(|(name, [current, history, snapshot_values, snapshots])| {
            let counts = Counts {
                current,
                history,
                snapshot_values,
                snapshots,
            };
            (name.to_owned(), counts)
        });
        assert_eq!(counts(&tally), expected);
        assert_eq!(tally.exception_count(), 2);
        assert_eq!(tally.exceptions()[1].snapshot.as_deref(), Some("two"));
    }
}
