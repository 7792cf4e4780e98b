//! Keeps the keyring open and current, in the background: requests only read what it keeps.
//!
//! It opens the keyring, trying again every second until it opens; follows what the storage brings;
//! and each minute asks every root whether it would still open its slot, and looks how far a rotation is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_keystore::Keystore;
use claviger_keystore::error::{Error, RootError};
use claviger_keystore::header::Header;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::member::{self, RootRecord};
use claviger_keystore::rotation::Situation;
use claviger_keystore::rotation::progress::progress;
use claviger_keystore::snapshot::View;
use claviger_keystore::store::{RootReport, Synced};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Condition, Metrics, RootFacts, RootState};
use crate::notes::NotesFile;
use crate::service;

/// How soon a storage that could not be read, or a keyring that did not open, is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the roots are asked.
const ROOT_CHECK: Duration = Duration::from_secs(60);

/// The task that keeps one keystore.
pub struct Keeper {
    keystore: Arc<Keystore>,
    metrics: Arc<Metrics>,
    notes: NotesFile,
    /// Cancelled once the storage was looked at.
    looked: CancellationToken,
    /// What was last said about the storage, so that it is said once.
    said: Option<String>,
    /// The revision that was last told of.
    revision: Option<u64>,
    /// The keys as they were last seen.
    keys: HashMap<KeyId, KeyState>,
    roots: HashMap<String, Option<Timestamp>>,
    /// How they are, for this member's record.
    root_records: watch::Sender<Vec<RootRecord>>,
}

impl Keeper {
    /// A keeper of this keystore, which is not open yet.
    pub fn new(keystore: Arc<Keystore>, metrics: Arc<Metrics>, notes: NotesFile) -> Self {
        Self {
            keystore,
            metrics,
            notes,
            looked: CancellationToken::new(),
            said: None,
            revision: None,
            keys: HashMap::new(),
            roots: HashMap::new(),
            root_records: watch::Sender::default(),
        }
    }

    /// How the roots are, since they were last asked.
    pub fn roots(&self) -> watch::Receiver<Vec<RootRecord>> {
        self.root_records.subscribe()
    }

    /// Cancelled as soon as the first attempt to open the keyring has ended, well or badly.
    pub fn looked(&self) -> CancellationToken {
        self.looked.clone()
    }

