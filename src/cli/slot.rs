//! `claviger slot`: which roots can open the keyring, and whether they do.

pub(super) mod change;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use claviger_keystore::document::Document;
use claviger_keystore::error::Error;
use claviger_keystore::header::{Slot, SlotKind};
use claviger_keystore::root::recovery::{Recovery, RecoveryKey};
use claviger_keystore::root::{self, Root};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use jiff::Timestamp;
use rustix::termios::{self, LocalModes, OptionalActions};
use serde::Serialize;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure};
use super::output::{Answer, Output, Style};
use crate::app;
use crate::config::Config;
use crate::notes::Notes;
use change::RekeyArgs;

/// What to do with slots.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SlotCommand {
    /// The keyring's slots, and which configured root opens each
    List,
    /// Prove that a slot opens, and note when
    Test(TestArgs),
    /// Let one more root of the configuration open the keyring
    Add {
        /// Its name in the configuration
        root: String,
    },
    /// Let a slot's root open the keyring no more; makes another keyring key
    Remove {
        /// The slot's name, or the first digits of its id
        slot: String,
        /// The file with the recovery key, instead of typing it
        #[arg(long, value_name = "FILE")]
        recovery_key: Option<PathBuf>,
    },
    /// Make another keyring key, and wrap it anew for every slot
    Rekey(RekeyArgs),
}

/// Which slot, and where its key is.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// The slot's name, or the first digits of its id
    slot: String,
    /// For a recovery slot: the file with the recovery key, instead of typing it
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
}

/// Runs `slot`.
pub(super) async fn run(
    config: &Config,
    command: &SlotCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        SlotCommand::List => list(config, output).await,
        SlotCommand::Test(args) => test(config, args, output).await,
        SlotCommand::Add { root } => change::add(config, root, output).await,
        SlotCommand::Remove { slot, recovery_key } => {
            let args = RekeyArgs {
                drop_slot: vec![slot.clone()],
                recovery_key: recovery_key.clone(),
            };
            change::rekey(config, &args, output).await
        }
        SlotCommand::Rekey(args) => change::rekey(config, args, output).await,
    }
}

async fn list(config: &Config, output: &Output) -> Result<Exit, Failure> {
    let document = load(config, "listing the slots").await?;
    let slots = rows(config, &document, &app::notes(config).read());
    output.print(&Slots { slots })?;
    Ok(Exit::Done)
}

/// One slot, as lists show it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct SlotRow {
    id: String,
    pub(super) name: String,
    /// What the root is: `key-file`, `recovery`, …
    #[cfg_attr(test, schemars(with = "String"))]
    pub(super) kind: SlotKind,
    created: Timestamp,
    /// The configured root that should open it.
    root: Option<String>,
    /// When it was last shown to open.
    pub(super) last_tested: Option<Timestamp>,
}

pub(super) fn rows(config: &Config, document: &Document, notes: &Notes) -> Vec<SlotRow> {
    let roots = app::roots(config);
    let slots = document.header().slots.iter();
    slots
        .map(|slot| SlotRow {
            id: slot.id.to_string(),
            name: slot.name.clone(),
            kind: slot.kind,
            created: slot.created,
            root: roots
                .iter()
                .find(|root| root::matches(root.as_ref(), slot))
                .map(|root| root.name().to_owned()),
            last_tested: notes
                .slots_tested
                .iter()
                .find(|t| t.id == slot.id)
                .map(|t| t.at),
        })
        .collect()
}

/// The roots' slots.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Slots {
    slots: Vec<SlotRow>,
}

impl Answer for Slots {
    const KIND: &'static str = "SlotList";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let heading = format!(
            "{:8}  {:16}  {:15}  {:10}  TESTED",
            "SLOT", "NAME", "KIND", "CREATED"
        );
        writeln!(out, "{}", style.strong(&heading))?;
        for row in &self.slots {
            let tested = row
                .last_tested
                .map_or("never".to_owned(), super::output::date);
            writeln!(
                out,
                "{:8}  {:16}  {:15}  {:10}  {tested}",
                &row.id[..8.min(row.id.len())],
                row.name,
                row.kind.as_str(),
                super::output::date(row.created)
            )?;
        }
        Ok(())
    }
}

