//! The files of a node: whose they are, who else may touch them, and on what they lie.
//!
//! The plugin's user is taken to be the owner of the keyring's directory: a new keyring takes its
//! owner, whoever makes it.

mod beside;
mod entry;
mod roots;
mod socket;

use std::fs;
use std::path::Path;

use claviger_keystore::storage::file::{Durability, check_file_system};
use jiff::Timestamp;

use super::report::Item;
use crate::config::{Config, RootKindConfig, StorageConfig};
use entry::{Entry, Kind, user};
use roots::{credential, key_file, recovery};

/// What is to be said of a node's files. `config_path` is the configuration's own.
pub(super) fn items(config: &Config, config_path: &Path) -> Vec<Item> {
    let StorageConfig::File { path: keyring } = &config.storage;
    let folder = keyring.parent().unwrap_or(Path::new("/"));
    // Before there is a directory, whoever makes it decides.
    let plugin = Entry::at(folder)
        .ok()
        .flatten()
        .map_or_else(ours, |folder| folder.uid);
    let mut items = vec![seen("configuration", config_path, |e| {
        configuration(e, config_path, plugin)
    })];
    items.extend(socket::items(config, plugin));
    items.push(seen("keyring's directory", folder, |e| {
        directory(e, folder, plugin, "keyring's")
    }));
    items.extend(folder.is_dir().then(|| file_system(folder)));
    items.push(seen("keyring", keyring, |e| {
        keyring_item(e, keyring, plugin)
    }));
    items.extend(beside::items(keyring, plugin));
    let made = Entry::at(keyring).is_ok_and(|entry| entry.is_some());
    for root in &config.roots {
        match &root.kind {
            RootKindConfig::KeyFile { path } => {
                let parent = path
                    .parent()
                    .filter(|parent| *parent != folder && parent.is_dir());
                items.extend(parent.map(|parent| {
                    seen("key file's directory", parent, |e| {
                        directory(e, parent, plugin, "key file's")
                    })
                }));
                items.push(seen("key file", path, |e| {
                    key_file(e, path, &root.name, plugin, made)
                }));
            }
            RootKindConfig::Credential { name } => items.push(credential(&root.name, name)),
            RootKindConfig::Recovery { file } => items.push(recovery(&root.name, file)),
        }
    }
    if let Some(tls) = &config.metrics.tls {
        items.push(seen("certificate", &tls.cert_file, |e| {
            certificate(e, &tls.cert_file)
        }));
        items.push(seen("certificate's key", &tls.key_file, |e| {
            private(e, &tls.key_file, plugin)
        }));
    }
    items
}

/// The youngest of our own files that have a date.
pub(super) fn youngest(config: &Config, config_path: &Path) -> Option<(String, Timestamp)> {
    let StorageConfig::File { path: keyring } = &config.storage;
    let written = |path: &Path| {
        let modified = fs::metadata(path).ok()?.modified().ok()?;
        Some((
            path.display().to_string(),
            Timestamp::try_from(modified).ok()?,
        ))
    };
    [config_path, keyring]
        .into_iter()
        .filter_map(written)
        .max_by_key(|(_, written)| *written)
}

fn ours() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Judges an entry that can be looked at.
fn seen(what: &str, path: &Path, judge: impl FnOnce(Option<Entry>) -> Item) -> Item {
    match Entry::at(path) {
        Ok(entry) => judge(entry),
        Err(e) => Item::warn(
            format!("{what} {}: not looked at: {e}", path.display()),
            "run claviger check as root",
        ),
    }
}

fn configuration(entry: Option<Entry>, path: &Path, plugin: u32) -> Item {
    let text = format!("configuration {}", path.display());
    match entry {
        // It was read, so a link leads to it; what counts is who may change what is read.
        Some(Entry {
            kind: Kind::Link, ..
        })
        | None => Item::ok(text),
        Some(entry) if ![0, plugin, ours()].contains(&entry.uid) => Item::bad(
            format!("{text}: {entry}: its owner decides which root opens the keyring"),
            format!("chown root {}", path.display()),
        ),
        Some(entry) if entry.mode & 0o022 != 0 => Item::bad(
            format!("{text}: {entry}: others may change it"),
            format!("chmod 0644 {}", path.display()),
        ),
        Some(entry) => Item::ok(format!("{text}: {entry}")),
    }
}

/// A directory in which nobody else may replace a file.
fn directory(entry: Option<Entry>, path: &Path, plugin: u32, whose: &str) -> Item {
    let text = format!("{whose} directory {}", path.display());
    let shown = path.display();
    match entry {
        None => Item::warn(
            format!("{text}: does not exist yet"),
            format!("systemd makes it (claviger print systemd), or install -d -m 0750 {shown}"),
        ),
        Some(entry) if entry.kind != Kind::Directory => Item::bad(
            format!("{text}: is not a directory"),
            format!("name another path than {shown}"),
        ),
        Some(entry) if ![0, plugin].contains(&entry.uid) => Item::bad(
            format!("{text}: {entry}: its owner could put other files there"),
            format!("chown {} {shown}", user(plugin)),
        ),
        Some(entry) if entry.mode & 0o022 != 0 => Item::bad(
            format!("{text}: {entry}: others could put other files there"),
            format!("chmod 0750 {shown}"),
        ),
        Some(entry) => Item::ok(format!("{text}: {entry}")),
    }
}

