//! What must be true before anything is rewritten, and what is to be rewritten.
//!
//! An apiserver that lags behind re-encrypts *backwards*: what it rewrites goes from the new key to
//! the old one. So every member must have seen all of its apiservers move on.

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::rotation::Situation;
use claviger_keystore::rotation::guards;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::Durability;
use jiff::Timestamp;

use super::{DOING, MigrateArgs};
use crate::app;
use crate::audit::scope::Scope;
use crate::audit::subject::{Subject, SubjectError};
use crate::audit::tally::Tally;
use crate::cli::failure::{Exit, Failure};
use crate::cli::keyring::{self, Opened, refused};
use crate::config::Config;
use crate::encryption_config::EncryptionConfiguration;
use crate::migrate::stale::Stale;

/// The keyring of this node, opened as its member would; none where there is none.
pub(super) async fn keyring(config: Option<&Config>) -> Result<Option<Opened>, Failure> {
    let Some(config) = config else {
        return Ok(None);
    };
    let storage = app::storage(config, Durability::Memory);
    if let Err(StorageError::Missing(_)) = storage.load().await {
        return Ok(None);
    }
    keyring::open(config, DOING).await.map(Some)
}

/// Refuses until it is safe.
pub(super) async fn may_migrate(
    keyring: Option<&Opened>,
    args: &MigrateArgs,
) -> Result<(), Failure> {
    let Some(opened) = keyring else {
        return without_keyring(args);
    };
    let failed = |error: Error| refused(DOING, &error);
    let members = opened.keystore.members().await.map_err(failed)?;
    let situation = Situation {
        header: opened.keyring.header(),
        hash: opened.hash,
        members: &members,
        // A plugin of this node that has not written its first record yet is waited for too.
        ourselves: Some(&opened.member),
        now: Timestamp::now(),
    };
    guards::may_migrate(&situation).map_err(|reasons| {
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        Failure::new(
            Exit::Refused,
            format!("{DOING}: it is not safe yet"),
            reasons.join("\n"),
            "wait and run it again: an apiserver that lags behind would write with the old key; \
             claviger status shows the members, claviger member remove NAME forgets one that is \
             gone",
        )
    })
}

fn without_keyring(args: &MigrateArgs) -> Result<(), Failure> {
    let doing = format!("{DOING} without a keyring");
    if args.key.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            doing,
            "nothing says which objects are stale",
            "name what they are to be moved away from: --key with a key id, a provider, or \
             plaintext; claviger audit shows them",
        ));
    }
    if !args.assume_converged {
        return Err(Failure::new(
            Exit::Refused,
            doing,
            "nobody tells whether every kube-apiserver writes with the new key by now; one that \
             lags behind would move objects back",
            "see that key_id_hash_status_last_timestamp_seconds of no kube-apiserver grows for \
             the old key, and for 5 minutes more; then add --assume-converged",
        ));
    }
    Ok(())
}

/// What is to be rewritten.
pub(super) fn stale(
    keyring: Option<&Opened>,
    args: &MigrateArgs,
    tally: &Tally,
    configuration: Option<EncryptionConfiguration>,
) -> Result<Stale, Failure> {
    let header = keyring.map(|opened| opened.keyring.header());
    let keys = header.into_iter().flat_map(|header| &header.keys);
    let scope = Scope {
        configuration,
        keys: keys.map(|key| (key.id, key.state)).collect(),
    };
    let Some(wanted) = &args.key else {
        return Ok(Stale::Unlike(scope));
    };
    let failed = |cause: String, next: &str| Err(Failure::new(Exit::Usage, DOING, cause, next));
    let unnamed = || {
        failed(
            format!("no stored value names {wanted}, and no keyring does"),
            "claviger audit shows what protects what; a whole key id is taken as it is",
        )
    };
    let subject = match Subject::find(wanted, tally, &scope) {
        Ok(subject) => subject,
        Err(SubjectError::Several(ids)) => {
            let ids: Vec<_> = ids.into_iter().collect();
            return failed(
                format!("{wanted} may be any of {}", ids.join(", ")),
                "give more of it",
            );
        }
        Err(SubjectError::Empty | SubjectError::Nothing) => return unnamed(),
    };
    let is_name = matches!(subject, Subject::Named(_));
    if is_name && !tally.rows().iter().any(|row| subject.is_of(row)) {
        return unnamed();
    }
    Ok(Stale::Under { subject, scope })
}
