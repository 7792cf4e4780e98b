//! The answer for people.

use std::io::{self, Write};

use super::keys::KeyVerdict;
use super::{Report, RowShown};
use crate::cli::audit::cluster::WITHOUT_CONFIGURATION;
use crate::cli::audit::snapshots::Asked;
use crate::cli::output::{Answer, Style, grouped};

impl Answer for Report {
    const KIND: &'static str = "Audit";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if let Some(objects) = &self.objects {
            for object in objects.objects()? {
                let object = object?;
                writeln!(out, "{}  {}", object.object, object.protected_by)?;
            }
        }
        self.heading(out)?;
        self.table(out, style)?;
        let keys = self.keys.iter().filter(|key| key.snapshots > 0);
        let keys = keys.map(|key| Asked {
            key: &key.shown,
            kinds: &key.kinds,
        });
        self.snapshots.write(&keys.collect::<Vec<_>>(), out)?;
        self.gaps(out, style)?;
        for key in &self.keys {
            self.key(key, out, style)?;
        }
        for claim in &self.claims {
            writeln!(out, "{} {claim}", style.strong("Shown:"))?;
        }
        match &self.next {
            Some(next) => writeln!(out, "{}  {next}", style.strong("Next:")),
            None => Ok(()),
        }
    }
}

impl Report {
    fn heading(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(etcd) = &self.etcd {
            let host = etcd.endpoint.split("://").last().unwrap_or_default();
            write!(out, "etcd {host}, revision {}, ", etcd.revision)?;
            write!(out, "whole keyspace, {} keys", grouped(etcd.keys))?;
            if etcd.values_read < etcd.keys {
                let known = etcd.keys - etcd.values_read;
                write!(out, ", {} unchanged since", grouped(known))?;
            }
            writeln!(out, "; history from revision {}", etcd.history_from)?;
        }
        Ok(())
    }

    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let widest = |heading: &str, width: &dyn Fn(&RowShown) -> usize| {
            let rows = self.rows.iter().map(width);
            rows.max().unwrap_or_default().max(heading.len()) + 2
        };
        let resource = widest("RESOURCE", &|row| row.resource.chars().count());
        let protected = widest("PROTECTED BY", &|row| row.protection.shown.chars().count());
        let snapshots = match self.snapshots.files.is_empty() {
            true => "",
            false => "   SNAPSHOTS",
        };
        let heading = format!(
            "{:<resource$}{:<protected$}{:>11}{:>11}{snapshots}",
            "RESOURCE", "PROTECTED BY", "CURRENT", "HISTORY"
        );
        writeln!(out, "{}", style.strong(&heading))?;
        for row in &self.rows {
            let by = format!("{:<protected$}", row.protection.shown);
            let by = match row.stale && row.current > 0 {
                true => style.warn(&by),
                false => by,
            };
            let (current, history) = (grouped(row.current), grouped(row.history));
            let name = &row.resource;
            write!(out, "{name:<resource$}{by}{current:>11}{history:>11}")?;
            match self.snapshots.files.is_empty() {
                true => writeln!(out)?,
                false => writeln!(out, "{:>12}", row.snapshots)?,
            }
        }
        if self.clear_objects > 0 {
            let clear = objects(self.clear_objects);
            let others = match self.encryption_configuration {
                true => "that are not to be encrypted",
                false => "of which none is encrypted",
            };
            writeln!(out, "{clear} in the clear of resources {others}")?;
        }
        match self.encryption_configuration {
            true => Ok(()),
            false => writeln!(out, "note: {WITHOUT_CONFIGURATION}"),
        }
    }

    fn gaps(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for exception in &self.exceptions.first {
            let place = match (&exception.snapshot, exception.history) {
                (Some(file), _) => format!(", in {file}"),
                (None, true) => ", in history".to_owned(),
                (None, false) => String::new(),
            };
            let (object, reason) = (&exception.object, &exception.reason);
            writeln!(out, "{} {object}{place}: {reason}", style.bad("EXCEPTION"))?;
        }
        let more = self.exceptions.count - self.exceptions.first.len() as u64;
        if more > 0 {
            writeln!(out, "{} and {more} more", style.bad("EXCEPTION"))?;
        }
        // Where nothing is amiss a claim says it.
        match &self.verified {
            Some(verified) if self.exceptions.count > 0 => {
                let (opened, failed) = (verified.opened(), verified.failed);
                let all = grouped(opened + failed);
                let sentence = format!(
                    "{} of {all} values under keys of Claviger's open",
                    grouped(opened)
                );
                writeln!(out, "{}", style.warn(&sentence))
            }
            _ => Ok(()),
        }
    }

    fn key(&self, key: &KeyVerdict, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if !key.needed {
            return writeln!(out, "{}: {}", key.shown, style.good("nothing names it"));
        }
        let mut live = Vec::new();
        if key.current > 0 {
            live.push(objects(key.current));
        }
        if key.history > 0 {
            live.push(format!("history of {}", grouped(key.history)));
        }
        let mut all = live.clone();
        match key.snapshots {
            0 => {}
            1 => all.push("a snapshot".to_owned()),
            n => all.push(format!("{n} snapshots")),
        }
        let (live, all) = (live.join(", "), all.join(", "));
        let no = style.bad("NO");
        match (key.ours, live.is_empty()) {
            (true, false) => writeln!(
                out,
                "{}: disable {no} ({live}), destroy {no} ({all})",
                key.shown
            )?,
            (true, true) => writeln!(out, "{}: destroy {no} ({all})", key.shown)?,
            (false, _) => writeln!(out, "{}: needed ({all})", key.shown)?,
        }
        for example in key.examples.iter().take(1) {
            match (key.current, self.objects.is_some()) {
                (0 | 1, _) | (_, true) => writeln!(out, "  {example}")?,
                (n, false) => writeln!(out, "  {example}  (+{}: --list)", grouped(n - 1))?,
            }
        }
        Ok(())
    }
}

fn objects(number: u64) -> String {
    match number {
        1 => "1 object".to_owned(),
        n => format!("{} objects", grouped(n)),
    }
}
