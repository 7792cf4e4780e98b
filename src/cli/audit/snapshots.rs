//! `--snapshot FILE…`: what snapshot files hold, and until when somebody may want to restore them.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::audit::object::{Protection, Resource};
use crate::audit::snapshot::{About, Revisions, Snapshot, SnapshotError};
use crate::audit::tally::{Row, Tally};
use crate::audit::verify::Verifier;
use crate::cli::failure::{Exit, Failure};

/// So many files are shown one by one.
const FEW: usize = 3;

/// A snapshot that was read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotRow {
    file: String,
    revision: i64,
    /// When the file was last written.
    written: Timestamp,
    /// Whether etcd's SHA-256 is at its end, so that a changed value would show.
    hashed: bool,
    /// Up to where its history is compacted; 0 where it never was.
    compacted: i64,
    /// Up to where a compaction was under way: its history has gaps until there.
    compacting: Option<i64>,
    #[serde(skip)]
    kinds: BTreeSet<Kind>,
}

/// A resource, and what protects it.
pub(super) type Kind = (Option<Resource>, Protection);

/// A key that may have to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// How it is shown.
    pub(super) key: &'a str,
    /// What it protects.
    pub(super) kinds: &'a BTreeSet<Kind>,
}

/// All that were read.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(super) struct Snapshots {
    pub(super) files: Vec<SnapshotRow>,
    /// Whether older revisions were asked for.
    #[serde(skip)]
    pub(super) all_revisions: bool,
    /// How long snapshots are kept, in seconds, where a policy says it.
    #[serde(skip)]
    retention: Option<u64>,
}

impl SnapshotRow {
    fn new(path: &Path, about: &About, tally: &Tally) -> Self {
        let rows = tally.rows().iter().filter(|row| {
            let values = row.counts.current + row.counts.history;
            values > 0
        });
        Self {
            file: path.display().to_string(),
            revision: about.revision,
            written: about.modified,
            hashed: about.hashed,
            compacted: about.compacted,
            compacting: about.compacting,
            kinds: rows.map(kind).collect(),
        }
    }
}

/// How files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) revisions: Revisions,
    /// How long snapshots are kept, in seconds, where a policy says it.
    pub(super) retention: Option<u64>,
    /// What opens objects, if they are to be opened.
    pub(super) verifier: Option<&'a Verifier>,
}

impl Reading<'_> {
    /// Reads all files and adds them to the tally. One that cannot be read ends the audit: what it
    /// holds is unknown.
    pub(super) fn read(
        self,
        paths: &[PathBuf],
        prefix: &str,
        tally: &mut Tally,
    ) -> Result<Snapshots, Failure> {
        let mut files = Vec::new();
        for path in paths {
            let counted = Snapshot::open(path).and_then(|snapshot| {
                let counted = snapshot.tally_verifying(self.revisions, prefix, self.verifier)?;
                Ok((snapshot.about().clone(), counted))
            });
            let (about, counted) = counted.map_err(|e| unreadable(path, &e))?;
            tally.add_snapshot(&path.display().to_string(), &counted);
            files.push(SnapshotRow::new(path, &about, &counted));
        }
        Ok(Snapshots {
            files,
            all_revisions: self.revisions == Revisions::All,
            retention: self.retention,
        })
    }
}

fn unreadable(path: &Path, error: &SnapshotError) -> Failure {
    let (exit, next) = match error {
        SnapshotError::Open(_) | SnapshotError::NoFile => (
            Exit::Usage,
            "name a file of etcdctl snapshot save that this user may read",
        ),
        SnapshotError::Changed => (Exit::Fault, "run it again when the file is written"),
        _ => (
            Exit::Fault,
            "unpack it if it is packed; else take another snapshot, and do not count on this one \
             (etcdutl snapshot status says what etcd thinks of it). Without it in the command line, \
             the audit says nothing about it",
        ),
    };
    let doing = format!("reading the snapshot {}", path.display());
    Failure::new(exit, doing, error, next)
}

/// What a row of a tally counts.
pub(super) fn kind(row: &Row) -> Kind {
    (row.resource.clone(), row.protection.clone())
}

impl Snapshots {
    /// The files in which there is something of these kinds: how many, and when the newest was written.
    pub(super) fn need(&self, kinds: &BTreeSet<Kind>) -> Option<(u64, Timestamp)> {
        need(&self.files, kinds)
    }

    /// Until when a file that was written then is kept. Whoever copies files without their times
    /// makes this later, never earlier.
    pub(super) fn kept_until(&self, written: Timestamp) -> Option<Timestamp> {
        let retention = i64::try_from(self.retention?).unwrap_or(i64::MAX);
        let until = written.checked_add(SignedDuration::from_secs(retention));
        Some(until.unwrap_or(Timestamp::MAX))
    }

