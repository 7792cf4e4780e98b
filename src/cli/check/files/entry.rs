//! What lies at a path: its kind, its owner, who else may touch it.

use std::fmt;
use std::fs::{self, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a directory entry is, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) len: u64,
    /// How many names the file has.
    pub(super) links: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Socket,
    Other,
}

impl Entry {
    /// Looks at the entry itself, not at what a link leads to. None if nothing is there.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

impl From<&Metadata> for Entry {
    fn from(metadata: &Metadata) -> Self {
        Self {
            kind: Kind::from(metadata.file_type()),
            uid: metadata.uid(),
            mode: metadata.mode() & 0o7777,
            len: metadata.len(),
            links: metadata.nlink(),
        }
    }
}

impl From<FileType> for Kind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            t if t.is_file() => Self::File,
            t if t.is_dir() => Self::Directory,
            t if t.is_symlink() => Self::Link,
            t if t.is_socket() => Self::Socket,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Entry {
    /// "claviger, 0400".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:04o}", user(self.uid), self.mode)
    }
}

/// A user's name, or its number.
pub(super) fn user(uid: u32) -> String {
    uzers::get_user_by_uid(uid).map_or_else(
        || format!("uid {uid}"),
        |user| user.name().to_string_lossy().into_owned(),
    )
}

/// Entries as tests want them.
#[cfg(test)]
pub(super) mod made_up {
    use super::{Entry, Kind};

    pub(in super::super) fn file(uid: u32, mode: u32) -> Entry {
        Entry {
            kind: Kind::File,
            uid,
            mode,
            len: 32,
            links: 1,
        }
    }

    pub(in super::super) fn folder(uid: u32, mode: u32) -> Entry {
        Entry {
            kind: Kind::Directory,
            ..file(uid, mode)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_directories_and_sockets_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(dir.path(), at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::write(at("file"), [0; 32]).unwrap();
        fs::hard_link(at("file"), at("second")).unwrap();
        let kind = |name: &str| Entry::at(&at(name)).unwrap().map(|entry| entry.kind);
        assert_eq!(kind("link"), Some(Kind::Link));
        assert_eq!(kind("socket"), Some(Kind::Socket));
        assert_eq!(kind("."), Some(Kind::Directory));
        assert_eq!(kind("none"), None);
        let entry = Entry::at(&at("file")).unwrap().unwrap();
        assert_eq!(
            (entry.kind, entry.len, entry.links, entry.uid),
            (Kind::File, 32, 2, super::super::ours())
        );
    }
}
