//! What the program makes beside the keyring: locks, the mark, kept documents, notes, and the records
//! of members. A command that root ran, or a tool that copied them, may have left one that the plugin
//! cannot open.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use claviger_keystore::member::MemberName;

use super::super::report::Item;
use super::entry::{Entry, Kind, user};

/// The folder of the members' records.
const MEMBERS: &str = "members";

/// One line for all that are as they should be, and one for each that is not.
pub(super) fn items(keyring: &Path, plugin: u32) -> Vec<Item> {
    let folder = keyring.parent().unwrap_or(Path::new("/"));
    let name = keyring.file_name().unwrap_or_default().to_string_lossy();
    let members = folder.join(MEMBERS);
    let (mut good, mut items) = (0, Vec::new());
    for (folder, ours) in [
        (folder, &(|file: &str| made_beside(file, &name)) as Ours<'_>),
        (&members, &|file: &str| made_in_members(file)),
    ] {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // What lies in place of a folder is judged as what it is, one above.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                continue;
            }
            Err(e) => {
                items.push(not_looked_at(folder, &e));
                continue;
            }
        };
        for entry in entries.flatten() {
            let Some(kind) = entry.file_name().to_str().and_then(ours) else {
                continue;
            };
            match Entry::at(&entry.path()) {
                // It went away meanwhile: a commit dropped it.
                Ok(None) => {}
                Ok(Some(found)) => match judge(found, kind, &entry.path(), plugin) {
                    Some(item) => items.push(item),
                    None => good += 1,
                },
                Err(e) => items.push(not_looked_at(&entry.path(), &e)),
            }
        }
    }
    if good > 0 {
        let text = format!(
            "beside the keyring: {good} files of its own, of {}",
            user(plugin)
        );
        items.insert(0, Item::ok(text));
    }
    items
}

type Ours<'a> = &'a dyn Fn(&str) -> Option<Kind>;

fn not_looked_at(path: &Path, error: &std::io::Error) -> Item {
    let text = format!(
        "beside the keyring: {}: not looked at: {error}",
        path.display()
    );
    Item::warn(text, "run claviger check as root")
}

/// What the program makes under this name beside a keyring, if anything.
fn made_beside(name: &str, keyring: &str) -> Option<Kind> {
    if name == MEMBERS {
        return Some(Kind::Directory);
    }
    // A writer that was killed leaves one; the next one takes it away.
    let (name, torn) = match name.strip_suffix(".new") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let ours = match name.strip_prefix(keyring) {
        Some("") => torn,
        Some(".lock" | ".mark" | ".mark.lock") => true,
        Some(suffix) => suffix
            .strip_prefix('.')
            .is_some_and(|revision| revision.parse::<u64>().is_ok()),
        None => ["member.lock", "notes.json"].contains(&name),
    };
    ours.then_some(Kind::File)
}

/// The same, among the records of members.
fn made_in_members(name: &str) -> Option<Kind> {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let member = name.strip_suffix(".json")?;
    member.parse::<MemberName>().ok().map(|_| Kind::File)
}

