//! Replacing a small file so that after a crash at any moment the old or the new one is there,
//! whole.
//!
//! ```text
//! temp file (O_EXCL, the old one's owner and mode) → write → fsync → read back → [keep the old one]
//! → rename over the old one → fsync the folder
//! ```
//!
//! A failed fsync is never tried again on the same descriptor: Linux marks the pages clean after a
//! failure, so a second one would lie.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid};

use crate::error::StorageError;

/// How long another process's commit is waited for, and how often it is looked for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Read and written by its owner alone.
pub(crate) const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A new file that is written but not yet in its place; dropped, it is removed.
pub(crate) struct Replacement<'a> {
    target: &'a Path,
    temp: PathBuf,
    placed: bool,
}

/// Reads a whole file of at most `max` bytes, never through a symbolic link.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, StorageError> {
    open_and_read(path, max, |_| Ok(())).map(|(_, bytes)| bytes)
}

/// As [`read`] where `check` passes, and makes what was read durable: whoever put it there may not
/// have synced it.
pub(crate) fn read_synced(
    path: &Path,
    max: u64,
    check: impl FnOnce(&Metadata) -> Result<(), StorageError>,
) -> Result<Vec<u8>, StorageError> {
    // The file that was read is synced, whatever lies under its name by now.
    let (file, bytes) = open_and_read(path, max, check)?;
    file.sync_all().map_err(io_error("syncing", path))?;
    sync_folder(path).map_err(io_error("syncing the folder of", path))?;
    Ok(bytes)
}

/// Everything is asked of the open file: under its name another one may lie a moment later.
fn open_and_read(
    path: &Path,
    max: u64,
    check: impl FnOnce(&Metadata) -> Result<(), StorageError>,
) -> Result<(File, Vec<u8>), StorageError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => {
            return Err(StorageError::Missing(path.display().to_string()));
        }
        Err(rustix::io::Errno::LOOP) => return Err(is_a_link(path)),
        Err(e) => return Err(io_error("opening", path)(e.into())),
    };
    let metadata = file.metadata().map_err(io_error("reading", path))?;
    if !metadata.is_file() {
        return Err(StorageError::Unsafe {
            path: path.to_owned(),
            cause: "it is not a regular file; name one".to_owned(),
        });
    }
    check(&metadata)?;
    // One byte more than allowed is enough for the reader to refuse it.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(max) + 1).unwrap_or(0));
    (&file)
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("reading", path))?;
    Ok((file, bytes))
}

/// Makes a file that does not exist yet, durably; one that exists is left alone.
pub fn create(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), StorageError> {
    Replacement::write(path, bytes, mode)?.place_where_nothing_is()
}

/// Replaces the file, or makes it, with the old one's owner and mode.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    Replacement::write(path, bytes, PRIVATE)?.place()
}

/// Makes a folder, durably, for its owner alone, who is that of the folder above. One that exists
/// keeps its mode; but one that a killed command of root made goes to that owner now.
pub(crate) fn create_folder(path: &Path) -> Result<(), StorageError> {
    let making = |e: rustix::io::Errno| io_error("making", path)(e.into());
    let made = match rustix::fs::mkdir(path, Mode::RWXU) {
        Err(rustix::io::Errno::EXIST) => false,
        made => made.map(|()| true).map_err(making)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(making)?);
    give_to_owner_of_folder(&folder, path).map_err(io_error("setting the owner of", path))?;
    match made {
        true => sync_folder(path).map_err(io_error("syncing the folder of", path)),
        false => Ok(()),
    }
}

impl<'a> Replacement<'a> {
    /// Writes the bytes beside `target`, durably, and reads them back. `mode` is for a target that
    /// does not exist yet.
    pub(crate) fn write(target: &'a Path, bytes: &[u8], mode: Mode) -> Result<Self, StorageError> {
        let temp = temp_path(target);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&temp, flags, PRIVATE) {
            // A writer that was killed left it; the caller's lock says that no other is at work.
            Err(rustix::io::Errno::EXIST) => {
                rustix::fs::unlink(&temp).map_err(|e| io_error("removing", &temp)(e.into()))?;
                rustix::fs::open(&temp, flags, PRIVATE)
            }
            opened => opened,
        };
        let file = File::from(fd.map_err(|e| io_error("making", &temp)(e.into()))?);
        // From here on the temp file goes away on every error.
        let replacement = Self {
            target,
            temp,
            placed: false,
        };
        replacement.fill(file, bytes, mode)?;
        Ok(replacement)
    }

    fn fill(&self, mut file: File, bytes: &[u8], mode: Mode) -> Result<(), StorageError> {
        let temp = &self.temp;
        keep_owner_and_mode(&file, self.target, mode)
            .map_err(io_error("setting the owner of", temp))?;
        file.write_all(bytes).map_err(io_error("writing", temp))?;
        file.sync_all().map_err(io_error("syncing", temp))?;
        if read(temp, bytes.len() as u64)? != bytes {
            return Err(StorageError::ReadBack(temp.clone()));
        }
        Ok(())
    }

    /// Renames the new file over the old one and makes the folder durable.
    pub(crate) fn place(mut self) -> Result<(), StorageError> {
        rustix::fs::rename(&self.temp, self.target)
            .map_err(|e| io_error("renaming over", self.target)(e.into()))?;
        self.placed = true;
        self.sync()
    }

    /// As [`Replacement::place`], but refused by the kernel where the target exists.
    pub(crate) fn place_where_nothing_is(mut self) -> Result<(), StorageError> {
        let (from, to) = (&self.temp, self.target);
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            to,
            RenameFlags::NOREPLACE,
        )
        .map_err(|e| io_error("making", to)(e.into()))?;
        self.placed = true;
        self.sync()
    }

    fn sync(&self) -> Result<(), StorageError> {
        sync_folder(self.target).map_err(|source| StorageError::DurabilityUnknown {
            path: self.target.to_owned(),
            source,
        })
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing more can be done about a temp file that stays; the next writer removes it.
            let _ = rustix::fs::unlink(&self.temp);
        }
    }
}

