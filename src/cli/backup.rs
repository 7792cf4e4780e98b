//! `claviger backup`: a sealed copy of the keyring, for keeping elsewhere, and whether one would help.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use claviger_keystore::document::{Document, MAX_LEN};
use claviger_keystore::durable;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::KeyState;
use claviger_keystore::root::Root;
use claviger_keystore::root::recovery::Recovery;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use claviger_keystore::store;
use jiff::Timestamp;
use rustix::fs::Mode;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring::refused;
use super::output::{Answer, Output, Style};
use crate::app;
use crate::audit::snapshot::{Revisions, Snapshot};
use crate::config::Config;

/// What to back up to, or which backup to look at.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BackupArgs {
    /// Where the copy goes; nothing is overwritten
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<BackupCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum BackupCommand {
    /// Whether a copy opens, and holds the keys that a snapshot of etcd needs
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The copy
    file: PathBuf,
    /// A snapshot of etcd that it should be able to open
    #[arg(long, value_name = "DB")]
    snapshot: Option<PathBuf>,
    /// Open it by the recovery key in this file, as after the loss of every other root
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    /// The prefix of Kubernetes' keys in the snapshot
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    prefix: String,
}

/// Runs `backup`.
pub(super) async fn run(
    config: &Config,
    args: &BackupArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    match (&args.command, &args.out) {
        (Some(BackupCommand::Verify(args)), _) => verify(config, args, output).await,
        (None, Some(out)) => make(config, out, output).await,
        (None, None) => Err(Failure::new(
            Exit::Usage,
            "backing up the keyring",
            "there is no file to write to",
            "claviger backup --out FILE",
        )),
    }
}

async fn make(config: &Config, out: &Path, output: &Output) -> Result<Exit, Failure> {
    let doing = format!("backing up the keyring to {}", out.display());
    let failed = |e: Error| refused(&doing, &e);
    let storage = app::storage(config, Durability::Memory);
    let bytes = storage.load().await.map_err(|e| failed(e.into()))?;
    let document = Document::parse(bytes).map_err(|e| failed(e.into()))?;
    let roots = app::roots(config);
    open(&document, &roots).await.map_err(failed)?;
    let private = Mode::RUSR | Mode::WUSR;
    durable::create(out, document.as_bytes(), private).map_err(|e| failed(e.into()))?;
    // What was not read back and opened is no backup.
    let written = read(out, &doing)?;
    open(&written, &roots).await.map_err(failed)?;
    let (header, now) = (written.header(), Timestamp::now());
    if let Err(e) = app::notes(config).backed_up(header.revision, now) {
        output.note(&format!(
            "note: the backup is made, but that was not noted: {e}"
        ));
    }
    output.print(&BackedUp {
        file: out.display().to_string(),
        revision: header.revision,
        keys: count(&written),
        slots: slots(&written),
    })?;
    Ok(Exit::Done)
}

async fn verify(config: &Config, args: &VerifyArgs, output: &Output) -> Result<Exit, Failure> {
    let doing = format!("verifying the backup {}", args.file.display());
    let document = read(&args.file, &doing)?;
    let roots: Vec<Box<dyn Root>> = match &args.recovery_key {
        Some(file) => vec![Box::new(Recovery::with_file("recovery", file))],
        None => app::roots(config),
    };
    open(&document, &roots)
        .await
        .map_err(|e| refused(&doing, &e))?;
    let snapshot = match &args.snapshot {
        Some(db) => Some(held(&document, db, &args.prefix, &doing)?),
        None => None,
    };
    let whole = snapshot.as_ref().is_none_or(Held::whole);
    output.print(&Verified {
        file: args.file.display().to_string(),
        revision: document.header().revision,
        keys: count(&document),
        slots: slots(&document),
        snapshot,
    })?;
    Ok(if whole { Exit::Done } else { Exit::No })
}

/// Reads a copy of the keyring, wherever it lies.
pub(super) fn read(file: &Path, doing: &str) -> Result<Document, Failure> {
    let bytes = durable::read(file, MAX_LEN as u64).map_err(|e| match e {
        StorageError::Missing(_) => Failure::new(
            Exit::Usage,
            doing,
            "there is no such file",
            "name the copy that claviger backup made, or a keyring.<revision>",
        ),
        other => refused(doing, &other.into()),
    })?;
    Document::parse(bytes).map_err(|e| {
        let next = "name another copy, or a keyring.<revision>";
        Failure::new(Exit::Fault, doing, format!("the file {e}"), next)
    })
}

