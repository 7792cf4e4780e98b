//! `claviger status`: how the keyring and the plugin on this node are. Exit 0 only if all is well.

mod audited;
mod rotating;
mod screen;

use std::time::Duration;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::{KeyId, KeyInfo, KeyState};
use claviger_keystore::rotation::Situation;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use claviger_keystore::store;
use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring;
use super::member::{self, MemberRow, MemberState, ago};
use super::output::Output;
use super::slot::{self, SlotRow};
use crate::app;
use crate::client::{Client, Endpoint};
use crate::config::{Config, SocketAddress};
use crate::notes::Notes;
use audited::{LastAudit, LastSnapshots, Protects};
use rotating::Rotating;

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);
/// A plugin that takes longer is not well.
const ANSWER: Duration = Duration::from_secs(3);

/// How to show it.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Runs `status`.
pub(super) async fn run(
    config: &Config,
    args: &StatusArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    loop {
        let status = look(config).await;
        if args.watch {
            output.clear();
        }
        output.print(&status)?;
        if !args.watch {
            return Ok(if status.healthy { Exit::Done } else { Exit::No });
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

/// How the keyring and the plugin on this node are.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// Whether nothing is wrong.
    healthy: bool,
    /// This program's version.
    version: &'static str,
    keyring: Keyring,
    /// Every key that the keyring has or had, in the order of their making.
    keys: Vec<KeyRow>,
    /// What was in the clear and should not have been; null if no audit looked.
    plaintext: Option<Protects>,
    /// Every member, as it told of itself last.
    members: Vec<MemberRow>,
    /// The roots' slots.
    slots: Vec<SlotRow>,
    plugin: Plugin,
    /// The last backup that was made with this keyring beside it.
    backup: Option<LastBackup>,
    /// The last audit of a live etcd.
    audit: Option<LastAudit>,
    /// The last snapshots that an audit was shown.
    snapshots: Option<LastSnapshots>,
    /// The rotation that is under way.
    rotation: Option<Rotating>,
    /// What comes next in it.
    next: Option<String>,
    /// What is wrong, with what helps; empty if all is well.
    problems: Vec<String>,
}

/// The keyring; null is what it does not say, because it cannot be read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Keyring {
    /// Where it lies.
    place: String,
    cluster_id: Option<String>,
    cluster_name: Option<String>,
    /// How often it was changed.
    revision: Option<u64>,
    /// The revision that this member has seen.
    revision_seen: Option<u64>,
}

/// A key that encrypts seeds.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct KeyRow {
    #[cfg_attr(test, schemars(with = "String"))]
    id: KeyId,
    #[cfg_attr(test, schemars(schema_with = "super::schema::key_state"))]
    state: KeyState,
    created: Timestamp,
    /// When it became primary.
    activated: Option<Timestamp>,
    /// What it protected.
    #[serde(flatten)]
    protects: Protects,
}

/// A backup, as it was noted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct LastBackup {
    /// The revision that it holds.
    revision: u64,
    at: Timestamp,
}

/// The plugin on this node.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Plugin {
    /// Where it should listen: a path, or `@` and an abstract name.
    socket: String,
    /// The key id that it answers.
    answers: Option<String>,
    /// Why it does not.
    error: Option<String>,
}

async fn look(config: &Config) -> Status {
    let storage = app::storage(config, Durability::Memory);
    let mut problems = Vec::new();
    let document = match open(config, &storage).await {
        (document, None) => document,
        (document, Some(problem)) => {
            problems.push(problem);
            document
        }
    };
    let (plugin, problem) = ask_plugin(config, document.as_ref()).await;
    problems.extend(problem);
    let now = Timestamp::now();
    let notes = app::notes(config).read();
    let (members, rotation) = life(config, now, &notes).await;
    problems.extend(members.iter().filter_map(|member| lost(member, now)));
    let header = document.as_ref().map(Document::header);
    let seen = app::mark(config).read().ok().flatten();
    Status {
        healthy: problems.is_empty(),
        version: env!("CARGO_PKG_VERSION"),
        keyring: Keyring {
            place: storage.place(),
            cluster_id: header.map(|header| header.cluster_id.to_string()),
            cluster_name: header.map(|header| header.cluster_name.clone()),
            revision: header.map(|header| header.revision),
            revision_seen: seen.map(|mark| mark.revision),
        },
        keys: header
            .map(|header| {
                let keys = header.keys.iter();
                keys.map(|key| KeyRow::of(key, &notes)).collect()
            })
            .unwrap_or_default(),
        plaintext: Protects::by_nothing(&notes),
        slots: document
            .as_ref()
            .map(|document| slot::rows(config, document, &notes))
            .unwrap_or_default(),
        backup: notes.backup.map(|backup| LastBackup {
            revision: backup.revision,
            at: backup.at,
        }),
        audit: LastAudit::of(&notes),
        snapshots: LastSnapshots::of(&notes),
        next: rotation.as_ref().map(|rotation| rotation.next().to_owned()),
        rotation,
        members,
        plugin,
        problems,
    }
}

