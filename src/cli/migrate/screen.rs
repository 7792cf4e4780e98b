//! What a migration answers.

use std::io::{self, Write};

use claviger_keystore::key::{KeyId, KeyState};
use serde::Serialize;

use crate::audit::keyspace::Live;
use crate::audit::object::{Protection, Resource};
use crate::audit::scope::Scope;
use crate::audit::tally::Row;
use crate::cli::failure::Exit;
use crate::cli::output::{Answer, Style};
use crate::migrate::rewrite::{Failed, Tally};
use crate::migrate::stale::Stale;

/// How many failures are shown to people; scripts are told up to a thousand.
const SHOWN: usize = 20;

/// What was stale, what became of it, and what an audit found afterwards.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Migration {
    /// Whether nothing was to be rewritten.
    dry_run: bool,
    /// The etcd that was audited.
    etcd: String,
    /// The revision at which it was audited last.
    revision: i64,
    /// What was stale, by resource and protection.
    rows: Vec<Stage>,
    /// Objects that were stale.
    stale: u64,
    /// Objects that kube-apiserver says it stored anew.
    rewritten: u64,
    /// Objects that were deleted before their turn.
    deleted: u64,
    /// Objects that could not be rewritten.
    failed: u64,
    /// The first thousand of them.
    failures: Vec<Failed>,
    /// Why not every object had its turn.
    stopped: Option<String>,
    /// Objects that are stale now, by an audit after the rewriting; null if there was none.
    left: Option<u64>,
    /// Values whose header no audit can read, so that nobody knows what protects them.
    exceptions: u64,
}

/// One resource under one protection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Stage {
    #[cfg_attr(test, schemars(with = "String"))]
    resource: Resource,
    /// A key id with its provider, another provider with the name of its key, or `plaintext`.
    protected_by: String,
    /// As people are shown it.
    #[serde(skip)]
    shown: String,
    /// Stale objects before.
    before: u64,
    /// Stale objects after; null if no audit followed.
    left: Option<u64>,
}

impl Migration {
    /// What an audit found, of which nothing was rewritten yet.
    pub(super) fn new(etcd: String, before: &Live, stale: &Stale, dry_run: bool) -> Self {
        let rows: Vec<_> = stages(before, stale).collect();
        Self {
            dry_run,
            etcd,
            revision: before.pin.revision,
            stale: rows.iter().map(|row| row.before).sum(),
            rows,
            rewritten: 0,
            deleted: 0,
            failed: 0,
            failures: Vec::new(),
            stopped: None,
            left: None,
            exceptions: before.tally.exception_count(),
        }
    }

    /// How many objects are stale.
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    /// What became of them.
    pub(super) fn rewrote(&mut self, tally: Tally) {
        self.rewritten = tally.rewritten;
        self.deleted = tally.deleted;
        self.failed = tally.failed;
        self.failures = tally.failures;
    }

    /// Not every object had its turn.
    pub(super) fn stopped(&mut self, why: String) {
        self.stopped = Some(why);
    }

    /// What an audit found afterwards.
    pub(super) fn audited(&mut self, after: &Live, stale: &Stale) {
        let mut now: Vec<_> = stages(after, stale).collect();
        self.revision = after.pin.revision;
        self.exceptions = after.tally.exception_count();
        self.left = Some(now.iter().map(|row| row.before).sum());
        for row in &mut self.rows {
            let same = |other: &Stage| {
                other.resource == row.resource && other.protected_by == row.protected_by
            };
            let at = now.iter().position(same);
            row.left = Some(at.map_or(0, |at| now.swap_remove(at).before));
        }
        // Written meanwhile.
        self.rows.extend(now.into_iter().map(|row| Stage {
            left: Some(row.before),
            before: 0,
            ..row
        }));
    }

    /// How the command ends.
    pub(super) fn exit(&self) -> Exit {
        match (self.dry_run, self.left, self.exceptions) {
            (true, ..) => match self.stale {
                0 => Exit::Done,
                _ => Exit::No,
            },
            (false, None, _) if self.stale > 0 => Exit::Partly,
            (false, Some(left), _) if left > 0 => Exit::Partly,
            // Never "clean" over a gap.
            (false, _, exceptions) if exceptions > 0 => Exit::No,
            _ => Exit::Done,
        }
    }

