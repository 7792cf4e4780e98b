//! What every command shares that reads or changes the keyring: to open it as this member would, to
//! find a key by the first digits of its id, and to say why a change was not made.

use std::sync::Arc;

use claviger_keystore::Keystore;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::header::{DocumentHash, Header};
use claviger_keystore::key::{KeyId, KeyInfo};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::member::MemberName;
use claviger_keystore::storage::file::Durability;
use jiff::Timestamp;

use super::failure::{Exit, Failure};
use crate::app;
use crate::config::Config;

/// Opens the keyring as this member would, its mark included.
pub(super) async fn open(config: &Config, doing: &str) -> Result<Opened, Failure> {
    // Whatever file system it lies on, it lies there already.
    let keystore = app::keystore(config, Durability::Memory);
    opened(config, keystore, doing).await
}

/// The keyring of this keystore, which is opened now.
pub(super) async fn opened(
    config: &Config,
    keystore: Keystore,
    doing: &str,
) -> Result<Opened, Failure> {
    let member = app::member_name(config).map_err(|e| {
        let next = "give this node a name: member in the configuration";
        Failure::new(Exit::Usage, doing, e, next)
    })?;
    let synced = keystore.sync(Timestamp::now()).await;
    synced.map_err(|e| refused(doing, &e))?;
    let keyring = keystore.keyring().await.ok_or_else(|| {
        Failure::new(
            Exit::Fault,
            doing,
            "the keyring is not open",
            "claviger status says why",
        )
    })?;
    let open = keystore.acknowledged().await;
    let hash = open.map_or(DocumentHash::ZERO, |open| open.sha256);
    Ok(Opened {
        keystore,
        keyring,
        hash,
        member,
    })
}

/// A keyring that a command opened.
pub(super) struct Opened {
    pub(super) keystore: Keystore,
    /// As it was when it was opened.
    pub(super) keyring: Arc<Keyring>,
    /// The hash of its document.
    pub(super) hash: DocumentHash,
    /// This node's member.
    pub(super) member: MemberName,
}

/// Why the keyring was not opened or changed, and what helps.
pub(super) fn refused(doing: &str, error: &Error) -> Failure {
    let (exit, next) = match error {
        Error::Change(_) => (Exit::Refused, "claviger key list shows the keys"),
        Error::NotSuccessor(_) => (
            Exit::Refused,
            "claviger restore FILE is the one way to accept such a keyring",
        ),
        Error::ReadOnly(_) => (Exit::Refused, "claviger status says what helps"),
        Error::Storage(StorageError::Conflict) => (Exit::Refused, "look again, then run it again"),
        Error::Storage(StorageError::Missing(_)) => (
            Exit::Fault,
            "on a new cluster run claviger init, otherwise claviger restore with the newest copy or backup",
        ),
        Error::Storage(StorageError::DurabilityUnknown { .. }) => (
            Exit::Partly,
            "look at the disk; claviger status says which keyring is there",
        ),
        Error::NoSlotOpens(_) | Error::Root { .. } => (
            Exit::Unreachable,
            "bring a root back; claviger slot test shows whether it opens",
        ),
        _ => (
            Exit::Fault,
            "claviger check says what is wrong with the files",
        ),
    };
    Failure::new(exit, doing, error, next)
}

/// The key whose id begins so: with or without `k1-`, as many digits as make it clear.
pub(super) fn find_key<'a>(
    header: &'a Header,
    wanted: &str,
    doing: &str,
) -> Result<&'a KeyInfo, Failure> {
    let digits = wanted.strip_prefix("k1-").unwrap_or(wanted);
    let begins = |key: &&KeyInfo| !digits.is_empty() && hex(&key.id).starts_with(digits);
    let found: Vec<_> = header.keys.iter().filter(begins).collect();
    let cause = match found[..] {
        [key] => return Ok(key),
        [] => format!("the keyring has no key {wanted}"),
        _ => format!("{wanted} may be any of {} keys", found.len()),
    };
    Err(Failure::new(
        Exit::Usage,
        doing,
        cause,
        "claviger key list shows the ids; their first digits do",
    ))
}

fn hex(id: &KeyId) -> String {
    id.to_string().trim_start_matches("k1-").to_owned()
}

#[cfg(test)]
mod tests {
    use claviger_keystore::header::KeyringKeyId;

    use super::*;

    fn two_keys() -> Header {
        let now = Timestamp::UNIX_EPOCH;
        let keyring = Keyring::create("test", KeyringKeyId::ZERO, now).unwrap();
        keyring.stage(now).unwrap().header().clone()
    }

    #[test]
    fn any_clear_beginning_of_an_id_finds_its_key() {
        let header = two_keys();
        for key in &header.keys {
            let id = key.id.to_string();
            for wanted in [&id[..], &id[3..], &id[3..23]] {
                let found = find_key(&header, wanted, "testing").map(|key| key.id);
                assert_eq!(found, Ok(key.id), "{wanted}");
            }
        }
    }

    #[test]
    fn what_is_unclear_or_unknown_is_a_fault_of_usage() {
        let header = two_keys();
        for wanted in ["", "k1-", "zz", &"0".repeat(33)] {
            let failure = find_key(&header, wanted, "testing").unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wanted}");
        }
    }
}
