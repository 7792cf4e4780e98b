//! `claviger restore`: a backup and what is there become one keyring. It never replaces, and is the
//! one way to accept what a member refused.

use std::io::{self, Write};
use std::path::PathBuf;

use claviger_keystore::error::{Error, NotSuccessor};
use claviger_keystore::header::KeyringKeyId;
use claviger_keystore::key::KeyId;
use claviger_keystore::root::Root;
use claviger_keystore::root::recovery::Recovery;
use claviger_keystore::storage::file::Durability;
use claviger_keystore::store::Restore;
use jiff::Timestamp;
use serde::Serialize;

use super::backup;
use super::failure::{Exit, Failure};
use super::keyring::refused;
use super::output::{Answer, Output, Style};
use crate::app;
use crate::config::Config;

/// What to restore, and what is accepted.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup, or the keyring that a member refused
    file: PathBuf,
    /// Go on although the bytes of this key are lost; its whole id must be typed
    #[arg(long, value_name = "FULL-ID")]
    accept_loss: Vec<KeyId>,
    /// Accept a keyring key that no proof leads to
    #[arg(long, value_name = "ID")]
    accept_keyring_key: Option<KeyringKeyId>,
    /// Open the backup by the recovery key in this file
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
}

/// Runs `restore`.
pub(super) async fn run(
    config: &Config,
    args: &RestoreArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let doing = format!("restoring {}", args.file.display());
    let failed = |e: &Error| not_restored(&doing, e);
    let from = backup::read(&args.file, &doing)?;
    let keystore = app::keystore(config, Durability::Memory);
    let now = Timestamp::now();
    // What is there need not open: that may be why something is restored.
    if let Err(e) = keystore.sync(now).await {
        output.note(&format!("note: what is there now does not open: {e}"));
    }
    let recovery = args
        .recovery_key
        .as_ref()
        .map(|file| Recovery::with_file("recovery", file));
    let roots: Vec<&dyn Root> = recovery.iter().map(|root| root as &dyn Root).collect();
    let restore = Restore {
        from: &from,
        roots: &roots,
        needed: &[],
        accept_loss: &args.accept_loss,
        accept_keyring_key: args.accept_keyring_key,
    };
    let restored = keystore
        .restore(restore, now)
        .await
        .map_err(|e| failed(&e))?;
    output.print(&Restored {
        revision: restored.revision,
        staged: keystore
            .keyring()
            .await
            .and_then(|keyring| keyring.staged()),
        removed: restored.removed.iter().map(ToString::to_string).collect(),
        not_removed: restored
            .not_removed
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect(),
    })?;
    Ok(Exit::Done)
}

fn not_restored(doing: &str, error: &Error) -> Failure {
    match error {
        Error::Merge(_) => Failure::new(
            Exit::Refused,
            doing,
            error,
            "restore an older backup too, or type out what is lost with --accept-loss FULL-ID",
        ),
        Error::NotSuccessor(NotSuccessor::OtherKeyringKey) => Failure::new(
            Exit::Refused,
            doing,
            error,
            "if that is the keyring that you want, type its keyringKeyId (head -1 FILE) with \
             --accept-keyring-key",
        ),
        Error::Document(_) => Failure::new(
            Exit::Fault,
            doing,
            error,
            "move what is no keyring away, and restore again",
        ),
        other => refused(doing, other),
    }
}

/// A restore that was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Restored {
    /// The keyring's revision now.
    revision: u64,
    /// The fresh key that becomes primary once a member has it.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    staged: Option<KeyId>,
    /// The members that are waited for only if they come back.
    removed: Vec<String>,
    /// Those whose records could not be set aside, and why.
    not_removed: Vec<String>,
}

impl Answer for Restored {
    const KIND: &'static str = "Restored";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        writeln!(
            out,
            "restored as revision {}",
            style.good(&self.revision.to_string())
        )?;
        if let Some(staged) = self.staged {
            writeln!(
                out,
                "Status and Encrypt are refused until {} is primary; a plugin that runs does that \
                 by itself, else claviger rotate does",
                staged.short()
            )?;
        }
        for member in &self.not_removed {
            writeln!(out, "{} {member}", style.warn("not set aside:"))?;
        }
        writeln!(out, "Next: claviger status")
    }
}
