//! `claviger init`: makes the keyring, its first slot and a recovery slot. Never twice.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::KeyFile;
use claviger_keystore::root::recovery::{Recovery, RecoveryKey};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use claviger_keystore::store;
use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::{Answer, Output, Style};
use crate::app;
use crate::config::{Config, RootKindConfig};

/// What `init` makes.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// A name for people; it is not the cluster's identity
    #[arg(long, default_value = "")]
    name: String,
    /// Write the recovery key to this new file instead of showing it
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    recovery_out: Option<PathBuf>,
    /// Make no recovery slot: if the root is lost, so is the keyring
    #[arg(long)]
    no_recovery: bool,
}

impl InitArgs {
    /// A try-out keeps its recovery key in a file.
    pub(super) fn for_dev(recovery_out: PathBuf) -> Self {
        Self {
            name: "dev".to_owned(),
            recovery_out: Some(recovery_out),
            no_recovery: false,
        }
    }
}

/// A keyring that was made.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Initialized {
    cluster_id: String,
    cluster_name: String,
    /// Where it lies.
    keyring: String,
    /// The id of its first key.
    primary: String,
    /// The names of its slots.
    slots: Vec<String>,
    /// The root key file, where there was none and one was made.
    made_root_key: Option<PathBuf>,
    /// The file of the recovery key, if it was written into one.
    recovery_file: Option<PathBuf>,
    #[serde(skip)]
    recovery_shown: bool,
}

/// Runs `init`.
pub(super) async fn run(
    config: &Config,
    args: &InitArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let show = !args.no_recovery && args.recovery_out.is_none();
    if show && !io::stdout().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "making a keyring",
            "the recovery key is shown once, on a terminal, and this is none",
            "add --recovery-out FILE, or --no-recovery to have none",
        ));
    }
    let made = make(config, args, Durability::Disk).await?;
    let answer = answer(config, args, &made, show);
    output.print(&answer)?;
    if let (true, Some(key)) = (show, &made.recovery) {
        show_key(key)?;
    }
    Ok(Exit::Done)
}

/// What was made.
pub(super) struct Made {
    document: Document,
    recovery: Option<RecoveryKey>,
    root_key: Option<PathBuf>,
}

/// Makes the keyring and whatever it needs and lacks.
pub(super) async fn make(
    config: &Config,
    args: &InitArgs,
    durability: Durability,
) -> Result<Made, Failure> {
    let storage = app::storage(config, durability);
    let place = storage.place();
    let failed = |e: Error| failure(&place, &e);
    // Nothing is made beside a keyring that exists.
    match storage.load().await {
        Err(StorageError::Missing(_)) => {}
        Ok(_) => return Err(failed(StorageError::Exists(place.clone()).into())),
        Err(e) => return Err(failed(e.into())),
    }
    let root_key = make_root_key(config)?;
    let recovery = match args.no_recovery {
        true => None,
        false => Some(RecoveryKey::generate().map_err(failed)?),
    };
    if let (Some(path), Some(key)) = (&args.recovery_out, &recovery) {
        // Before the keyring: a slot whose key was never kept is worse than a key without a slot.
        key.write_to(path).map_err(failed)?;
    }
    let recovery_root = recovery
        .as_ref()
        .map(Recovery::of)
        .transpose()
        .map_err(failed)?;
    let root = app::root(first_root(config)?);
    let mut roots: Vec<&dyn Root> = vec![&*root];
    roots.extend(recovery_root.as_ref().map(|root| root as &dyn Root));
    let made = store::init(&storage, &roots, &args.name, Timestamp::now()).await;
    let document = made.map_err(|e| {
        if let Some(path) = &args.recovery_out {
            // We made it a moment ago, and it opens nothing.
            let _ = std::fs::remove_file(path);
        }
        failed(e)
    })?;
    Ok(Made {
        document,
        recovery,
        root_key,
    })
}

