//! The roots that lie on this node.

use std::path::Path;

use super::super::report::Item;
use super::entry::{Entry, Kind, user};

/// What the keystore demands of a key file, and that the plugin's user may read it.
pub(super) fn key_file(
    entry: Option<Entry>,
    path: &Path,
    root: &str,
    plugin: u32,
    keyring: bool,
) -> Item {
    let text = format!("root {root}: key file {}", path.display());
    let shown = path.display();
    let bad = |why: &str, next: String| Item::bad(format!("{text}: {why}"), next);
    let Some(entry) = entry else {
        return if keyring {
            bad(
                "is not there, and there is a keyring",
                "bring it back from where it is kept".to_owned(),
            )
        } else {
            Item::warn(
                format!("{text}: does not exist yet"),
                "claviger init makes it",
            )
        };
    };
    match entry {
        Entry {
            kind: Kind::Link, ..
        } => bad("is a symbolic link", "name the file itself".to_owned()),
        Entry { kind, .. } if kind != Kind::File => bad("is not a file", "name a file".to_owned()),
        Entry { mode, .. } if mode & 0o077 != 0 => bad(
            &format!("{entry}: others may read it"),
            format!("chmod 0400 {shown}"),
        ),
        Entry { uid, .. } if uid != plugin && plugin != 0 => bad(
            &format!(
                "{entry}: the plugin runs as {} and cannot read it",
                user(plugin)
            ),
            format!("chown {} {shown}", user(plugin)),
        ),
        Entry { uid, .. } if uid != plugin => bad(
            &format!("{entry}: its owner is neither root nor the plugin"),
            format!("chown root {shown}"),
        ),
        Entry { links, .. } if links != 1 => bad(
            "has other names (hard links)",
            format!("find / -xdev -samefile {shown}"),
        ),
        Entry { len, .. } if len != 32 => bad(
            &format!("has {len} bytes, not 32"),
            "put the right file there".to_owned(),
        ),
        _ => Item::ok(format!("{text}: {entry}")),
    }
}

/// Where systemd keeps credentials for services, sealed or not (systemd.exec(5)).
const CREDENTIAL_STORES: [&str; 3] = [
    "/etc/credstore.encrypted",
    "/run/credentials/claviger.service",
    "/etc/credstore",
];

/// A credential reaches the service alone, so only its place at rest can be looked at.
pub(super) fn credential(root: &str, name: &str) -> Item {
    let text = format!("root {root}: credential {name}");
    let mut stores = CREDENTIAL_STORES
        .iter()
        .map(|store| Path::new(store).join(name));
    match stores.find(|path| path.exists()) {
        Some(path) => Item::ok(format!("{text}: {}", path.display())),
        None => Item::warn(
            format!("{text}: not found in the usual places"),
            format!(
                "systemd-creds encrypt --name={name} root.key /etc/credstore.encrypted/{name}; \
                 claviger print systemd loads it"
            ),
        ),
    }
}

pub(super) fn recovery(root: &str, file: &Path) -> Item {
    let there = Entry::at(file).is_ok_and(|entry| entry.is_some());
    let state = if there {
        "lies on this node"
    } else {
        "is not there"
    };
    Item::warn(
        format!("root {root}: the recovery key {} {state}", file.display()),
        "configure it only while it is used; keep the key elsewhere",
    )
}

#[cfg(test)]
mod tests {
    use super::super::entry::made_up::{file, folder};
    use super::*;
    use crate::encryption_config::Level;

    const PLUGIN: u32 = 970;

    #[test]
    fn a_key_file_is_private_to_the_plugin_whole_and_single() {
        let judge = |entry, plugin| key_file(entry, Path::new("/r"), "local", plugin, true).level;
        for (entry, plugin, level) in [
            (Some(file(PLUGIN, 0o400)), PLUGIN, Level::Ok),
            (Some(file(PLUGIN, 0o600)), PLUGIN, Level::Ok),
            (Some(file(0, 0o400)), 0, Level::Ok),
            (Some(file(PLUGIN, 0o440)), PLUGIN, Level::Bad),
            (Some(file(PLUGIN, 0o404)), PLUGIN, Level::Bad),
            (Some(file(0, 0o400)), PLUGIN, Level::Bad),
            (Some(file(1000, 0o400)), 0, Level::Bad),
            (
                Some(Entry {
                    links: 2,
                    ..file(0, 0o400)
                }),
                0,
                Level::Bad,
            ),
            (
                Some(Entry {
                    len: 33,
                    ..file(0, 0o400)
                }),
                0,
                Level::Bad,
            ),
            (
                Some(Entry {
                    kind: Kind::Link,
                    ..file(0, 0o400)
                }),
                0,
                Level::Bad,
            ),
            (Some(folder(0, 0o400)), 0, Level::Bad),
            (None, 0, Level::Bad),
        ] {
            assert_eq!(judge(entry, plugin), level, "{entry:?} for {plugin}");
        }
        let none_yet = key_file(None, Path::new("/r"), "local", 0, false);
        assert_eq!(none_yet.level, Level::Warn);
    }
}
