//! The page that `claviger status` shows people.

use std::io::{self, Write};

use jiff::Timestamp;

use super::audited::{HEADING, LastSnapshots};
use super::{LastBackup, Status};
use crate::cli::member::{self, ago};
use crate::cli::output::{Answer, Style, date};
use crate::cli::slot::SlotRow;

impl Answer for Status {
    const KIND: &'static str = "Status";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let name = self
            .keyring
            .cluster_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let now = Timestamp::now();
        let health = match (&self.rotation, self.healthy) {
            (_, false) => style.bad("NOT HEALTHY"),
            (Some(rotation), true) => style.warn(&rotation.headline(now)),
            (None, true) => style.good("HEALTHY"),
        };
        let title = format!("{}  claviger {}", name.unwrap_or("(unnamed)"), self.version);
        writeln!(out, "{title:<44}{health}")?;
        self.key_table(out, style)?;
        if !self.members.is_empty() {
            writeln!(out, "{}", style.strong(&member::heading()))?;
        }
        for member in &self.members {
            writeln!(out, "{}", member.text(style, now))?;
        }
        let slots: Vec<_> = self.slots.iter().map(slot_text).collect();
        if !slots.is_empty() {
            writeln!(out, "{}   {}", style.strong("SLOTS"), slots.join("; "))?;
        }
        if let Some(revision) = self.keyring.revision {
            let place = &self.keyring.place;
            writeln!(
                out,
                "{} revision {revision}, {place}",
                style.strong("KEYRING")
            )?;
        }
        if let Some(id) = &self.plugin.answers {
            let socket = &self.plugin.socket;
            writeln!(out, "{}  answers {id} on {socket}", style.strong("PLUGIN"))?;
        }
        self.last_done(out, style, now)?;
        if let Some(next) = &self.next {
            writeln!(out, "{}    {next}", style.strong("NEXT"))?;
        }
        for problem in &self.problems {
            writeln!(out, "{} {problem}", style.bad("PROBLEM"))?;
        }
        Ok(())
    }
}

impl Status {
    /// Every key, and what it protected when that was last looked at.
    fn key_table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let heading = format!("{:<11}{:<11}{:<10}{HEADING}", "KEY", "STATE", "CREATED");
        writeln!(out, "{}", style.strong(&heading))?;
        for key in &self.keys {
            let (id, state, created) = (key.id.short(), key.state.as_str(), date(key.created));
            let protects = key.protects.text();
            writeln!(out, "{id:<11}{state:<11}{created:<10}{protects}")?;
        }
        match &self.plaintext {
            Some(protects) => writeln!(out, "{:<32}{}", "plaintext", protects.text()),
            None => Ok(()),
        }
    }

    /// What was done with the keyring last, as it was noted beside it.
    fn last_done(&self, out: &mut dyn Write, style: Style, now: Timestamp) -> io::Result<()> {
        let heading = style.strong("BACKUP");
        match &self.backup {
            None => writeln!(
                out,
                "{heading}  never made here; claviger backup --out FILE"
            )?,
            Some(LastBackup { revision, at }) => {
                let at = ago(*at, now);
                let behind = match self.keyring.revision == Some(*revision) {
                    true => String::new(),
                    false => style.warn(", the keyring changed since"),
                };
                writeln!(out, "{heading}  revision {revision}, {at} ago{behind}")?;
            }
        }
        if let Some(LastSnapshots { at, files }) = self.snapshots {
            let (heading, at) = (style.strong("SNAPSHOTS"), ago(at, now));
            let files = match files {
                1 => "1 file".to_owned(),
                n => format!("{n} files"),
            };
            writeln!(out, "{heading}  {files}, audited {at} ago")?;
        }
        let Some(audit) = &self.audit else {
            return Ok(());
        };
        let (at, revision) = (ago(audit.at, now), audit.etcd_revision);
        let stale = match audit.stale {
            0 => "nothing stale".to_owned(),
            stale => style.warn(&format!("{stale} stale objects")),
        };
        let exceptions = match audit.exceptions {
            0 => String::new(),
            n => style.bad(&format!(", {n} values that could not be read")),
        };
        let heading = style.strong("AUDIT");
        writeln!(
            out,
            "{heading}   {at} ago, etcd revision {revision}, {stale}{exceptions}"
        )
    }
}

fn slot_text(slot: &SlotRow) -> String {
    match slot.last_tested {
        Some(at) => format!("{} {}, tested {}", slot.name, slot.kind, date(at)),
        None => format!("{} {}", slot.name, slot.kind),
    }
}
