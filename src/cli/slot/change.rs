//! `claviger slot add`, `remove` and `rekey`: other roots for the keyring key, or another key for all
//! of them. No object changes, and no KEK.

use std::io::{self, Write};
use std::path::PathBuf;

use claviger_keystore::error::Error;
use claviger_keystore::header::{KeyringKeyId, SlotId, SlotKind};
use claviger_keystore::root::{self, Root};
use jiff::Timestamp;
use serde::Serialize;

use super::{find, root_for};
use crate::app;
use crate::cli::failure::{Exit, Failure};
use crate::cli::keyring::{self, Opened, refused};
use crate::cli::output::{Answer, Output, Style};
use crate::config::Config;

/// Which slots go, and where the recovery key is that the others need.
#[derive(Debug, clap::Args)]
pub(crate) struct RekeyArgs {
    /// Drop this slot: whoever can open it may have the old keyring key, and gets no new one
    #[arg(long, value_name = "SLOT")]
    pub(super) drop_slot: Vec<String>,
    /// The file with the recovery key, instead of typing it
    #[arg(long, value_name = "FILE")]
    pub(super) recovery_key: Option<PathBuf>,
}

pub(super) async fn add(config: &Config, name: &str, output: &Output) -> Result<Exit, Failure> {
    let doing = format!("adding a slot for root {name}");
    let refuse = |exit, cause: String, next: &str| Err(Failure::new(exit, &doing, cause, next));
    let Some(root) = config.roots.iter().find(|root| root.name == name) else {
        let cause = format!("the configuration has no root {name}");
        return refuse(Exit::Usage, cause, "add it to roots");
    };
    let root = app::root(root);
    let opened = keyring::open(config, &doing).await?;
    let mut slots = opened.keyring.header().slots.iter();
    if slots.any(|slot| root::matches(root.as_ref(), slot)) {
        let cause = format!("root {name} has a slot already");
        return refuse(
            Exit::Refused,
            cause,
            "claviger slot test shows whether it opens",
        );
    }
    let added = opened
        .keystore
        .add_slot(root.as_ref(), Timestamp::now())
        .await;
    added.map_err(|e| refused(&doing, &e))?;
    print(&opened, None, output).await
}

pub(super) async fn rekey(
    config: &Config,
    args: &RekeyArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let doing = match &args.drop_slot[..] {
        [] => "making another keyring key".to_owned(),
        dropped => format!("removing slot {}", dropped.join(", ")),
    };
    let opened = keyring::open(config, &doing).await?;
    let slots = &opened.keyring.header().slots;
    let mut dropped = Vec::new();
    for wanted in &args.drop_slot {
        dropped.push(find(slots, wanted, &doing)?.id);
    }
    let roots = recovery_roots(config, &opened, args, &dropped, &doing)?;
    let roots: Vec<&dyn Root> = roots.iter().map(AsRef::as_ref).collect();
    let rekeyed = opened.keystore.rekey(&roots, &dropped, Timestamp::now());
    let id = rekeyed.await.map_err(|e| not_rekeyed(&doing, &e))?;
    print(&opened, Some(id), output).await
}

/// What opens the recovery slots that stay; every other slot's root is in the configuration.
fn recovery_roots(
    config: &Config,
    opened: &Opened,
    args: &RekeyArgs,
    dropped: &[SlotId],
    doing: &str,
) -> Result<Vec<Box<dyn Root>>, Failure> {
    let slots = opened.keyring.header().slots.iter();
    slots
        .filter(|slot| slot.kind == SlotKind::Recovery && !dropped.contains(&slot.id))
        .map(|slot| root_for(config, slot, args.recovery_key.as_deref(), doing))
        .collect()
}

fn not_rekeyed(doing: &str, error: &Error) -> Failure {
    match error {
        Error::SlotStays { .. } => Failure::new(
            Exit::Refused,
            doing,
            error,
            "bring its root back, or drop it with --drop-slot: its owner cannot open the keyring then",
        ),
        other => refused(doing, other),
    }
}

async fn print(
    opened: &Opened,
    keyring_key_id: Option<KeyringKeyId>,
    output: &Output,
) -> Result<Exit, Failure> {
    let keyring = opened.keystore.keyring().await;
    let keyring = keyring.unwrap_or_else(|| opened.keyring.clone());
    let header = keyring.header();
    let slots = header.slots.iter();
    output.print(&SlotsChanged {
        revision: header.revision,
        keyring_key_id: keyring_key_id.map(|id| id.to_string()),
        slots: slots
            .map(|slot| format!("{} ({})", slot.name, slot.kind))
            .collect(),
    })?;
    Ok(Exit::Done)
}

/// The slots after a change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SlotsChanged {
    /// The keyring's revision now.
    revision: u64,
    /// The new keyring key's id, where there is one.
    keyring_key_id: Option<String>,
    /// What opens the keyring now.
    slots: Vec<String>,
}

impl Answer for SlotsChanged {
    const KIND: &'static str = "SlotsChanged";

    fn text(&self, out: &mut dyn Write, _style: Style) -> io::Result<()> {
        let Self {
            revision, slots, ..
        } = self;
        if self.keyring_key_id.is_some() {
            writeln!(out, "the keyring has another keyring key")?;
            writeln!(
                out,
                "older copies of the keyring still open with the old one"
            )?;
        }
        writeln!(
            out,
            "revision {revision}; what opens it: {}",
            slots.join(", ")
        )
    }
}