    /// Keeps until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let keystore = self.keystore.clone();
        let mut root_checks = root_checks();
        shutdown
            .run_until_cancelled(async move {
                let mut opened = self.sync().await;
                loop {
                    // The storage says when to look again; after a failure nobody waits for it.
                    let look_again = async {
                        if opened {
                            keystore.changed().await
                        } else {
                            sleep(RETRY).await
                        }
                    };
                    tokio::select! {
                        () = look_again => opened = self.sync().await,
                        _ = root_checks.tick() => {
                            self.check_roots().await;
                            self.tell_life().await;
                        }
                    }
                }
            })
            .await;
    }

    /// Looks at the storage once. Says whether what is there is what is used.
    async fn sync(&mut self) -> bool {
        let looked = self.keystore.sync(Timestamp::now()).await;
        self.looked.cancel();
        match looked {
            Ok(synced) => {
                // A request that named an unknown key may have opened it before we looked.
                let revision = self.keystore.keyring().await.map(|k| k.header().revision);
                if synced == Synced::Opened || revision != self.revision {
                    self.revision = revision;
                    self.tell_keys().await;
                    self.check_roots().await;
                    self.tell_life().await;
                } else if self.said.is_some() {
                    tracing::info!("the storage holds the keyring that is used again");
                }
                self.said = None;
                true
            }
            Err(e) => {
                self.tell_failure(&e);
                false
            }
        }
    }

    fn tell_failure(&mut self, error: &Error) {
        let text = error.to_string();
        let open = matches!(**self.keystore.view(), View::Open(_));
        if !open {
            self.metrics.keyring_closed(Condition::from(error));
        }
        if self.said.as_ref() != Some(&text) {
            let meanwhile = match open {
                true => "the keyring that was open stays in use",
                false => "every request is refused",
            };
            tracing::error!(
                error = text,
                meanwhile,
                "the keyring cannot be opened; it is tried again every second"
            );
            self.said = Some(text);
        }
    }

    /// Tells metrics and log what the keyring holds now: one line for each key that changed.
    async fn tell_keys(&mut self) {
        let Some(keyring) = self.keystore.keyring().await else {
            return;
        };
        let header = keyring.header();
        if let View::Open(snapshot) = &**self.keystore.view() {
            self.metrics.keyring_open(snapshot, &header.keys);
            if let Err(refusal) = snapshot.primary() {
                let why = service::explain(&refusal, None);
                tracing::error!(why, "Status and Encrypt are refused; Decrypt is served");
            }
        }
        tracing::info!(
            cluster = %header.cluster_id,
            revision = header.revision,
            keys = header.keys.len(),
            primary = keyring.primary().map(tracing::field::display),
            "keyring opened"
        );
        self.tell_changes(header);
    }

    fn tell_changes(&mut self, header: &Header) {
        for key in &header.keys {
            let before = self.keys.insert(key.id, key.state);
            if let Some(before) = before.filter(|before| *before != key.state) {
                tracing::info!(key_id = %key.id, from = %before, to = %key.state, "key changed its state");
            } else if before.is_none() {
                tracing::info!(key_id = %key.id, state = %key.state, "key loaded");
            }
        }
    }

    async fn check_roots(&mut self) {
        let now = Timestamp::now();
        let reports = self.keystore.check_roots().await;
        let facts: Vec<_> = reports
            .iter()
            .map(|report| self.root_facts(report, now))
            .collect();
        self.metrics.roots(&facts);
        let records = reports.iter().zip(&facts).map(record);
        self.root_records.send_replace(records.collect());
    }

    /// Tells the metrics what was done with the keyring, and how far a rotation is.
    async fn tell_life(&self) {
        let notes = self.notes.read();
        let backup = notes.backup.map(|backup| backup.revision);
        self.metrics.last_done(notes.recovery_tested, backup);
        // Without a keyring, or its members, nobody knows: the last that was known stays.
        let (Some(keyring), Some(known)) = (
            self.keystore.keyring().await,
            self.keystore.acknowledged().await,
        ) else {
            return;
        };
        // Another one was committed in between, and is told of next.
        if known.revision != keyring.header().revision {
            return;
        }
        let Ok(members) = self.keystore.members().await else {
            return;
        };
        let situation = Situation {
            header: keyring.header(),
            hash: known.sha256,
            members: &members,
            ourselves: None,
            now: Timestamp::now(),
        };
        let progress = progress(&situation, |key| {
            notes.protected(key).map(|values| values.current)
        });
        self.metrics.rotation(progress.as_ref());
    }

    fn root_facts(&mut self, report: &RootReport, now: Timestamp) -> RootFacts {
        let last_success = self.roots.entry(report.name.clone()).or_default();
        let state = match &report.result {
            Ok(()) => {
                *last_success = Some(now);
                RootState::Fresh
            }
            Err(e) => {
                tracing::warn!(root = report.name, error = %e, "a root does not open its slot; requests are served from memory");
                root_state(e)
            }
        };
        RootFacts {
            name: report.name.clone(),
            state,
            last_success: *last_success,
        }
    }
}

fn record((report, facts): (&RootReport, &RootFacts)) -> RootRecord {
    let state = match &report.result {
        Ok(()) => member::RootState::Fresh,
        Err(Error::Root { source, .. }) => match source {
            RootError::Denied(_) => member::RootState::Denied,
            RootError::KeyState(_) => member::RootState::KeyState,
            RootError::Unusable(_) => member::RootState::Unusable,
            _ => member::RootState::Outage,
        },
        Err(_) => member::RootState::Outage,
    };
    RootRecord {
        name: facts.name.clone(),
        state,
        last_success: facts.last_success,
    }
}

fn root_state(error: &Error) -> RootState {
    match error {
        Error::Root {
            source: RootError::Denied(_),
            ..
        } => RootState::Denied,
        Error::Root {
            source: RootError::KeyState(_),
            ..
        } => RootState::KeyState,
        _ => RootState::Outage,
    }
}

fn root_checks() -> Interval {
    let mut checks = interval(ROOT_CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first look at the storage asks the roots by itself.
    checks.reset();
    checks
}
