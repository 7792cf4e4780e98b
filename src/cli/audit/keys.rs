//! What is known of our own keys: their states, and whether a member can still write under them.
//!
//! The states are in the keyring's header, for which no key is needed. The members' records count
//! only with their MAC, so the keyring has to open for them; where it does not, the audit says that
//! this half is not shown. To verify objects it has to open, too.

use std::collections::BTreeMap;

use claviger_keystore::document::Document;
use claviger_keystore::error::Error;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::rotation::Situation;
use claviger_keystore::rotation::guards::{self, KeyAudit, Reason};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use jiff::Timestamp;

use crate::app;
use crate::audit::verify::Verifier;
use crate::cli::failure::{Exit, Failure};
use crate::cli::keyring::{self, Opened};
use crate::cli::output::Output;
use crate::config::Config;

/// What is known of our keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Their states.
    pub(super) states: BTreeMap<KeyId, KeyState>,
    /// Of those that are retired or disabled: that no member can write under them, or why not.
    pub(super) quiet: BTreeMap<KeyId, Result<(), String>>,
    /// How long etcd's snapshots are kept, in seconds, as the policy has it.
    pub(super) snapshot_retention: Option<u64>,
    /// What opens objects, if they are to be opened.
    pub(super) verifier: Option<Verifier>,
}

const VERIFYING: &str = "opening the keyring to verify objects";

impl Keys {
    /// Reads what there is. The caller pins etcd's revision afterwards: what was quiet stays so.
    ///
    /// # Errors
    /// Only where objects are to be verified, and the keyring does not open.
    pub(super) async fn read(
        config: Option<&Config>,
        verify: bool,
        output: &Output,
    ) -> Result<Self, Failure> {
        let Some(config) = config else {
            return match verify {
                true => Err(no_keyring()),
                false => Ok(Self::default()),
            };
        };
        let doing = if verify { VERIFYING } else { super::DOING };
        match keyring::open(config, doing).await {
            Ok(opened) => {
                let mut keys = Self::of_members(&opened, output).await;
                keys.verifier = verify.then(|| verifier(&opened)).transpose()?;
                Ok(keys)
            }
            Err(failure) if verify => Err(failure),
            Err(failure) => {
                let cause = failure.cause;
                output.note(&format!("note: the members' records are not read: {cause}"));
                Ok(Self::of_header(config, output).await)
            }
        }
    }

    async fn of_members(opened: &Opened, output: &Output) -> Self {
        let header = opened.keyring.header();
        let mut keys = Self {
            states: header.keys.iter().map(|key| (key.id, key.state)).collect(),
            quiet: BTreeMap::new(),
            snapshot_retention: Some(header.policy.snapshot_retention),
            verifier: None,
        };
        let members = match opened.keystore.members().await {
            Ok(members) => members,
            Err(e) => {
                output.note(&format!("note: the members' records are not read: {e}"));
                return keys;
            }
        };
        let situation = Situation {
            header,
            hash: opened.hash,
            members: &members,
            ourselves: Some(&opened.member),
            now: Timestamp::now(),
        };
        let leaves = |state: &KeyState| matches!(state, KeyState::Retired | KeyState::Disabled);
        for (id, _) in keys.states.iter().filter(|(_, state)| leaves(state)) {
            keys.quiet.insert(*id, quiet(&situation, id));
        }
        keys
    }

    async fn of_header(config: &Config, output: &Output) -> Self {
        let storage = app::storage(config, Durability::Memory);
        let read = async { Ok::<_, Error>(Document::parse(storage.load().await?)?) };
        match read.await {
            Ok(document) => {
                let keys = document.header().keys.iter();
                Self {
                    states: keys.map(|key| (key.id, key.state)).collect(),
                    quiet: BTreeMap::new(),
                    snapshot_retention: Some(document.header().policy.snapshot_retention),
                    verifier: None,
                }
            }
            Err(e) => {
                output.note(&format!("note: the states of keys are not shown: {e}"));
                Self::default()
            }
        }
    }
}

fn no_keyring() -> Failure {
    Failure::new(
        Exit::Usage,
        VERIFYING,
        "there is no configuration, and so no keyring",
        "name one by --config, on a node where the keyring is; without --verify none is needed",
    )
}

fn verifier(opened: &Opened) -> Result<Verifier, Failure> {
    let view = opened.keystore.view();
    let snapshot = view.snapshot().map_err(|_| {
        let next = "claviger status says why";
        Failure::new(Exit::Fault, VERIFYING, "the keyring is not open", next)
    })?;
    Ok(Verifier::new(snapshot.clone()))
}

/// That no member can write under this key any more, as the guard of `key disable` sees it; the
/// other reasons of that guard are the audit's own.
fn quiet(situation: &Situation<'_>, id: &KeyId) -> Result<(), String> {
    let nothing = KeyAudit {
        revision: 0,
        when: situation.now,
        current: 0,
        history: 0,
        snapshots: Vec::new(),
        unshown: 0,
    };
    let reasons = guards::may_disable(situation, id, Some(&nothing)).err();
    let against = |reason: &Reason| matches!(reason, Reason::NoMember | Reason::Member(_));
    match reasons.iter().flatten().find(|reason| against(reason)) {
        Some(reason) => Err(reason.to_string()),
        None => Ok(()),
    }
}
