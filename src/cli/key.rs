//! `claviger key`: the life of one key.
//!
//! ```text
//! staged → primary → retired ⇄ disabled → destroyed
//! ```

mod guarded;

use std::io::{self, Write};

use claviger_keystore::header::Header;
use claviger_keystore::key::{KeyId, KeyInfo, KeyState};
use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring::{self, find_key, refused};
use super::member::ago;
use super::output::{Answer, Output, Style, date};
use crate::config::Config;
use guarded::GuardedArgs;

/// What to do with keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Every key that ever was
    List,
    /// One key, and what its next step needs
    Show {
        /// The first digits of its id
        id: String,
    },
    /// Let a disabled key decrypt again
    Enable {
        /// The first digits of its id
        id: String,
    },
    /// Let a retired key decrypt no more, once an audit shows that nothing needs it; its bytes stay
    Disable(GuardedArgs),
    /// Drop the bytes of a disabled key for good, once an audit shows that nothing needs it
    Destroy {
        #[command(flatten)]
        args: GuardedArgs,
        /// Set the waits and snapshots that were not shown aside; the whole id must be typed
        #[arg(long, value_name = "FULL-ID")]
        force_id: Option<String>,
    },
}

/// Runs `key`.
pub(super) async fn run(
    config: &Config,
    command: &KeyCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        KeyCommand::List => list(config, output).await,
        KeyCommand::Show { id } => show(config, id, output).await,
        KeyCommand::Enable { id } => enable(config, id, output).await,
        KeyCommand::Disable(args) => guarded::disable(config, args, output).await,
        KeyCommand::Destroy { args, force_id } => {
            guarded::destroy(config, args, force_id.as_deref(), output).await
        }
    }
}

async fn list(config: &Config, output: &Output) -> Result<Exit, Failure> {
    let opened = keyring::open(config, "listing the keys").await?;
    let keys = opened.keyring.header().keys.iter();
    output.print(&Keys {
        keys: keys.map(KeyRow::of).collect(),
    })?;
    Ok(Exit::Done)
}

async fn show(config: &Config, id: &str, output: &Output) -> Result<Exit, Failure> {
    let doing = "showing a key";
    let opened = keyring::open(config, doing).await?;
    let header = opened.keyring.header();
    let key = find_key(header, id, doing)?;
    let members = opened.keystore.members().await;
    let members = members.map_err(|e| refused(doing, &e))?;
    let quiet = |member: &&claviger_keystore::member::Member| {
        let record = member.record();
        record.is_some_and(|record| record.quiet_since(&key.id).is_some())
    };
    output.print(&KeyShown {
        key: KeyRow::of(key),
        quiet_on: members
            .iter()
            .filter(quiet)
            .map(|member| member.name.to_string())
            .collect(),
        members: members.len(),
        next: next(header, key),
    })?;
    Ok(Exit::Done)
}

/// What an operator may do next with a key.
fn next(header: &Header, key: &KeyInfo) -> Option<String> {
    let id = key.id.short();
    match key.state {
        KeyState::Staged => Some("claviger rotate makes it primary".to_owned()),
        KeyState::Primary => header
            .staged()
            .is_none()
            .then(|| "claviger rotate makes another key primary".to_owned()),
        KeyState::Retired => Some(format!(
            "claviger audit --key {id} says what it still protects; then claviger key disable {id}"
        )),
        KeyState::Disabled => Some(format!(
            "claviger key destroy {id} drops its bytes; claviger key enable {id} takes it back"
        )),
        KeyState::Destroyed => None,
    }
}

async fn enable(config: &Config, id: &str, output: &Output) -> Result<Exit, Failure> {
    let doing = format!("enabling {id}");
    let opened = keyring::open(config, &doing).await?;
    let id = find_key(opened.keyring.header(), id, &doing)?.id;
    let now = Timestamp::now();
    let enabled = opened
        .keystore
        .commit(now, |keyring| Ok(keyring.enable(&id, now)?));
    enabled.await.map_err(|e| refused(&doing, &e))?;
    changed(&opened, &id, output).await
}

/// Prints a key as it is after a change.
async fn changed(opened: &keyring::Opened, id: &KeyId, output: &Output) -> Result<Exit, Failure> {
    let keyring = opened.keystore.keyring().await;
    let keyring = keyring.unwrap_or_else(|| opened.keyring.clone());
    if let Some(key) = keyring.key(id) {
        output.print(&KeyChanged {
            key: KeyRow::of(key),
            revision: keyring.header().revision,
        })?;
    }
    Ok(Exit::Done)
}

/// One key, as lists show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeyRow {
    #[cfg_attr(test, schemars(with = "String"))]
    pub(super) id: KeyId,
    #[cfg_attr(test, schemars(schema_with = "super::schema::key_state"))]
    pub(super) state: KeyState,
    pub(super) created: Timestamp,
    activated: Option<Timestamp>,
    retired: Option<Timestamp>,
    disabled: Option<Timestamp>,
    destroyed: Option<Timestamp>,
    /// When it entered its state.
    #[serde(skip)]
    since: Option<Timestamp>,
}

impl KeyRow {
    fn of(key: &KeyInfo) -> Self {
        Self {
            id: key.id,
            state: key.state,
            created: key.created,
            activated: key.activated,
            retired: key.retired,
            disabled: key.disabled,
            destroyed: key.destroyed,
            since: key.since(),
        }
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Keys {
    keys: Vec<KeyRow>,
}

impl Answer for Keys {
    const KIND: &'static str = "KeyList";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let heading = format!("{:<10}{:<11}{:<12}SINCE", "KEY", "STATE", "CREATED");
        writeln!(out, "{}", style.strong(&heading))?;
        for key in &self.keys {
            let (id, state) = (key.id.short(), key.state.as_str());
            let since = key.since.map_or("-".to_owned(), date);
            writeln!(out, "{id:<10}{state:<11}{:<12}{since}", date(key.created))?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeyShown {
    #[serde(flatten)]
    key: KeyRow,
    /// The members through which nothing can be written under it any more.
    quiet_on: Vec<String>,
    /// How many members there are.
    members: usize,
    /// What may be done next.
    next: Option<String>,
}

impl Answer for KeyShown {
    const KIND: &'static str = "Key";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let now = Timestamp::now();
        writeln!(
            out,
            "{} is {}",
            self.key.id,
            style.strong(self.key.state.as_str())
        )?;
        let dates = [
            ("created", Some(self.key.created)),
            ("activated", self.key.activated),
            ("retired", self.key.retired),
            ("disabled", self.key.disabled),
            ("destroyed", self.key.destroyed),
        ];
        for (what, when) in dates {
            if let Some(when) = when {
                writeln!(out, "{what:<10}{when}, {} ago", ago(when, now))?;
            }
        }
        if matches!(self.key.state, KeyState::Retired | KeyState::Disabled) {
            let (quiet, members) = (self.quiet_on.len(), self.members);
            writeln!(out, "quiet on  {quiet} of {members} members")?;
        }
        match &self.next {
            Some(next) => writeln!(out, "Next: {next}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeyChanged {
    #[serde(flatten)]
    key: KeyRow,
    /// The keyring's revision since then.
    revision: u64,
}

impl Answer for KeyChanged {
    const KIND: &'static str = "KeyChanged";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let state = style.good(self.key.state.as_str());
        writeln!(
            out,
            "{} is {state}, revision {}",
            self.key.id.short(),
            self.revision
        )?;
        match self.key.state {
            KeyState::Destroyed => writeln!(
                out,
                "older copies of the keyring still open with their root"
            ),
            _ => Ok(()),
        }
    }
}