async fn test(config: &Config, args: &TestArgs, output: &Output) -> Result<Exit, Failure> {
    let doing = format!("testing slot {}", args.slot);
    let document = load(config, &doing).await?;
    let header = document.header();
    let slot = find(&header.slots, &args.slot, &doing)?;
    let root = root_for(config, slot, args.recovery_key.as_deref(), &doing)?;
    let opened = root::open_slot(
        root.as_ref(),
        slot,
        &header.cluster_id,
        &header.keyring_key_id,
    )
    .await;
    let key = opened.map_err(|e| does_not_open(&doing, &e))?;
    document.open(&key).map_err(|e| does_not_open(&doing, &e))?;
    let recovery = slot.kind == SlotKind::Recovery;
    let now = Timestamp::now();
    if let Err(e) = app::notes(config).slot_opened(slot.id, recovery, now) {
        output.note(&format!("note: it opened, but that was not noted: {e}"));
    }
    output.print(&Tested {
        slot: slot.name.clone(),
        slot_kind: slot.kind,
        tested: now,
    })?;
    Ok(Exit::Done)
}

/// A slot that opened the keyring.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Tested {
    /// The slot's name.
    slot: String,
    /// What the root is: `key-file`, `recovery`, …
    #[cfg_attr(test, schemars(with = "String"))]
    slot_kind: SlotKind,
    /// When it opened.
    tested: Timestamp,
}

impl Answer for Tested {
    const KIND: &'static str = "SlotTested";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        writeln!(
            out,
            "slot {} ({}) {} the keyring",
            self.slot,
            self.slot_kind,
            style.good("opens")
        )
    }
}

/// The document as it lies in the storage; not opened, so only its form is known to be right.
async fn load(config: &Config, doing: &str) -> Result<Document, Failure> {
    let storage = app::storage(config, Durability::Memory);
    let read = async { Ok::<_, Error>(Document::parse(storage.load().await?)?) };
    read.await.map_err(|e| {
        Failure::new(
            Exit::Fault,
            doing,
            e,
            "claviger status says how the keyring is",
        )
    })
}

fn find<'a>(slots: &'a [Slot], wanted: &str, doing: &str) -> Result<&'a Slot, Failure> {
    let by_name = slots
        .iter()
        .filter(|slot| slot.name == wanted)
        .collect::<Vec<_>>();
    let found = match by_name.is_empty() {
        false => by_name,
        true => slots
            .iter()
            .filter(|slot| slot.id.to_string().starts_with(wanted))
            .collect(),
    };
    match found[..] {
        [slot] => Ok(slot),
        [] => Err(Failure::new(
            Exit::Usage,
            doing,
            format!("the keyring has no slot {wanted}"),
            "claviger slot list shows them",
        )),
        _ => Err(Failure::new(
            Exit::Usage,
            doing,
            format!("{wanted} may mean {} slots", found.len()),
            "name it by more digits of its id, from claviger slot list",
        )),
    }
}

/// The configured root of a slot; for a recovery slot the key that is at hand.
fn root_for(
    config: &Config,
    slot: &Slot,
    recovery_key: Option<&Path>,
    doing: &str,
) -> Result<Box<dyn Root>, Failure> {
    if let (SlotKind::Recovery, Some(file)) = (slot.kind, recovery_key) {
        return Ok(Box::new(Recovery::with_file(slot.name.as_str(), file)));
    }
    let configured = app::roots(config)
        .into_iter()
        .find(|root| root::matches(root.as_ref(), slot));
    match (configured, slot.kind) {
        (Some(root), _) => Ok(root),
        (None, SlotKind::Recovery) => {
            let key = ask_for_key().map_err(|e| {
                Failure::new(
                    Exit::Usage,
                    doing,
                    e,
                    "type the 12 groups as they were shown",
                )
            })?;
            Ok(Box::new(Recovery::with_key(key)))
        }
        (None, kind) => Err(Failure::new(
            Exit::Usage,
            doing,
            format!("the configuration has no {kind} root named {}", slot.name),
            "add it to roots",
        )),
    }
}

fn does_not_open(doing: &str, error: &Error) -> Failure {
    Failure::new(
        Exit::No,
        doing,
        format!("it does not open: {error}"),
        "check that it is this slot's key; claviger slot list shows the slots",
    )
}

/// Reads a recovery key from stdin, without an echo where that is a terminal.
fn ask_for_key() -> Result<RecoveryKey, String> {
    let stdin = io::stdin();
    let mut text = Zeroizing::new(String::with_capacity(1024));
    if stdin.is_terminal() {
        let _ = write!(io::stderr(), "Recovery key (it is not shown): ");
        let before = termios::tcgetattr(&stdin).map_err(|e| e.to_string())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|e| e.to_string())?;
        let read = stdin.read_line(&mut text);
        // The terminal is given back as it was, whatever was read.
        let restored = termios::tcsetattr(&stdin, OptionalActions::Flush, &before);
        let _ = writeln!(io::stderr());
        read.map_err(|e| e.to_string())?;
        restored.map_err(|e| e.to_string())?;
    } else {
        stdin
            .take(1024)
            .read_to_string(&mut text)
            .map_err(|e| e.to_string())?;
    }
    RecoveryKey::from_text(&text).map_err(|e| e.to_string())
}