    fn sentence(&self, style: Style) -> String {
        let revision = self.revision;
        match self.left {
            _ if self.dry_run && self.stale > 0 => {
                format!("{} objects would be rewritten", self.stale)
            }
            None if self.stale == 0 => style.good("nothing is to be rewritten"),
            None => style.warn("not all had their turn; claviger migrate goes on with the rest"),
            Some(0) => style.good(&format!(
                "none is left at etcd revision {revision}, of current objects"
            )),
            Some(left) => style.bad(&format!(
                "{left} objects are left at etcd revision {revision}; claviger migrate tries them \
                 again"
            )),
        }
    }

    fn next(&self) -> Option<&'static str> {
        match (self.exit(), self.dry_run) {
            (Exit::Done, false) => Some("claviger audit: what history and snapshots still need"),
            (Exit::No, true) => Some("claviger migrate"),
            (Exit::No, false) => Some("claviger audit lists the values that nobody can read"),
            _ if self.left > Some(self.failed) => Some(
                "kube-apiserver still stores some as they were: has every one loaded the \
                 EncryptionConfiguration that is meant? claviger status, claviger check",
            ),
            _ => None,
        }
    }
}

fn stages<'a>(live: &'a Live, stale: &'a Stale) -> impl Iterator<Item = Stage> + 'a {
    let scope = stale.scope();
    let stage = |row: &Row| {
        let resource = row.resource.clone()?;
        (row.counts.current > 0 && stale.is(row, &live.tally)).then(|| Stage {
            resource,
            protected_by: row.protection.to_string(),
            shown: shown(&row.protection, scope),
            before: row.counts.current,
            left: None,
        })
    };
    live.tally.rows().iter().filter_map(stage)
}

/// `3f2a90b1 retired`, where the keyring knows the key.
fn shown(protection: &Protection, scope: &Scope) -> String {
    let known: Option<(KeyId, KeyState)> = scope.state(protection);
    match known {
        Some((id, state)) => format!("{} {}", id.short(), state.as_str()),
        None => protection.to_string(),
    }
}

impl Answer for Migration {
    const KIND: &'static str = "Migration";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if !self.rows.is_empty() {
            self.table(out, style)?;
        }
        if self.rewritten + self.deleted + self.failed > 0 {
            let failed = match self.failed {
                0 => "0 failed".to_owned(),
                failed => style.bad(&format!("{failed} failed")),
            };
            writeln!(
                out,
                "{} rewritten, {} deleted meanwhile, {failed}",
                self.rewritten, self.deleted
            )?;
        }
        for failure in self.failures.iter().take(SHOWN) {
            writeln!(out, "  {}: {}", failure.object, failure.reason)?;
        }
        if self.failed > SHOWN as u64 {
            let more = self.failed - SHOWN as u64;
            writeln!(out, "  and {more} more (-o json lists up to a thousand)")?;
        }
        if let Some(why) = &self.stopped {
            writeln!(out, "{}: {why}", style.bad("stopped"))?;
        }
        writeln!(out, "{}", self.sentence(style))?;
        if self.exceptions > 0 {
            let gap = format!(
                "{} values have headers that nobody can read",
                self.exceptions
            );
            writeln!(out, "{}", style.bad(&gap))?;
        }
        match self.next() {
            Some(next) => writeln!(out, "Next: {next}"),
            None => Ok(()),
        }
    }
}

impl Migration {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let width = |least: usize, cells: &mut dyn Iterator<Item = usize>| {
            cells.chain([least]).max().unwrap_or(least)
        };
        let resources: Vec<_> = self
            .rows
            .iter()
            .map(|row| row.resource.to_string())
            .collect();
        let first = width(8, &mut resources.iter().map(|name| name.chars().count()));
        let second = width(
            12,
            &mut self.rows.iter().map(|row| row.shown.chars().count()),
        );
        let heading = format!(
            "{:<first$}  {:<second$}  {:>8}  {:>8}",
            "RESOURCE", "PROTECTED BY", "BEFORE", "LEFT"
        );
        writeln!(out, "{}", style.strong(&heading))?;
        for (row, resource) in self.rows.iter().zip(resources) {
            let left = row.left.map_or("-".to_owned(), |left| left.to_string());
            writeln!(
                out,
                "{resource:<first$}  {:<second$}  {:>8}  {left:>8}",
                row.shown, row.before
            )?;
        }
        Ok(())
    }
}
