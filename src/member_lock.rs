//! Who acts for this member: the plugin that runs, or a command where none does.
//!
//! ```text
//! member.lock    beside the keyring; held (flock) by the plugin as long as it lives, never removed
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use claviger_keystore::durable::open_lock;

/// Held for as long as the value lives.
#[derive(Debug)]
pub struct MemberLock {
    _file: File,
}

impl MemberLock {
    /// Takes the lock beside this keyring, unless somebody holds it.
    pub fn take(keyring: &Path) -> io::Result<Option<Self>> {
        let file = open_lock(&keyring.with_file_name("member.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = dir.path().join("keyring");
        let command = MemberLock::take(&keyring).unwrap().unwrap();
        assert!(MemberLock::take(&keyring).unwrap().is_none());
        drop(command);
        assert!(MemberLock::take(&keyring).unwrap().is_some());
    }
}