fn first_root(config: &Config) -> Result<&crate::config::RootConfig, Failure> {
    config.roots.first().ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "making a keyring",
            "no root is configured",
            "add one to roots",
        )
    })
}

/// A key-file root that does not exist yet is made.
fn make_root_key(config: &Config) -> Result<Option<PathBuf>, Failure> {
    let RootKindConfig::KeyFile { path } = &first_root(config)?.kind else {
        return Ok(None);
    };
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    KeyFile::create(path).map_err(|e| {
        let next = format!(
            "make its folder: install -d -m 0700 {}",
            parent(path).display()
        );
        Failure::new(
            Exit::Fault,
            format!("making the root key {}", path.display()),
            e,
            next,
        )
    })?;
    Ok(Some(path.clone()))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn failure(place: &str, error: &Error) -> Failure {
    let doing = format!("making a keyring at {place}");
    let (exit, next) = match error {
        Error::Storage(StorageError::Exists(_)) => (
            Exit::Refused,
            "use it: claviger status; a keyring is never overwritten".to_owned(),
        ),
        Error::Storage(StorageError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            let folder = parent(Path::new(place)).display().to_string();
            (
                Exit::Fault,
                format!("make its folder: install -d -m 0700 {folder}"),
            )
        }
        _ => (
            Exit::Fault,
            "mend that and run claviger init again; nothing was made".to_owned(),
        ),
    };
    Failure::new(exit, doing, error, next)
}

fn answer(config: &Config, args: &InitArgs, made: &Made, shown: bool) -> Initialized {
    let header = made.document.header();
    Initialized {
        cluster_id: header.cluster_id.to_string(),
        cluster_name: header.cluster_name.clone(),
        keyring: app::storage(config, Durability::Disk).place(),
        primary: header.keys.iter().map(|key| key.id.to_string()).collect(),
        slots: header
            .slots
            .iter()
            .map(|slot| format!("{} ({})", slot.name, slot.kind))
            .collect(),
        made_root_key: made.root_key.clone(),
        recovery_file: args.recovery_out.clone(),
        recovery_shown: shown,
    }
}

impl Answer for Initialized {
    const KIND: &'static str = "Initialized";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        writeln!(out, "{} {}", style.good("made"), self.keyring)?;
        if let Some(path) = &self.made_root_key {
            writeln!(
                out,
                "{} {} (keep it off etcd's backups)",
                style.good("made"),
                path.display()
            )?;
        }
        let named = format!("cluster  {} {}", self.cluster_id, self.cluster_name);
        writeln!(out, "{}", named.trim_end())?;
        writeln!(out, "primary  {}", self.primary)?;
        writeln!(out, "slots    {}", self.slots.join(", "))?;
        match &self.recovery_file {
            Some(path) => writeln!(
                out,
                "recovery {}: print it, store it away from this node, remove the file",
                path.display()
            )?,
            None if self.recovery_shown => {}
            None => writeln!(
                out,
                "{}",
                style.warn("recovery none: if the root is lost, so is the keyring")
            )?,
        }
        writeln!(out, "next     claviger serve")
    }
}

/// Shows the recovery key, once.
fn show_key(key: &RecoveryKey) -> Result<(), Failure> {
    let failed = |cause: String| {
        let next = "the keyring works; its recovery slot is of no use without the key";
        Failure::new(Exit::Fault, "showing the recovery key", cause, next)
    };
    let text = key.to_text().map_err(|e| failed(e.to_string()))?;
    let mut out = io::stdout().lock();
    let halves = text.split_at(text.len() / 2);
    writeln!(
        out,
        "\nRecovery key. It is shown this once; write it down and keep it away from this node:\n\n    \
         {}\n    {}\n\nTry what you wrote: claviger slot test recovery",
        halves.0.trim_end_matches('-'),
        halves.1.trim_start_matches('-')
    )
    .map_err(|e| failed(e.to_string()))
}
