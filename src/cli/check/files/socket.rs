//! The socket: who can put another in its place, and who may connect.

use std::fs;
use std::path::Path;

use super::super::report::Item;
use super::entry::{Entry, Kind};
use super::{directory, seen};
use crate::config::{Config, SocketAddress};

/// The socket's directory, and what lies in the socket's place.
pub(super) fn items(config: &Config, plugin: u32) -> Vec<Item> {
    let path = match &config.server.socket {
        SocketAddress::Path(path) => path,
        SocketAddress::Abstract(name) => {
            return vec![Item::warn(
                format!("socket @{name}: anybody in this network namespace may connect"),
                "allowUIDs is its only guard; from Kubernetes 1.32 on use a socket file",
            )];
        }
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut items: Vec<Item> = folder.ancestors().filter_map(link).collect();
    if items.is_empty() {
        items.push(seen("socket's directory", folder, |e| {
            directory(e, folder, plugin, "socket's")
        }));
    }
    items.push(seen("socket", path, |e| socket_file(e, path)));
    if config.server.mode & 0o006 != 0 {
        items.push(Item::warn(
            format!(
                "socket's mode {:04o}: every user may connect",
                config.server.mode
            ),
            "allowUIDs still guards it; \"0600\" is enough for a kube-apiserver that is root",
        ));
    }
    items.extend(config.server.group.as_deref().map(group));
    items
}

/// A part of a path that is a symbolic link: whoever may change it moves the socket.
fn link(part: &Path) -> Option<Item> {
    let entry = Entry::at(part).ok().flatten()?;
    (entry.kind == Kind::Link).then(|| {
        let target = fs::canonicalize(part).unwrap_or_else(|_| part.to_owned());
        Item::bad(
            format!("socket's directory: {} is a symbolic link", part.display()),
            format!("name it without the link: {}", target.display()),
        )
    })
}

fn socket_file(entry: Option<Entry>, path: &Path) -> Item {
    let text = format!("socket {}", path.display());
    match entry {
        None => Item::ok(format!("{text}: not there; the plugin makes it")),
        Some(entry) if entry.kind == Kind::Socket => Item::ok(format!("{text}: {entry}")),
        Some(_) => Item::bad(
            format!("{text}: something else is in its place"),
            "move it away, or name another socket",
        ),
    }
}

fn group(name: &str) -> Item {
    let known = name.parse::<u32>().is_ok() || uzers::get_group_by_name(name).is_some();
    if known {
        Item::ok(format!("socket's group {name}"))
    } else {
        Item::bad(
            format!("socket's group {name}: no such group"),
            format!("groupadd --system {name}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::made_up::{file, folder};
    use super::*;
    use crate::encryption_config::Level;

    #[test]
    fn what_lies_in_a_sockets_place_is_a_socket_or_nothing() {
        let judge = |entry| socket_file(entry, Path::new("/s")).level;
        assert_eq!(judge(None), Level::Ok);
        assert_eq!(
            judge(Some(Entry {
                kind: Kind::Socket,
                ..file(0, 0o600)
            })),
            Level::Ok
        );
        assert_eq!(judge(Some(file(0, 0o600))), Level::Bad);
        assert_eq!(judge(Some(folder(0, 0o700))), Level::Bad);
    }

    #[test]
    fn a_link_on_the_way_to_the_socket_is_named_with_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("run")).unwrap();
        std::os::unix::fs::symlink(real.join("run"), real.join("var")).unwrap();
        let text = format!(
            "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
             server: {{socket: {0}/var/kms.sock}}\nstorage: {{file: {{path: {0}/keyring}}}}\n\
             roots: [{{name: a, keyFile: {{path: {0}/k}}}}]\n",
            real.display()
        );
        let config = crate::config::parse(&text).unwrap();
        let found = items(&config, super::super::ours());
        assert_eq!(found[0].level, Level::Bad);
        assert_eq!(
            found[0].next,
            Some(format!(
                "name it without the link: {}",
                real.join("run").display()
            ))
        );
    }
}
