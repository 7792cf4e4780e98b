//! The composition root: the one file that turns a configuration into concrete storages and roots.

use std::path::Path;

use claviger_keystore::Keystore;
use claviger_keystore::error::{MemberError, StorageError};
use claviger_keystore::mark::MarkFile;
use claviger_keystore::member::MemberName;
use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};
use claviger_keystore::root::recovery::Recovery;
use claviger_keystore::storage::file::{Durability, FileStorage, check_file_system};

use crate::config::{Config, RootConfig, RootKindConfig, StorageConfig};
use crate::notes::NotesFile;

/// The storage of the configuration.
pub fn storage(config: &Config, durability: Durability) -> FileStorage {
    let StorageConfig::File { path } = &config.storage;
    FileStorage::new(path, durability)
}

/// Whether the keyring's folder survives a power loss.
pub fn durable_storage(config: &Config) -> Result<(), StorageError> {
    let StorageConfig::File { path } = &config.storage;
    check_file_system(path.parent().unwrap_or(path), Durability::Disk)
}

/// One root of the configuration.
pub fn root(config: &RootConfig) -> Box<dyn Root> {
    match &config.kind {
        RootKindConfig::KeyFile { path } => Box::new(KeyFile::new(
            &config.name,
            KeyFileConfig::Path(path.clone()),
        )),
        RootKindConfig::Credential { name } => Box::new(KeyFile::new(
            &config.name,
            KeyFileConfig::Credential(name.clone()),
        )),
        RootKindConfig::Recovery { file } => Box::new(Recovery::with_file(&config.name, file)),
    }
}

/// The roots of the configuration, in its order.
pub fn roots(config: &Config) -> Vec<Box<dyn Root>> {
    config.roots.iter().map(root).collect()
}

/// Where the keyring's file lies.
pub fn keyring_path(config: &Config) -> &Path {
    let StorageConfig::File { path } = &config.storage;
    path
}

/// This member's name.
///
/// # Errors
/// Where the host's name, which it is by default, is no member's.
pub fn member_name(config: &Config) -> Result<MemberName, MemberError> {
    config.member_name().parse()
}

/// The mark of this member.
pub fn mark(config: &Config) -> MarkFile {
    let StorageConfig::File { path } = &config.storage;
    MarkFile::beside(path)
}

/// The notes beside the keyring.
pub fn notes(config: &Config) -> NotesFile {
    let StorageConfig::File { path } = &config.storage;
    NotesFile::beside(path)
}

/// A member's keystore, not open yet.
pub fn keystore(config: &Config, durability: Durability) -> Keystore {
    let storage = Box::new(storage(config, durability));
    Keystore::new(storage, roots(config), Some(mark(config)))
}