/// Taken for as long as the value lives. The file stays: removing it would let two in.
///
/// Who holds it is in a commit, which takes as long as a few fsyncs; so it is waited for. That it
/// is held says nothing about who will have been first.
pub(crate) fn lock(path: &Path) -> Result<File, StorageError> {
    let file = open_lock(path).map_err(io_error("opening", path))?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(e) => return Err(io_error("locking", path)(e.into())),
        }
    }
}

/// Opens the file of a lock, or makes it. A command run by root makes one that the plugin can open.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, PRIVATE) {
        Ok(made) => {
            let file = File::from(made);
            give_to_owner_of_folder(&file, path)?;
            Ok(file)
        }
        Err(rustix::io::Errno::EXIST) => Ok(rustix::fs::open(path, flags, PRIVATE)?.into()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a file, durably.
pub(crate) fn remove(path: &Path) -> Result<(), StorageError> {
    std::fs::remove_file(path).map_err(io_error("removing", path))?;
    sync_folder(path).map_err(io_error("syncing the folder of", path))
}

/// Makes the folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `NAME.SUFFIX` in the same folder.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io {
        doing,
        path,
        source,
    }
}

/// Two writers never share it: they hold the file's lock, or are the only ones by design.
fn temp_path(target: &Path) -> PathBuf {
    beside(target, "new")
}

/// Gives the new file the old one's owner and mode, so that a command run by root changes neither;
/// where there is no old one, the folder's owner and the mode `new`.
fn keep_owner_and_mode(file: &File, target: &Path, new: Mode) -> io::Result<()> {
    let (owner, mode) = match rustix::fs::statat(rustix::fs::CWD, target, AtFlags::SYMLINK_NOFOLLOW)
    {
        Ok(old) => (
            old,
            Mode::from_raw_mode(old.st_mode) & Mode::from_raw_mode(0o7777),
        ),
        Err(rustix::io::Errno::NOENT) => (rustix::fs::stat(folder_of(target))?, new),
        Err(e) => return Err(e.into()),
    };
    let ours = rustix::fs::fstat(file)?;
    if (ours.st_uid, ours.st_gid) != (owner.st_uid, owner.st_gid) {
        give_to(file, &owner)?;
    }
    // After the owner: changing it clears some bits.
    Ok(rustix::fs::fchmod(file, mode)?)
}

/// For a new file that is not replaced later.
pub(crate) fn give_to_owner_of_folder(file: &File, path: &Path) -> io::Result<()> {
    let (ours, owner) = (rustix::fs::fstat(file)?, rustix::fs::stat(folder_of(path))?);
    match (ours.st_uid, ours.st_gid) == (owner.st_uid, owner.st_gid) {
        true => Ok(()),
        false => give_to(file, &owner),
    }
}

fn give_to(file: &File, owner: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    match rustix::fs::fchown(file, Some(uid), Some(gid)) {
        // Only root may give files away; the folder's owner is a courtesy then, not a need.
        Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        given => Ok(given?),
    }
}

fn is_a_link(path: &Path) -> StorageError {
    StorageError::Unsafe {
        path: path.to_owned(),
        cause: "it is a symbolic link; name the file itself".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(read(&path, 10).unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temp file stays"
        );
    }

    #[test]
    fn a_temp_file_that_a_killed_writer_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(temp_path(&path), "torn").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"whole");
    }

    #[test]
    fn links_and_folders_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        for name in ["link", "."] {
            let refused = read(&dir.path().join(name), 10).unwrap_err();
            assert!(
                matches!(refused, StorageError::Unsafe { .. }),
                "{name}: {refused}"
            );
        }
        assert!(matches!(
            read(&dir.path().join("none"), 10),
            Err(StorageError::Missing(_))
        ));
    }

    #[test]
    fn no_more_is_read_than_the_limit_and_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 100]).unwrap();
        assert_eq!(read(&path, 10).unwrap().len(), 11);
    }
}