/// What the members say of themselves, and how far a rotation is. Nothing is changed by looking, not
/// even the mark.
async fn life(
    config: &Config,
    now: Timestamp,
    notes: &Notes,
) -> (Vec<MemberRow>, Option<Rotating>) {
    let storage = Box::new(app::storage(config, Durability::Memory));
    let keystore = Keystore::new(storage, app::roots(config), None);
    let doing = "reading the members' records";
    // Why it does not open is a problem that is shown already.
    let Ok(opened) = keyring::opened(config, keystore, doing).await else {
        return (Vec::new(), None);
    };
    let Ok(members) = opened.keystore.members().await else {
        return (Vec::new(), None);
    };
    let situation = Situation {
        header: opened.keyring.header(),
        hash: opened.hash,
        members: &members,
        ourselves: None,
        now,
    };
    let rows = members.iter().map(|member| MemberRow::of(member, now));
    (rows.collect(), Rotating::of(&situation, notes))
}

fn lost(member: &MemberRow, now: Timestamp) -> Option<String> {
    let name = &member.name;
    let seen = member.seen.map(|seen| ago(seen, now));
    match (member.state, seen) {
        (MemberState::Unknown, Some(seen)) => Some(format!(
            "member {name} was last seen {seen} ago; start claviger serve there, or, if it is gone \
             for good, run claviger member remove {name}"
        )),
        (MemberState::Unreadable, _) => Some(format!(
            "the record of member {name} cannot be believed; it writes another one when it runs"
        )),
        _ => None,
    }
}

impl KeyRow {
    fn of(key: &KeyInfo, notes: &Notes) -> Self {
        Self {
            id: key.id,
            state: key.state,
            created: key.created,
            activated: key.activated,
            protects: Protects::by(key, notes),
        }
    }
}

/// Opens what lies in the storage as the plugin would, without changing anything. The document is
/// there as far as it could be read, for the screen.
async fn open(config: &Config, storage: &dyn Storage) -> (Option<Document>, Option<String>) {
    let read = async { Ok::<_, Error>(Document::parse(storage.load().await?)?) };
    let document = match read.await {
        Ok(document) => document,
        Err(e) => return (None, Some(with_help(config, &e).await)),
    };
    let problem = match check(config, &document).await {
        Ok(()) => None,
        Err(e) => Some(with_help(config, &e).await),
    };
    (Some(document), problem)
}

/// The newest copy beside the keyring that opens. It is older than what was seen here, so that only
/// `restore` accepts it.
async fn newest_good_copy(config: &Config) -> Option<String> {
    let kept = app::storage(config, Durability::Memory).kept().await.ok()?;
    for (revision, bytes) in kept.into_iter().rev() {
        if let Ok(document) = Document::parse(bytes)
            && opens(config, &document).await.is_ok()
        {
            let keyring = app::keyring_path(config).display();
            return Some(format!("{keyring}.{revision}"));
        }
    }
    None
}

async fn check(config: &Config, document: &Document) -> Result<(), Error> {
    opens(config, document).await?;
    if let Some(mark) = app::mark(config).read()? {
        mark.accepts(document)?;
    }
    Ok(())
}

async fn opens(config: &Config, document: &Document) -> Result<(), Error> {
    let mut tried = Vec::new();
    for root in app::roots(config) {
        match store::open_with(root.as_ref(), document.header()).await {
            Ok(key) => {
                document.open(&key)?;
                return Ok(());
            }
            Err(e) => tried.push(e.to_string()),
        }
    }
    Err(Error::NoSlotOpens(tried))
}

async fn with_help(config: &Config, error: &Error) -> String {
    let help = match error {
        Error::Storage(StorageError::Missing(_)) => {
            "on a new cluster run claviger init, otherwise claviger restore with the newest copy or backup"
        }
        Error::NoSlotOpens(_) => "bring a root back: claviger slot test",
        Error::Document(_) | Error::NotSuccessor(_) => match newest_good_copy(config).await {
            Some(copy) => {
                return format!(
                    "{error}; move {} away, then claviger restore takes {copy}, or a newer backup",
                    app::keyring_path(config).display()
                );
            }
            None => "claviger restore takes a backup; no copy beside it is good",
        },
        Error::Mark { .. } => "remove the mark only if the keyring is surely the newest",
        _ => "claviger check says what is wrong with the files",
    };
    format!("{error}; {help}")
}

async fn ask_plugin(config: &Config, document: Option<&Document>) -> (Plugin, Option<String>) {
    let endpoint = match &config.server.socket {
        SocketAddress::Path(path) => Endpoint::Path(path.clone()),
        SocketAddress::Abstract(name) => Endpoint::Abstract(name.clone()),
    };
    let socket = endpoint.to_string();
    let answer = match Client::connect(endpoint, ANSWER).await {
        Err(e) => Err(format!(
            "nobody answers on {socket}: {e}; is claviger serve running?"
        )),
        Ok(client) => match client.status().await {
            Err(e) => Err(format!(
                "the plugin refuses Status ({:?}): {}",
                e.code(),
                e.message()
            )),
            Ok(status) => Ok(status.key_id),
        },
    };
    match answer {
        Err(error) => (
            Plugin {
                socket,
                answers: None,
                error: Some(error.clone()),
            },
            Some(error),
        ),
        Ok(id) => {
            let primary = document.and_then(primary).map(|id| id.to_string());
            let problem = (primary.as_deref() != Some(&id)).then(|| {
                format!("the plugin answers {id}, which is not the keyring's primary key")
            });
            (
                Plugin {
                    socket,
                    answers: Some(id),
                    error: None,
                },
                problem,
            )
        }
    }
}

fn primary(document: &Document) -> Option<KeyId> {
    let mut keys = document.header().keys.iter();
    keys.find(|key| key.state == KeyState::Primary)
        .map(|key| key.id)
}
