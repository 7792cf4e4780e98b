//! Disabling and destroying a key: both run their own audit, and both say everything that speaks
//! against it.
//!
//! ```text
//! members' records → audit at a revision pinned after them → guard → commit
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use claviger_keystore::header::Header;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::member::Member;
use claviger_keystore::rotation::guards::{self, KeyAudit, Reason};
use claviger_keystore::rotation::{Lack, Situation};
use jiff::Timestamp;

use crate::audit::etcd::Etcd;
use crate::audit::keyspace::{self, Options};
use crate::audit::object::Protection;
use crate::audit::snapshot::{Revisions, Snapshot, SnapshotError};
use crate::cli::audit::{self, EtcdArgs};
use crate::cli::failure::{Exit, Failure};
use crate::cli::keyring::{self, Opened, find_key, refused};
use crate::cli::output::Output;
use crate::config::Config;

/// A member that runs has loaded and acknowledged a change by then.
const FOLLOWED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

/// Which key, and where its audit looks.
#[derive(Debug, clap::Args)]
pub(crate) struct GuardedArgs {
    /// The first digits of the key's id
    id: String,
    #[command(flatten)]
    etcd: EtcdArgs,
    /// Snapshots of etcd that are still kept; those that are not shown are unproven
    #[arg(long, value_name = "FILE", num_args = 1..)]
    snapshot: Vec<PathBuf>,
}

pub(super) async fn disable(
    config: &Config,
    args: &GuardedArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let doing = format!("disabling {}", args.id);
    let looked = look(config, args, &doing, KeyState::Retired, output).await?;
    let (id, now) = (looked.id, looked.read);
    let judged = looked.judge(|situation, audit| guards::may_disable(situation, &id, audit));
    judged.map_err(|reasons| refuse(&doing, &id, &reasons))?;
    let disabled = looked
        .opened
        .keystore
        .commit(now, |keyring| Ok(keyring.disable(&id, now)?));
    disabled.await.map_err(|e| refused(&doing, &e))?;
    super::changed(&looked.opened, &id, output).await
}

pub(super) async fn destroy(
    config: &Config,
    args: &GuardedArgs,
    force_id: Option<&str>,
    output: &Output,
) -> Result<Exit, Failure> {
    let doing = format!("destroying {}", args.id);
    if let Some(opened) = destroyed_already(config, args, &doing).await? {
        // A destroy that was interrupted goes on: what is kept beside the keyring may hold its bytes.
        let dropped = opened.keystore.drop_destroyed(Timestamp::now()).await;
        dropped.map_err(|e| refused(&doing, &e))?;
        let id = find_key(opened.keyring.header(), &args.id, &doing)?.id;
        return super::changed(&opened, &id, output).await;
    }
    let looked = look(config, args, &doing, KeyState::Disabled, output).await?;
    let id = looked.id;
    let force = match force_id {
        None => false,
        Some(typed) if typed == id.to_string() => true,
        Some(_) => {
            return Err(Failure::new(
                Exit::Usage,
                &doing,
                "what --force-id says is not this key's whole id",
                format!("if it is meant, type --force-id {id}"),
            ));
        }
    };
    let judged = looked.judge(|situation, audit| guards::may_destroy(situation, &id, audit, force));
    judged.map_err(|reasons| refuse(&doing, &id, &reasons))?;
    let destroyed = looked.opened.keystore.destroy(&id, looked.read).await;
    destroyed.map_err(|e| refused(&doing, &e))?;
    super::changed(&looked.opened, &id, output).await
}

/// The keyring, if the key is destroyed in it.
async fn destroyed_already(
    config: &Config,
    args: &GuardedArgs,
    doing: &str,
) -> Result<Option<Opened>, Failure> {
    let opened = keyring::open(config, doing).await?;
    let state = find_key(opened.keyring.header(), &args.id, doing)?.state;
    Ok((state == KeyState::Destroyed).then_some(opened))
}

/// What a guard judges by.
struct Looked {
    opened: Opened,
    id: KeyId,
    members: Vec<Member>,
    /// When the members' records were read.
    read: Timestamp,
    audit: KeyAudit,
}

