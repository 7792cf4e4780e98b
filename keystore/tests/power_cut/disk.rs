//! A disk that keeps what was synced, and of the rest whatever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::trace::Event;

/// A folder's files by their relative paths; a folder in it has no bytes.
pub(crate) type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What lies under a name.
type Node = usize;

#[derive(Clone, Default)]
struct File {
    is_folder: bool,
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

/// A change of names that no sync of its folder has followed yet.
#[derive(Clone)]
enum Change {
    Given(PathBuf, Node),
    /// Atomic: both or neither.
    Moved(PathBuf, PathBuf, Node),
    Taken(PathBuf),
}

/// The state after some calls.
pub(crate) struct Disk {
    nodes: Vec<File>,
    durable: BTreeMap<PathBuf, Node>,
    names: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
}

impl Disk {
    /// Everything that is there is durable.
    pub(crate) fn of(files: &Files) -> Self {
        let node = |bytes: &Option<Vec<u8>>| File {
            is_folder: bytes.is_none(),
            bytes: bytes.clone().unwrap_or_default(),
            durable: bytes.clone().unwrap_or_default(),
        };
        let names: BTreeMap<_, _> = files.keys().cloned().zip(0..).collect();
        Self {
            nodes: files.values().map(node).collect(),
            durable: names.clone(),
            names,
            changes: Vec::new(),
        }
    }

    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Made(path) if self.names.contains_key(path) => {}
            Event::Made(path) => self.give(path, false),
            Event::MadeFolder(path) => self.give(path, true),
            Event::Written(path, bytes) => {
                let node = self.names[path];
                self.nodes[node].bytes.extend(bytes);
            }
            Event::Renamed(from, to) => {
                let node = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), node);
                self.changes
                    .push(Change::Moved(from.clone(), to.clone(), node));
            }
            Event::Removed(path) => {
                self.names.remove(path).unwrap();
                self.changes.push(Change::Taken(path.clone()));
            }
            Event::Synced(path) => self.sync(path),
            Event::Said(_) => {}
        }
    }

    fn give(&mut self, path: &Path, is_folder: bool) {
        let node = self.nodes.len();
        self.nodes.push(File {
            is_folder,
            ..File::default()
        });
        self.names.insert(path.to_owned(), node);
        self.changes.push(Change::Given(path.to_owned(), node));
    }

    fn sync(&mut self, path: &Path) {
        let is_folder = match self.names.get(path) {
            Some(node) if !self.nodes[*node].is_folder => {
                let file = &mut self.nodes[*node];
                file.durable = file.bytes.clone();
                false
            }
            found => found.is_some() || path.as_os_str().is_empty(),
        };
        if !is_folder {
            return;
        }
        let (synced, rest): (Vec<_>, _) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| change.folder() == Some(path));
        for change in &synced {
            change.apply(&mut self.durable);
        }
        self.changes = rest;
    }

    /// As it is while the power is on.
    pub(crate) fn now(&self) -> Files {
        self.files(&self.names, |file| file.bytes.clone())
    }

    /// Every folder that may be found if the power fails now.
    pub(crate) fn after_a_cut(&self) -> BTreeSet<Files> {
        assert!(self.changes.len() < 12, "too much is not synced");
        let mut found = BTreeSet::new();
        for kept in 0_u32..1 << self.changes.len() {
            let mut names = self.durable.clone();
            for (i, change) in self.changes.iter().enumerate() {
                if kept & 1 << i != 0 {
                    change.apply(&mut names);
                }
            }
            // Of bytes that were not synced: all, none, a half, or as many without a content.
            found.insert(self.files(&names, |file| file.bytes.clone()));
            found.insert(self.files(&names, |file| file.durable.clone()));
            found.insert(self.files(&names, |file| {
                let half = (file.durable.len() + file.bytes.len()) / 2;
                file.bytes[..half].to_vec()
            }));
            found.insert(self.files(&names, |file| {
                let mut bytes = file.durable.clone();
                bytes.resize(file.bytes.len(), 0);
                bytes
            }));
        }
        found
    }

    fn files(&self, names: &BTreeMap<PathBuf, Node>, bytes: impl Fn(&File) -> Vec<u8>) -> Files {
        let there = |path: &Path| path.as_os_str().is_empty() || names.contains_key(path);
        names
            .iter()
            .filter(|(path, _)| path.parent().is_some_and(there))
            .map(|(path, node)| {
                let file = &self.nodes[*node];
                (path.clone(), (!file.is_folder).then(|| bytes(file)))
            })
            .collect()
    }
}

impl Change {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Given(path, _) | Self::Moved(_, path, _) | Self::Taken(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Given(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Moved(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
            Self::Taken(path) => {
                names.remove(path);
            }
        }
    }
}

/// What lies in a folder.
pub(crate) fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&inside)).unwrap() {
            let path = inside.join(entry.unwrap().file_name());
            let is_folder = folder.join(&path).is_dir();
            let bytes = (!is_folder).then(|| std::fs::read(folder.join(&path)).unwrap());
            if is_folder {
                folders.push(path.clone());
            }
            files.insert(path, bytes);
        }
    }
    files
}

/// Makes a folder that holds this.
pub(crate) fn make(folder: &Path, files: &Files) {
    std::fs::create_dir(folder).unwrap();
    // A folder stands before what lies in it.
    for (path, bytes) in files {
        let path = folder.join(path);
        match bytes {
            None => std::fs::create_dir(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        let mode = if bytes.is_none() { 0o700 } else { 0o600 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
}
