//! What runs under strace: a member that opens its keyring and rotates twice. It says in a file
//! what it did, so that whoever looks after its death knows what it promised.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::member::MemberName;
use claviger_keystore::rotation::{Action, Request};
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store::Restore;
use claviger_keystore::testing::{NOW, member_record, test_root};
use data_encoding::HEXLOWER;

/// Where the child finds its folder.
pub(crate) const FOLDER: &str = "CLAVIGER_CRASH_FOLDER";
pub(crate) const SEED: [u8; 32] = [7; 32];

/// What a line of the report begins with.
pub(crate) mod said {
    /// A look at the storage failed.
    pub(crate) const NOT_OPENED: &str = "not opened:";
    /// A key id and a ciphertext were returned to a caller.
    pub(crate) const SEALED: &str = "sealed";
    /// A commit was said to have succeeded.
    pub(crate) const COMMITTED: &str = "committed";
    /// A commit failed, and nothing changed.
    pub(crate) const REFUSED: &str = "refused:";
    /// A commit failed, and it is unknown whether it is durable.
    pub(crate) const UNKNOWN: &str = "unknown:";
    /// It came to its end.
    pub(crate) const END: &str = "end";
}

pub(crate) fn keyring_in(folder: &Path) -> PathBuf {
    folder.join("keyring")
}

pub(crate) fn report_in(folder: &Path) -> PathBuf {
    folder.with_extension("report")
}

/// A member on the keyring in this folder, not open yet.
pub(crate) fn member_in(folder: &Path) -> Keystore {
    let keyring = keyring_in(folder);
    let mark = MarkFile::beside(&keyring);
    let storage = FileStorage::new(keyring, Durability::Memory);
    Keystore::new(Box::new(storage), vec![test_root()], Some(mark))
}

/// A whole rotation in one commit.
pub(crate) fn rotated(keyring: &Keyring) -> Result<Keyring, Error> {
    let staged = keyring.stage(NOW)?;
    let id = staged.staged().unwrap();
    Ok(staged.activate(&id, NOW)?)
}

/// File system calls are made on one thread, because strace counts them for each by itself.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .thread_keep_alive(std::time::Duration::from_secs(600))
        .enable_time()
        .build()
        .unwrap()
}

struct Report(File);

impl Report {
    /// One line, in one call.
    fn say(&mut self, what: &str, more: &str) {
        self.0
            .write_all(format!("{what} {more}\n").as_bytes())
            .unwrap();
    }

    fn seal(&mut self, member: &Keystore) {
        let view = member.view();
        let Ok(snapshot) = view.snapshot() else {
            return;
        };
        let Ok(id) = snapshot.primary() else { return };
        let sealed = snapshot.seal(&id, &SEED).unwrap();
        self.say(said::SEALED, &format!("{id} {}", HEXLOWER.encode(&sealed)));
    }
}

/// The next step of the first key's life, from wherever it is: rotate, disable, destroy, and a
/// record. Each may be asked for again.
pub(crate) async fn live(member: &Keystore, old: &KeyId) -> Result<(), Error> {
    let ours: MemberName = "cp1".parse().unwrap();
    let primary = member.keyring().await.unwrap().primary();
    if primary == Some(*old) {
        for _ in 0..2 {
            member
                .step(Request::Rotate { from: primary }, Some(&ours), NOW)
                .await?;
        }
    }
    let mut record = member_record("cp1", NOW);
    record.acknowledged = member.acknowledged().await.unwrap();
    member.put_member(&record).await?;
    let state = member
        .keyring()
        .await
        .unwrap()
        .key(old)
        .map(|key| key.state);
    if state == Some(KeyState::Retired) {
        member
            .commit(NOW, |keyring| Ok(keyring.disable(old, NOW)?))
            .await?;
    }
    member.destroy(old, NOW).await?;
    Ok(())
}

/// Where the backup lies that a child restores.
pub(crate) fn backup_of(folder: &Path) -> PathBuf {
    folder.with_extension("backup")
}

/// Merges the backup into what is there.
pub(crate) async fn restore(member: &Keystore, folder: &Path) -> Result<(), Error> {
    let backup = Document::parse(std::fs::read(backup_of(folder)).unwrap())?;
    let restore = Restore {
        from: &backup,
        roots: &[],
        needed: &[],
        accept_loss: &[],
        accept_keyring_key: None,
    };
    member.restore(restore, NOW).await.map(drop)
}

/// Ends what a restore began, as the plugin does.
pub(crate) async fn activate(member: &Keystore) {
    let ours: MemberName = "cp1".parse().unwrap();
    let request = Request::Rotate { from: None };
    let action = member.step(request, Some(&ours), NOW).await.unwrap();
    assert!(matches!(action, Action::Activate(_)), "{action:?}");
}

#[test]
#[ignore = "the other tests run it under strace, each time with another fault"]
fn restores() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut report = Report(File::create(report_in(&folder)).unwrap());
    runtime().block_on(async {
        let member = member_in(&folder);
        // On a new node there is nothing to open.
        let _ = member.sync(NOW).await;
        restore(&member, &folder).await.unwrap();
        report.say(said::COMMITTED, "");
        activate(&member).await;
        report.seal(&member);
        member.commit(NOW, rotated).await.unwrap();
        report.say(said::END, "");
    });
}

/// The key that was primary in the template.
pub(crate) async fn first_key(member: &Keystore) -> KeyId {
    member.keyring().await.unwrap().header().keys[0].id
}

#[test]
#[ignore = "the other tests run it under strace, each time with another fault"]
fn lives() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut report = Report(File::create(report_in(&folder)).unwrap());
    runtime().block_on(async {
        let member = member_in(&folder);
        member.sync(NOW).await.unwrap();
        let old = first_key(&member).await;
        live(&member, &old).await.unwrap();
        report.seal(&member);
        report.say(said::END, "");
    });
}

fn may_write(member: &Keystore) -> bool {
    member
        .view()
        .snapshot()
        .is_ok_and(|snapshot| snapshot.primary().is_ok())
}

#[test]
#[ignore = "the other tests run it under strace, each time with another fault"]
fn rotates_twice() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut report = Report(File::create(report_in(&folder)).unwrap());
    runtime().block_on(async {
        let member = member_in(&folder);
        // A member looks again each second until it may write.
        for _ in 0..3 {
            if let Err(e) = member.sync(NOW).await {
                report.say(said::NOT_OPENED, &e.to_string());
            }
            if may_write(&member) {
                break;
            }
        }
        for _ in 0..2 {
            report.seal(&member);
            match member.commit(NOW, rotated).await {
                Ok(()) => report.say(said::COMMITTED, ""),
                Err(e @ Error::Storage(StorageError::DurabilityUnknown { .. })) => {
                    report.say(said::UNKNOWN, &e.to_string());
                    break;
                }
                Err(e) => {
                    report.say(said::REFUSED, &e.to_string());
                    break;
                }
            }
        }
        report.seal(&member);
        report.say(said::END, "");
    });
}