/// On what the keyring lies.
fn file_system(folder: &Path) -> Item {
    let text = "keyring's file system";
    match (
        check_file_system(folder, Durability::Disk),
        check_file_system(folder, Durability::Memory),
    ) {
        (Ok(()), _) => Item::ok(format!("{text}: local")),
        (Err(_), Ok(())) => Item::warn(
            format!("{text}: memory: a restart of the host loses every key"),
            "fit for serve --dev only; name a path on a disk",
        ),
        (Err(e), Err(_)) => Item::bad(format!("{text}: {e}"), "name a path on a local disk"),
    }
}

fn keyring_item(entry: Option<Entry>, path: &Path, plugin: u32) -> Item {
    let text = format!("keyring {}", path.display());
    let shown = path.display();
    match entry {
        None => Item::warn(
            format!("{text}: there is none yet"),
            "claviger init makes it, once",
        ),
        Some(entry) if entry.kind != Kind::File => Item::bad(
            format!("{text}: is not a file"),
            "put the file itself there",
        ),
        Some(entry) if ![0, plugin].contains(&entry.uid) => Item::bad(
            format!("{text}: {entry}"),
            format!("chown {} {shown}", user(plugin)),
        ),
        Some(entry) if entry.mode & 0o027 != 0 => Item::bad(
            format!("{text}: {entry}: too open"),
            format!("chmod 0600 {shown}"),
        ),
        Some(entry) => Item::ok(format!("{text}: {entry}")),
    }
}

fn certificate(entry: Option<Entry>, path: &Path) -> Item {
    let text = format!("certificate {}", path.display());
    match entry {
        Some(entry) => Item::ok(format!("{text}: {entry}")),
        None => Item::bad(
            format!("{text}: is not there"),
            "put it there, or leave metrics.tls out",
        ),
    }
}

fn private(entry: Option<Entry>, path: &Path, plugin: u32) -> Item {
    let text = format!("certificate's key {}", path.display());
    let shown = path.display();
    match entry {
        None => Item::bad(
            format!("{text}: is not there"),
            "put it there, or leave metrics.tls out",
        ),
        Some(entry) if entry.kind != Kind::Link && entry.mode & 0o007 != 0 => Item::bad(
            format!("{text}: {entry}: everybody may read it"),
            format!("chown {} {1}; chmod 0400 {1}", user(plugin), shown),
        ),
        Some(entry) => Item::ok(format!("{text}: {entry}")),
    }
}

#[cfg(test)]
mod tests {
    use super::entry::made_up::{file, folder};
    use super::*;
    use crate::encryption_config::Level;

    const PLUGIN: u32 = 970;

    #[test]
    fn a_directory_is_for_root_and_the_plugin_to_write() {
        let judge = |entry| directory(entry, Path::new("/d"), PLUGIN, "socket's").level;
        assert_eq!(judge(Some(folder(0, 0o755))), Level::Ok);
        assert_eq!(judge(Some(folder(PLUGIN, 0o700))), Level::Ok);
        assert_eq!(judge(None), Level::Warn);
        for entry in [
            folder(1000, 0o755),
            folder(0, 0o775),
            folder(0, 0o1777),
            file(0, 0o644),
            Entry {
                kind: Kind::Link,
                ..folder(0, 0o777)
            },
        ] {
            assert_eq!(judge(Some(entry)), Level::Bad, "{entry:?}");
        }
    }

    #[test]
    fn a_keyring_may_be_read_by_a_group_and_written_by_nobody_else() {
        let judge = |entry| keyring_item(entry, Path::new("/k"), PLUGIN).level;
        for mode in [0o600, 0o640, 0o400] {
            assert_eq!(judge(Some(file(PLUGIN, mode))), Level::Ok);
        }
        assert_eq!(judge(Some(file(0, 0o600))), Level::Ok);
        assert_eq!(judge(None), Level::Warn);
        for entry in [
            file(PLUGIN, 0o644),
            file(PLUGIN, 0o660),
            file(1000, 0o600),
            folder(0, 0o700),
        ] {
            assert_eq!(judge(Some(entry)), Level::Bad, "{entry:?}");
        }
    }

    #[test]
    fn a_configuration_is_for_root_and_the_plugin_to_change() {
        let judge = |entry| configuration(entry, Path::new("/c"), PLUGIN).level;
        assert_eq!(judge(Some(file(0, 0o644))), Level::Ok);
        assert_eq!(judge(Some(file(PLUGIN, 0o600))), Level::Ok);
        assert_eq!(judge(Some(file(0, 0o664))), Level::Bad);
        let stranger = if ours() == 1000 { 1001 } else { 1000 };
        assert_eq!(judge(Some(file(stranger, 0o644))), Level::Bad);
    }
}