    /// A line for each file, or for each folder where there are many; and one for each doubt.
    pub(super) fn write(&self, keys: &[Asked<'_>], out: &mut dyn Write) -> io::Result<()> {
        let mut rest = &self.files[..];
        while let Some(first) = rest.first() {
            let same = |file: &&SnapshotRow| folder(file) == folder(first);
            let (here, others) = rest.split_at(rest.iter().take_while(same).count());
            rest = others;
            if here.len() <= FEW {
                for file in here {
                    let needs = self.needs(std::slice::from_ref(file), keys);
                    let doubts = self.doubts(file);
                    let (file, revision) = (&file.file, file.revision);
                    writeln!(out, "snapshot {file}, revision {revision}{doubts}{needs}")?;
                }
                continue;
            }
            let (count, folder) = (here.len(), folder(first).display());
            writeln!(
                out,
                "{count} snapshots in {folder}{}",
                self.needs(here, keys)
            )?;
            let doubts = here.iter().map(|file| (file, self.doubts(file)));
            for (file, doubts) in doubts.filter(|(_, doubts)| !doubts.is_empty()) {
                writeln!(out, "  {}{doubts}", file.file)?;
            }
        }
        Ok(())
    }

    /// Which of the keys these files need, and until when.
    fn needs(&self, files: &[SnapshotRow], keys: &[Asked<'_>]) -> String {
        let keys = keys.iter().filter_map(|asked| {
            let (count, newest) = need(files, asked.kinds)?;
            let key = asked.key;
            Some(match self.kept_until(newest) {
                Some(until) => format!("{key} needed until {}", until.strftime("%Y-%m-%d")),
                None if files.len() == 1 => format!("{key} needed"),
                None => format!("{key} needed by {count}"),
            })
        });
        let keys: Vec<_> = keys.collect();
        match keys.is_empty() {
            true => String::new(),
            false => format!(": {}", keys.join(", ")),
        }
    }

    fn doubts(&self, file: &SnapshotRow) -> String {
        let checksum = match file.hashed {
            true => "",
            false => ", without a checksum (a changed value would not show)",
        };
        let history = match file.compacting.filter(|_| self.all_revisions) {
            Some(to) => format!(
                ", half compacted (history has gaps from {} to {to})",
                file.compacted
            ),
            None => String::new(),
        };
        format!("{checksum}{history}")
    }
}

fn need(files: &[SnapshotRow], kinds: &BTreeSet<Kind>) -> Option<(u64, Timestamp)> {
    let needs = |file: &&SnapshotRow| !file.kinds.is_disjoint(kinds);
    let needing = || files.iter().filter(needs);
    let newest = needing().map(|file| file.written).max()?;
    Some((needing().count() as u64, newest))
}

fn folder(file: &SnapshotRow) -> &Path {
    match Path::new(&file.file).parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(file: &str, day: i64, key_id: &str) -> SnapshotRow {
        let key_id = key_id.to_owned();
        let protection = Protection::KmsV2 {
            provider: "claviger".to_owned(),
            key_id,
        };
        SnapshotRow {
            file: file.to_owned(),
            revision: day * 100,
            written: Timestamp::from_second(day * 86_400).unwrap(),
            hashed: true,
            compacted: 7,
            compacting: None,
            kinds: BTreeSet::from([(None, protection)]),
        }
    }

    fn written(files: Vec<SnapshotRow>, all_revisions: bool, retention: Option<u64>) -> String {
        let snapshots = Snapshots {
            files,
            all_revisions,
            retention,
        };
        let old = row("", 0, "old");
        let keys = [Asked {
            key: "old",
            kinds: &old.kinds,
        }];
        let mut out = Vec::new();
        snapshots.write(&keys, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn few_files_are_shown_one_by_one_and_many_by_their_folder() {
        let few = vec![row("a.db", 1, "old"), row("b.db", 2, "new")];
        let lines = "snapshot a.db, revision 100: old needed\nsnapshot b.db, revision 200\n";
        assert_eq!(written(few, true, None), lines);

        let day = |day: i64| row(&format!("/backup/etcd/{day}.db"), day, "old");
        let line = "31 snapshots in /backup/etcd: old needed until 1970-03-03\n";
        let month = Some(30 * 86_400);
        assert_eq!(written((1..=31).map(day).collect(), false, month), line);

        let mut some: Vec<_> = (1..=30).map(day).collect();
        some.push(row("/backup/etcd/31.db", 31, "new"));
        some.push(row("late.db", 40, "new"));
        let lines = "31 snapshots in /backup/etcd: old needed by 30\n\
                     snapshot late.db, revision 4000\n";
        assert_eq!(written(some, false, None), lines);
    }

    #[test]
    fn a_doubtful_file_is_named_even_among_many() {
        let many = || {
            let mut many: Vec<_> = (1..=9).map(|day| row("d/f.db", day, "new")).collect();
            many[4].hashed = false;
            many[5].compacting = Some(9);
            many
        };
        let said = written(many(), false, None);
        let doubt = "  d/f.db, without a checksum (a changed value would not show)\n";
        assert_eq!(said, format!("9 snapshots in d\n{doubt}"));
        let said = written(many(), true, None);
        let doubt = "  d/f.db, half compacted (history has gaps from 7 to 9)\n";
        assert!(said.ends_with(doubt), "{said}");
    }

    #[test]
    fn a_key_is_needed_until_the_newest_file_that_has_it_is_gone() {
        let mut snapshots = Snapshots {
            files: vec![row("a", 1, "old"), row("b", 5, "old"), row("c", 9, "new")],
            ..Snapshots::default()
        };
        let newest = Timestamp::from_second(5 * 86_400).unwrap();
        let old = snapshots.files[0].kinds.clone();
        assert_eq!(snapshots.need(&old), Some((2, newest)));
        assert_eq!(snapshots.need(&BTreeSet::new()), None);

        assert_eq!(snapshots.kept_until(newest), None);
        snapshots.retention = Some(30 * 86_400);
        let until = "1970-02-05T00:00:00Z".parse().unwrap();
        assert_eq!(snapshots.kept_until(newest), Some(until));
        snapshots.retention = Some(u64::MAX);
        assert_eq!(snapshots.kept_until(newest), Some(Timestamp::MAX));
    }
}