impl Looked {
    fn judge(
        &self,
        guard: impl FnOnce(&Situation<'_>, Option<&KeyAudit>) -> Result<(), Vec<Reason>>,
    ) -> Result<(), Vec<Reason>> {
        let header = self.opened.keyring.header();
        let situation = Situation {
            header,
            hash: self.opened.hash,
            members: &self.members,
            // A plugin of this node that has not written its first record yet is waited for too.
            ourselves: Some(&self.opened.member),
            now: self.read,
        };
        guard(&situation, Some(&self.audit))
    }
}

async fn look(
    config: &Config,
    args: &GuardedArgs,
    doing: &str,
    from: KeyState,
    output: &Output,
) -> Result<Looked, Failure> {
    let opened = keyring::open(config, doing).await?;
    let header = opened.keyring.header();
    let id = in_state(header, &args.id, from, doing)?;
    let members = members(&opened, doing).await?;
    let read = Timestamp::now();
    let audit = audited(config, args, &id, doing, output).await?;
    Ok(Looked {
        opened,
        id,
        members,
        read,
        audit,
    })
}

/// Everybody's record. A change that was committed a moment ago is in them a moment later, so that
/// is waited for.
async fn members(opened: &Opened, doing: &str) -> Result<Vec<Member>, Failure> {
    let revision = opened.keyring.header().revision;
    let begun = Instant::now();
    loop {
        let members = opened.keystore.members().await;
        let members = members.map_err(|e| refused(doing, &e))?;
        let now = Timestamp::now();
        let behind = members
            .iter()
            .filter_map(|member| member.fresh(now))
            .any(|record| record.acknowledged.revision < revision);
        if !behind || begun.elapsed() > FOLLOWED {
            return Ok(members);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The key, if this leads on from its state: an audit of a key of which it is clear takes minutes.
fn in_state(header: &Header, wanted: &str, from: KeyState, doing: &str) -> Result<KeyId, Failure> {
    let key = find_key(header, wanted, doing)?;
    if key.state == from {
        return Ok(key.id);
    }
    let id = key.id.short();
    let next = match key.state {
        KeyState::Staged => "claviger rotate --abort gives a staged key up".to_owned(),
        KeyState::Primary => "claviger rotate makes another key primary first".to_owned(),
        KeyState::Retired => format!("claviger key disable {id} comes first"),
        KeyState::Disabled => format!("it is disabled; claviger key destroy {id} is next"),
        KeyState::Destroyed => "its bytes are gone; nothing is left to do".to_owned(),
    };
    let cause = format!("{id} is {}, not {from}", key.state);
    Err(Failure::new(Exit::Refused, doing, cause, next))
}

/// What still names the key in etcd, and in the snapshots that are shown.
async fn audited(
    config: &Config,
    args: &GuardedArgs,
    id: &KeyId,
    doing: &str,
    output: &Output,
) -> Result<KeyAudit, Failure> {
    // Where there is no cluster to look at, a guard refuses: this is no question of usage.
    let cluster = audit::find(&args.etcd, Some(config)).map_err(|failure| Failure {
        exit: Exit::Refused,
        doing: doing.to_owned(),
        ..failure
    })?;
    let etcd = Etcd::connect(&cluster.etcd).await;
    let etcd = etcd.map_err(|e| audit::refused(&e.into()))?;
    let prefix = &cluster.etcd.prefix;
    let options = Options {
        prefix,
        ..Options::default()
    };
    let when = Timestamp::now();
    let live = keyspace::scan(&etcd, options, &|text: &str| output.note(text)).await;
    let live = live.map_err(|e| audit::refused(&e))?;
    let mut found = KeyAudit {
        revision: u64::try_from(live.pin.revision).unwrap_or_default(),
        when,
        current: 0,
        history: 0,
        snapshots: Vec::new(),
        unshown: 0,
    };
    unreadable(live.tally.exception_count(), doing)?;
    for row in live
        .tally
        .rows()
        .iter()
        .filter(|row| names(&row.protection, id))
    {
        found.current += row.counts.current;
        found.history += row.counts.history;
    }
    for path in &args.snapshot {
        let needs = || {
            let snapshot = Snapshot::open(path)?;
            snapshot.needs(Revisions::Latest, prefix)
        };
        let needs = needs().map_err(|e: SnapshotError| {
            let doing = format!("reading the snapshot {}", path.display());
            let next = "etcdutl snapshot status says what etcd thinks of it";
            Failure::new(Exit::Fault, doing, e, next)
        })?;
        unreadable(needs.unreadable, doing)?;
        if needs.key_ids.contains_key(&id.to_string()) {
            found.snapshots.push(path.display().to_string());
        }
    }
    Ok(found)
}

fn names(protection: &Protection, id: &KeyId) -> bool {
    matches!(protection, Protection::KmsV2 { key_id, .. } if *key_id == id.to_string())
}

/// Nobody can say which key such objects need.
fn unreadable(objects: u64, doing: &str) -> Result<(), Failure> {
    match objects {
        0 => Ok(()),
        objects => Err(Failure::new(
            Exit::Refused,
            doing,
            format!("{objects} objects have a header that cannot be read: any of them may need it"),
            "claviger audit names them; delete or rewrite them first",
        )),
    }
}

/// Everything that speaks against it, and what helps against the first of it.
fn refuse(doing: &str, id: &KeyId, reasons: &[Reason]) -> Failure {
    let lines: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    let next = reasons
        .first()
        .map_or(String::new(), |reason| next(id, reason));
    Failure::new(Exit::Refused, doing, lines.join("\n"), next)
}

fn next(id: &KeyId, reason: &Reason) -> String {
    let short = id.short();
    match reason {
        Reason::Current(_) => format!("claviger migrate --key {short} rewrites them"),
        Reason::History(_) => {
            "wait until etcd compacts them: kube-apiserver has that done every 5 minutes".to_owned()
        }
        Reason::Snapshots(_) => "keep the key for as long as those snapshots are kept".to_owned(),
        Reason::Unshown(_) | Reason::Retention { .. } | Reason::DisabledFor { .. } => {
            format!("wait; or, if nobody will ever need it, add --force-id {id}")
        }
        Reason::Member(awaited) => match awaited.lacks {
            Lack::NotQuiet => "wait: 5 minutes after its last use a key is quiet".to_owned(),
            Lack::NotRestarted => format!(
                "restart kube-apiserver on {}, or let it read its EncryptionConfiguration anew",
                awaited.name
            ),
            _ => "claviger member list shows how the members are".to_owned(),
        },
        _ => "claviger status shows more".to_owned(),
    }
}