/// Opens every KEK of a document, by the first root that can.
async fn open(document: &Document, roots: &[Box<dyn Root>]) -> Result<(), Error> {
    let mut tried = Vec::new();
    for root in roots {
        match store::open_with(root.as_ref(), document.header()).await {
            Ok(key) => return document.open(&key).map(drop),
            Err(e) => tried.push(e.to_string()),
        }
    }
    Err(Error::NoSlotOpens(tried))
}

/// Which of the keys that a snapshot needs a document holds.
fn held(document: &Document, db: &Path, prefix: &str, doing: &str) -> Result<Held, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| {
        let next = "take another snapshot with etcdctl snapshot save";
        Failure::new(Exit::Fault, doing, e, next)
    };
    let snapshot = Snapshot::open(db).map_err(|e| unreadable(&e))?;
    let needs = snapshot
        .needs(Revisions::Latest, prefix)
        .map_err(|e| unreadable(&e))?;
    let has = |id: &str| {
        let keys = &document.header().keys;
        keys.iter()
            .any(|key| key.id.to_string() == id && key.state != KeyState::Destroyed)
    };
    let (there, missing) = needs.key_ids.into_iter().partition(|(id, _)| has(id));
    Ok(Held {
        there,
        missing,
        other: needs.other,
        plaintext: needs.plaintext,
        unreadable: needs.unreadable,
    })
}

/// The keys whose bytes it holds.
fn count(document: &Document) -> usize {
    let keys = document.header().keys.iter();
    keys.filter(|key| key.state != KeyState::Destroyed).count()
}

fn slots(document: &Document) -> Vec<String> {
    let slots = document.header().slots.iter();
    slots
        .map(|slot| format!("{} ({})", slot.name, slot.kind))
        .collect()
}

/// A backup that was made.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BackedUp {
    file: String,
    /// The keyring's revision.
    revision: u64,
    /// How many keys it holds the bytes of.
    keys: usize,
    /// What opens it.
    slots: Vec<String>,
}

impl Answer for BackedUp {
    const KIND: &'static str = "Backup";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let Self {
            file,
            revision,
            keys,
            slots,
        } = self;
        let good = style.good("opens");
        writeln!(
            out,
            "{file}: revision {revision}, {keys} keys; it {good} again"
        )?;
        writeln!(
            out,
            "What opens it: {}. Keep it apart from those.",
            slots.join(", ")
        )
    }
}

/// A backup that was looked at.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Verified {
    file: String,
    /// The keyring's revision.
    revision: u64,
    /// How many keys it holds the bytes of.
    keys: usize,
    /// What opens it.
    slots: Vec<String>,
    snapshot: Option<Held>,
}

/// The keys that a snapshot's objects name, each with how many objects do.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Held {
    /// Those that the backup holds.
    there: BTreeMap<String, u64>,
    /// Those that it does not hold; an id of another plugin's is among them.
    missing: BTreeMap<String, u64>,
    /// Objects that need a key of another provider.
    other: u64,
    /// Objects that need no key.
    plaintext: u64,
    /// Objects of which nobody can say what they need.
    unreadable: u64,
}

impl Held {
    fn whole(&self) -> bool {
        self.missing.is_empty() && self.unreadable == 0
    }
}

impl Answer for Verified {
    const KIND: &'static str = "BackupVerified";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let Self {
            file,
            revision,
            keys,
            ..
        } = self;
        writeln!(
            out,
            "{file}: revision {revision}, {keys} keys; it {}",
            style.good("opens")
        )?;
        let Some(held) = &self.snapshot else {
            return Ok(());
        };
        let needed = held.there.len() + held.missing.len();
        let verdict = match held.missing.len() {
            0 => style.good("all are there and open"),
            missing => style.bad(&format!("{missing} are not there")),
        };
        writeln!(out, "the snapshot needs {needed} keys: {verdict}")?;
        for (id, objects) in &held.missing {
            writeln!(out, "  {id}: {objects} objects would be lost")?;
        }
        for (count, what) in [
            (
                held.other,
                "need a key of another provider, which is no part of a keyring",
            ),
            (
                held.unreadable,
                "have a header that cannot be read: claviger audit --list names them",
            ),
        ] {
            if count > 0 {
                writeln!(out, "  {count} objects {what}")?;
            }
        }
        Ok(())
    }
}
