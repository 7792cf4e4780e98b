//! `claviger policy`: what must be the same on every node, and so lies in the keyring.

use std::io::{self, Write};
use std::str::FromStr;

use claviger_keystore::header::Policy;
use claviger_keystore::member::MemberName;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Unit};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring::{self, refused};
use super::output::{Answer, Output, Style};
use crate::config::Config;

/// What to do with the policy.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Show the policy
    Get,
    /// Change the policy: rotateEvery=90d, disabledFor=7d, snapshotRetention=30d,
    /// removeMemberAfter=off, replicas=cp2,cp3
    Set {
        /// What to change; durations as 90d, 12h or off, lists with commas or none
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<Change>,
    },
}

/// Runs `policy`.
pub(super) async fn run(
    config: &Config,
    command: &PolicyCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Get => {
            let doing = "reading the policy";
            let opened = keyring::open(config, doing).await?;
            output.print(&PolicyAnswer::of(&opened.keyring.header().policy))?;
        }
        PolicyCommand::Set { changes } => {
            let doing = "changing the policy";
            let opened = keyring::open(config, doing).await?;
            let policy = changed(&opened.keyring.header().policy, changes);
            let commit = opened.keystore.commit(Timestamp::now(), |keyring| {
                Ok(keyring.with_policy(policy.clone()))
            });
            commit.await.map_err(|e| refused(doing, &e))?;
            output.print(&PolicyAnswer::of(&policy))?;
        }
    }
    Ok(Exit::Done)
}

/// One `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    RotateEvery(u64),
    DisabledFor(u64),
    SnapshotRetention(u64),
    RemoveMemberAfter(u64),
    Replicas(Vec<MemberName>),
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, such as rotateEvery=90d")?;
        Ok(match key {
            "rotateEvery" => Self::RotateEvery(seconds(value)?),
            "disabledFor" => Self::DisabledFor(seconds(value)?),
            "snapshotRetention" => Self::SnapshotRetention(seconds(value)?),
            "removeMemberAfter" => Self::RemoveMemberAfter(seconds(value)?),
            "replicas" => Self::Replicas(names(value)?),
            _ => {
                return Err(format!(
                    "the policy has no {key}; it has rotateEvery, disabledFor, snapshotRetention, \
                     removeMemberAfter and replicas"
                ));
            }
        })
    }
}

/// A duration as people write it, in seconds.
pub(super) fn seconds(value: &str) -> Result<u64, String> {
    if value == "off" {
        return Ok(0);
    }
    let expected = || format!("{value} is no duration; write 90d, 12h, 30m or off");
    let span: Span = value.parse().map_err(|_| expected())?;
    let length = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| expected())?;
    match u64::try_from(length.as_secs()) {
        Ok(seconds) if seconds > 0 && length.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(format!(
            "{value} is not a whole number of seconds above 0; to turn it off, write off"
        )),
    }
}

fn names(value: &str) -> Result<Vec<MemberName>, String> {
    if value == "none" {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for name in value.split(',') {
        let name: MemberName = name.parse().map_err(|e| format!("{name}: {e}"))?;
        if names.contains(&name) {
            return Err(format!("{name} is named twice"));
        }
        names.push(name);
    }
    Ok(names)
}

fn changed(policy: &Policy, changes: &[Change]) -> Policy {
    let mut policy = policy.clone();
    for change in changes {
        match change.clone() {
            Change::RotateEvery(seconds) => policy.rotate_every = seconds,
            Change::DisabledFor(seconds) => policy.disabled_for = seconds,
            Change::SnapshotRetention(seconds) => policy.snapshot_retention = seconds,
            Change::RemoveMemberAfter(seconds) => policy.remove_member_after = seconds,
            Change::Replicas(names) => {
                policy.replicas = names.iter().map(ToString::to_string).collect();
            }
        }
    }
    policy
}

/// Durations in seconds; 0 is off.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PolicyAnswer {
    rotate_every: u64,
    disabled_for: u64,
    snapshot_retention: u64,
    remove_member_after: u64,
    replicas: Vec<String>,
}

impl PolicyAnswer {
    fn of(policy: &Policy) -> Self {
        Self {
            rotate_every: policy.rotate_every,
            disabled_for: policy.disabled_for,
            snapshot_retention: policy.snapshot_retention,
            remove_member_after: policy.remove_member_after,
            replicas: policy.replicas.clone(),
        }
    }
}

impl Answer for PolicyAnswer {
    const KIND: &'static str = "Policy";

    fn text(&self, out: &mut dyn Write, _style: Style) -> io::Result<()> {
        writeln!(out, "rotateEvery={}", duration(self.rotate_every))?;
        writeln!(out, "disabledFor={}", duration(self.disabled_for))?;
        writeln!(
            out,
            "snapshotRetention={}",
            duration(self.snapshot_retention)
        )?;
        writeln!(
            out,
            "removeMemberAfter={}",
            duration(self.remove_member_after)
        )?;
        let replicas = match self.replicas.is_empty() {
            true => "none".to_owned(),
            false => self.replicas.join(","),
        };
        writeln!(out, "replicas={replicas}")
    }
}

/// As [`seconds`] reads it.
pub(super) fn duration(seconds: u64) -> String {
    let Ok(whole) = i64::try_from(seconds) else {
        return format!("{seconds}s");
    };
    if whole == 0 {
        return "off".to_owned();
    }
    let balanced = Span::try_from(SignedDuration::from_secs(whole)).and_then(|span| {
        span.round(
            jiff::SpanRound::new()
                .largest(Unit::Day)
                .relative(SpanRelativeTo::days_are_24_hours()),
        )
    });
    balanced.map_or_else(
        |_| format!("{seconds}s"),
        |span| format!("{span:#}").replace(' ', ""),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_read_as_people_write_them() {
        for (text, change) in [
            ("rotateEvery=90d", Change::RotateEvery(90 * 86_400)),
            ("rotateEvery=off", Change::RotateEvery(0)),
            ("disabledFor=12h", Change::DisabledFor(12 * 3_600)),
            (
                "snapshotRetention=1d12h",
                Change::SnapshotRetention(36 * 3_600),
            ),
            ("removeMemberAfter=30m", Change::RemoveMemberAfter(1_800)),
            ("replicas=none", Change::Replicas(vec![])),
        ] {
            assert_eq!(text.parse(), Ok(change), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (text, hint) in [
            ("rotateEvery", "rotateEvery=90d"),
            ("rotateevery=90d", "rotateEvery"),
            ("rotateEvery=", "90d"),
            ("rotateEvery=0", "off"),
            ("rotateEvery=-1d", "off"),
            ("rotateEvery=100ms", "whole number of seconds"),
            ("rotateEvery=soon", "90d"),
            ("rotateEvery=1month", "90d"),
            ("replicas=cp1,cp1", "twice"),
            ("replicas=", ":"),
            ("replicas=../cp1", "../cp1"),
        ] {
            let refusal = text.parse::<Change>().unwrap_err();
            assert!(refusal.contains(hint), "{text}: {refusal}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_is_written(length in 1..10_000_000_000u64) {
            prop_assert_eq!(seconds(&duration(length)), Ok(length));
        }
    }
}