/// What is wrong with it.
fn judge(entry: Entry, kind: Kind, path: &Path, plugin: u32) -> Option<Item> {
    let shown = path.display();
    let text = format!("beside the keyring: {shown}: {entry}");
    if entry.kind != kind {
        let what = match kind {
            Kind::Directory => "directory",
            _ => "file",
        };
        let next = format!("move it away: claviger makes a {what} there");
        return Some(Item::bad(format!("{text}: is not a {what}"), next));
    }
    if entry.uid != plugin {
        return Some(Item::bad(
            format!("{text}: it is not the plugin's, who could not open it"),
            format!("chown {} {shown}", user(plugin)),
        ));
    }
    if entry.mode & 0o022 != 0 {
        let mode = match kind {
            Kind::Directory => "0700",
            _ => "0600",
        };
        return Some(Item::bad(
            format!("{text}: others may change it"),
            format!("chmod {mode} {shown}"),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use claviger_keystore::Keystore;
    use claviger_keystore::mark::MarkFile;
    use claviger_keystore::storage::file::{Durability, FileStorage};
    use claviger_keystore::store;
    use claviger_keystore::testing::{NOW, member_record, rotate, test_root};

    use super::super::entry::made_up::{file, folder};
    use super::super::ours;
    use super::*;
    use crate::encryption_config::Level;
    use crate::member_lock::MemberLock;
    use crate::notes::NotesFile;

    /// A folder with everything that the program ever makes in it.
    async fn used() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let keyring = dir.path().join("keyring");
        let storage = FileStorage::new(&keyring, Durability::Memory);
        let root = test_root();
        store::init(&storage, &[&*root], "", NOW).await.unwrap();
        let mark = MarkFile::beside(&keyring);
        let keystore = Keystore::new(Box::new(storage), vec![root], Some(mark));
        keystore.sync(NOW).await.unwrap();
        rotate(&keystore).await;
        let record = member_record("cp1.example", NOW);
        keystore.put_member(&record).await.unwrap();
        drop(MemberLock::take(&keyring).unwrap());
        NotesFile::beside(&keyring).backed_up(1, NOW).unwrap();
        dir
    }

    #[tokio::test]
    async fn every_file_that_the_program_makes_is_known() {
        let dir = used().await;
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "keyring",
            "keyring.1",
            "keyring.2",
            "keyring.lock",
            "keyring.mark",
            "keyring.mark.lock",
            "member.lock",
            MEMBERS,
            "notes.json",
        ];
        assert_eq!(names, expected);
        // The keyring has a line of its own.
        for name in &names[1..] {
            assert!(made_beside(name, "keyring").is_some(), "{name}");
        }
        let found = items(&dir.path().join("keyring"), ours());
        let good = format!(
            "beside the keyring: 9 files of its own, of {}",
            user(ours())
        );
        assert_eq!(found, [Item::ok(good)]);
    }

    #[test]
    fn what_a_killed_writer_left_is_known_and_what_is_not_ours_is_not() {
        let made = |name: &str| made_beside(name, "keyring").is_some();
        for name in [
            "keyring.new",
            "keyring.mark.new",
            "keyring.12.new",
            "notes.json.new",
        ] {
            assert!(made(name), "{name}");
        }
        for name in [
            "keyring",
            "config.yaml",
            "root.key",
            "keyring.old",
            "keyring.bak.1",
            "kms.sock",
        ] {
            assert!(!made(name), "{name}");
        }
        assert!(made_in_members("cp1.json.new").is_some());
        assert!(made_in_members("cp1.txt").is_none());
    }

    #[test]
    fn each_belongs_to_the_plugin_and_nobody_else_may_change_it() {
        const PLUGIN: u32 = 970;
        let judged = |entry, kind| {
            let item = judge(entry, kind, Path::new("/k/f"), PLUGIN);
            item.map_or(Level::Ok, |item| item.level)
        };
        for entry in [file(PLUGIN, 0o600), file(PLUGIN, 0o640)] {
            assert_eq!(judged(entry, Kind::File), Level::Ok, "{entry:?}");
        }
        assert_eq!(judged(folder(PLUGIN, 0o755), Kind::Directory), Level::Ok);
        for (entry, kind) in [
            (file(0, 0o600), Kind::File),
            (file(PLUGIN, 0o620), Kind::File),
            (folder(PLUGIN, 0o700), Kind::File),
            (file(PLUGIN, 0o600), Kind::Directory),
            (folder(0, 0o700), Kind::Directory),
        ] {
            assert_eq!(judged(entry, kind), Level::Bad, "{entry:?}");
        }
    }

    #[tokio::test]
    async fn one_that_the_plugin_cannot_open_has_a_line_of_its_own() {
        let dir = used().await;
        let found = items(&dir.path().join("keyring"), ours() + 1);
        let levels: Vec<_> = found.iter().map(|item| item.level).collect();
        assert_eq!(levels, [Level::Bad; 9]);
        let record = dir.path().join("members/cp1.example.json");
        let shown = record.to_str().unwrap();
        assert!(
            found.iter().any(|item| item.text.contains(shown)),
            "{found:#?}"
        );
    }
}
