//! `claviger member`: who must acknowledge a keyring before anybody writes with its new key.

use std::io::{self, Write};

use claviger_keystore::key::KeyId;
use claviger_keystore::member::{Found, Member, MemberName};
use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring::{self, Opened, refused};
use super::output::{Answer, Output, Style};
use crate::config::Config;

/// What to do with members.
#[derive(Debug, clap::Subcommand)]
pub(super) enum MemberCommand {
    /// Every member, and what it last said of itself
    List,
    /// Wait for this member no more: it is gone for good
    Remove {
        /// Its name
        name: MemberName,
    },
}

/// Runs `member`.
pub(super) async fn run(
    config: &Config,
    command: &MemberCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    match command {
        MemberCommand::List => {
            let doing = "listing the members";
            let opened = keyring::open(config, doing).await?;
            let members = rows(&opened, doing, now).await?;
            output.print(&Members { members })?;
        }
        MemberCommand::Remove { name } => remove(config, name, now, output).await?,
    }
    Ok(Exit::Done)
}

async fn remove(
    config: &Config,
    name: &MemberName,
    now: Timestamp,
    output: &Output,
) -> Result<(), Failure> {
    let doing = format!("removing member {name}");
    let opened = keyring::open(config, &doing).await?;
    let members = opened.keystore.members().await;
    let members = members.map_err(|e| refused(&doing, &e))?;
    let refuse = |exit, cause: String, next: &str| Err(Failure::new(exit, &doing, cause, next));
    match members.iter().find(|member| member.name == *name) {
        None => {
            let cause = format!("no member {name} has a record");
            return refuse(Exit::Usage, cause, "claviger member list shows their names");
        }
        Some(member) if member.fresh(now).is_some() => {
            let cause = format!("{name} runs: its record was written within the last 3 minutes");
            let next = "stop claviger serve there first; it would write its record again";
            return refuse(Exit::Refused, cause, next);
        }
        Some(_) => {}
    }
    let removed = opened.keystore.remove_member(name, now).await;
    removed.map_err(|e| refused(&doing, &e))?;
    let members = rows(&opened, &doing, now).await?;
    output.print(&Members { members })
}

/// Every member, as lists show it.
pub(super) async fn rows(
    opened: &Opened,
    doing: &str,
    now: Timestamp,
) -> Result<Vec<MemberRow>, Failure> {
    let members = opened.keystore.members().await;
    let members = members.map_err(|e| refused(doing, &e))?;
    Ok(members
        .iter()
        .map(|member| MemberRow::of(member, now))
        .collect())
}

/// One member, as lists show it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MemberRow {
    pub(super) name: String,
    pub(super) state: MemberState,
    /// When it wrote its record, or was removed.
    pub(super) seen: Option<Timestamp>,
    /// The revision that it has loaded.
    pub(super) revision: Option<u64>,
    /// What it answers Status with.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(super) answers: Option<KeyId>,
    /// The key on which all its apiservers have converged, and since when.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(super) converged: Option<KeyId>,
    pub(super) converged_since: Option<Timestamp>,
    /// Its connections that asked Status.
    pub(super) connections: u32,
    /// The keys that nothing can be written under any more through it.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub(super) quiet: Vec<KeyId>,
}

/// How much a member's record is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) enum MemberState {
    /// It wrote its record within the last three minutes.
    Ok,
    /// It did not, so nobody knows how it is.
    Unknown,
    /// Its record cannot be believed.
    Unreadable,
    /// It was removed by name.
    Removed,
}

impl MemberState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
            Self::Removed => "removed",
        }
    }
}

impl MemberRow {
    pub(super) fn of(member: &Member, now: Timestamp) -> Self {
        let record = member.record();
        let (state, seen) = match &member.found {
            Found::Record(record) if record.is_fresh(now) => {
                (MemberState::Ok, Some(record.written))
            }
            Found::Record(record) => (MemberState::Unknown, Some(record.written)),
            Found::Removed(removed) => (MemberState::Removed, Some(*removed)),
            Found::Unreadable(_) => (MemberState::Unreadable, None),
        };
        let converged = record.and_then(|record| record.converged);
        let quiet = record.map(|record| record.quiet.iter().map(|quiet| quiet.id).collect());
        Self {
            name: member.name.to_string(),
            state,
            seen,
            revision: record.map(|record| record.acknowledged.revision),
            answers: record.and_then(|record| record.answers),
            converged: converged.map(|converged| converged.id),
            converged_since: converged.map(|converged| converged.since),
            connections: record.map_or(0, |record| record.connections.open),
            quiet: quiet.unwrap_or_default(),
        }
    }

    /// The columns of screens: member, record, revision, answers, apiserver.
    pub(super) fn text(&self, style: Style, now: Timestamp) -> String {
        let state = format!("{:<11}", self.state.as_str());
        let state = match self.state {
            MemberState::Ok => state,
            MemberState::Removed => style.warn(&state),
            MemberState::Unknown | MemberState::Unreadable => style.bad(&state),
        };
        let revision = self.revision.map_or("-".to_owned(), |r| r.to_string());
        let answers = self.answers.map_or("-".to_owned(), |id| id.short());
        format!(
            "{:<16}{state}{revision:<10}{answers:<10}{}",
            self.name,
            self.apiserver(now)
        )
    }

    fn apiserver(&self, now: Timestamp) -> String {
        match (self.converged, self.converged_since) {
            (Some(id), Some(since)) if Some(id) == self.answers => {
                format!("converged, {}", ago(since, now))
            }
            _ if self.state != MemberState::Ok => "-".to_owned(),
            _ => match self.connections {
                0 => "none connected".to_owned(),
                1 => "moving on, 1 connection".to_owned(),
                n => format!("moving on, {n} connections"),
            },
        }
    }
}

/// How long ago something was, in the largest unit that says enough.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The heading above the columns of [`MemberRow::text`].
pub(super) fn heading() -> String {
    format!(
        "{:<16}{:<11}{:<10}{:<10}APISERVER",
        "MEMBER", "RECORD", "REVISION", "ANSWERS"
    )
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Members {
    members: Vec<MemberRow>,
}

impl Answer for Members {
    const KIND: &'static str = "MemberList";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        writeln!(out, "{}", style.strong(&heading()))?;
        let now = Timestamp::now();
        for member in &self.members {
            writeln!(out, "{}", member.text(style, now))?;
        }
        Ok(())
    }
}
