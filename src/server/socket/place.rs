//! A socket file's place in its directory: the checks, the lock, the rename.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::SocketError;
use crate::config::{ServerConfig, SocketAddress};

/// A path that we serve: its directory, its lock, and the file that we made there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: OwnedFd,
    lock: Lock,
    mode: Mode,
    group: Option<Gid>,
    /// The socket file that we made.
    made: FileId,
}

impl Place {
    /// Checks the directory, takes the lock and puts a listening socket at `path`.
    pub(super) fn occupy(
        path: &Path,
        config: &ServerConfig,
    ) -> Result<(Self, UnixListener), SocketError> {
        check_path(path)?;
        let mode = Mode::from_raw_mode(config.mode);
        let group = config.group.as_deref().map(find_group).transpose()?;
        let directory = open_directory(path)?;
        let lock = Lock::take(path, &directory)?;
        let (listener, made) = put_socket(path, &directory, mode, group)?;
        Ok((
            Self {
                path: path.to_owned(),
                directory,
                lock,
                mode,
                group,
                made,
            },
            listener,
        ))
    }

    /// Whether nothing is at our path any more.
    pub(super) fn is_deserted(&self) -> bool {
        rustix::fs::lstat(&self.path).err() == Some(Errno::NOENT)
    }

    /// Puts another listening socket at our path, in a directory that may be another one now.
    pub(super) fn occupy_again(&mut self) -> Result<UnixListener, SocketError> {
        let directory = open_directory(&self.path)?;
        if !self.lock.lies_in(&directory, &self.path) {
            self.lock = Lock::take(&self.path, &directory)?;
        }
        let (listener, made) = put_socket(&self.path, &directory, self.mode, self.group)?;
        (self.directory, self.made) = (directory, made);
        Ok(listener)
    }
}

impl Drop for Place {
    /// Removes the socket file if it is still ours. The lock file stays: removing it would let two
    /// processes hold "the" lock, one on the old file and one on the new.
    fn drop(&mut self) {
        let name = file_name(&self.path);
        let found = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| FileId::of(&stat) == self.made) {
            // Nothing is lost if it stays: the next start replaces it.
            let _ = rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty());
        }
    }
}

/// What makes a file the same file under any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// The right to serve one path, held as long as this lives.
#[derive(Debug)]
struct Lock {
    /// Open, and locked by flock(2).
    _file: OwnedFd,
    id: FileId,
}

impl Lock {
    fn take(socket: &Path, directory: impl AsFd) -> Result<Self, SocketError> {
        let path = neighbour(socket, ".lock");
        let failed = SocketError::io("locking", path.clone());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, file_name(&path), flags, Mode::RUSR | Mode::WUSR)
            .map_err(&failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(SocketError::AlreadyRunning(socket.to_owned())),
            locked => locked.map_err(&failed)?,
        }
        let id = FileId::of(&rustix::fs::fstat(&file).map_err(&failed)?);
        Ok(Self { _file: file, id })
    }

    fn lies_in(&self, directory: impl AsFd, socket: &Path) -> bool {
        let name = file_name(&neighbour(socket, ".lock"));
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileId::of(&stat) == self.id)
    }
}

/// The kernel would not stop us: we bind through a descriptor, but a peer needs the whole path.
fn check_path(path: &Path) -> Result<(), SocketError> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let Some(name) = path.file_name().filter(|_| plain && path.is_absolute()) else {
        return Err(SocketError::NotPlain(path.to_owned()));
    };
    if path.as_os_str().len() > SocketAddress::MAX_LEN || name.len() > SocketAddress::MAX_NAME_LEN {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    Ok(())
}

/// Opens the socket's directory, step by step so that no symbolic link is followed, and checks that
/// nobody else can change what lies in it.
fn open_directory(socket: &Path) -> Result<OwnedFd, SocketError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut path = PathBuf::from("/");
    let mut directory = rustix::fs::openat(CWD, "/", flags, Mode::empty())
        .map_err(SocketError::io("opening", path.clone()))?;
    for part in socket.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = part else {
            continue;
        };
        path.push(name);
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())
            .map_err(|errno| why_not_opened(&path, errno))?;
    }
    let stat = rustix::fs::fstat(&directory).map_err(SocketError::io("reading", path.clone()))?;
    check_directory(
        path,
        stat.st_uid,
        stat.st_mode,
        rustix::process::geteuid().as_raw(),
    )?;
    Ok(directory)
}

fn why_not_opened(path: &Path, errno: Errno) -> SocketError {
    let is_link = || {
        rustix::fs::lstat(path)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    };
    match errno {
        Errno::NOENT => SocketError::DirectoryMissing(path.to_owned()),
        Errno::NOTDIR | Errno::LOOP if is_link() => SocketError::Symlink(path.to_owned()),
        Errno::NOTDIR => SocketError::NotADirectory(path.to_owned()),
        errno => SocketError::io("opening", path.to_owned())(errno),
    }
}

fn check_directory(path: PathBuf, uid: u32, mode: u32, our_uid: u32) -> Result<(), SocketError> {
    if uid != 0 && uid != our_uid {
        return Err(SocketError::DirectoryOwner { path, uid });
    }
    if mode & 0o022 != 0 {
        return Err(SocketError::DirectoryMode {
            path,
            mode: mode & 0o7777,
        });
    }
    Ok(())
}

/// Binds a socket beside `path`, gives it mode and group, lets it listen, and renames it to `path`.
/// The caller holds the lock, so the temporary name and a socket at `path` are leftovers.
fn put_socket(
    path: &Path,
    directory: &OwnedFd,
    mode: Mode,
    group: Option<Gid>,
) -> Result<(UnixListener, FileId), SocketError> {
    let name = file_name(path);
    let temporary_path = neighbour(path, ".new");
    let temporary = file_name(&temporary_path);
    let failed = |doing| SocketError::io(doing, temporary_path.clone());
    let remove = || match rustix::fs::unlinkat(directory, &temporary, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    };
    refuse_to_replace(path, directory)?;
    remove().map_err(failed("removing"))?;
    let bind_and_rename = || {
        let socket = super::stream_socket().map_err(failed("making"))?;
        // The path through the descriptor leads to the directory that was checked, even if its
        // name leads elsewhere by now.
        let mut bound_at = OsString::from(format!("/proc/self/fd/{}/", directory.as_raw_fd()));
        bound_at.push(&temporary);
        let address = SocketAddrUnix::new(bound_at.as_os_str()).map_err(failed("binding"))?;
        rustix::net::bind(&socket, &address).map_err(failed("binding"))?;
        rustix::fs::chmodat(directory, &temporary, mode, AtFlags::empty())
            .map_err(failed("setting the mode of"))?;
        if group.is_some() {
            rustix::fs::chownat(
                directory,
                &temporary,
                None,
                group,
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed("setting the group of"))?;
        }
        super::start_listening(&socket).map_err(failed("listening on"))?;
        let stat = rustix::fs::statat(directory, &temporary, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("reading"))?;
        rustix::fs::renameat(directory, &temporary, directory, &name)
            .map_err(failed("renaming"))?;
        Ok((socket.into(), FileId::of(&stat)))
    };
    bind_and_rename().inspect_err(|_| {
        // The first error counts; a leftover is removed at the next start.
        let _ = remove();
    })
}

/// A dead socket is replaced, and so is a symbolic link (itself, not what it points at); anything
/// else is somebody's.
fn refuse_to_replace(path: &Path, directory: &OwnedFd) -> Result<(), SocketError> {
    match rustix::fs::statat(directory, file_name(path), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SocketError::io("reading", path.to_owned())(errno)),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket | FileType::Symlink => Ok(()),
            _ => Err(SocketError::Occupied(path.to_owned())),
        },
    }
}

fn find_group(text: &str) -> Result<Gid, SocketError> {
    // The highest number means "unchanged" to chown(2).
    if let Some(number) = text.parse().ok().filter(|number| *number != u32::MAX) {
        return Ok(Gid::from_raw(number));
    }
    uzers::get_group_by_name(text)
        .map(|group| Gid::from_raw(group.gid()))
        .ok_or_else(|| SocketError::UnknownGroup(text.to_owned()))
}

/// The hidden file beside the socket that carries its name.
fn neighbour(socket: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file_name(socket));
    name.push(suffix);
    socket.with_file_name(name)
}

/// The last part of a path that has one, as [`check_path`] makes sure.
fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_58_only_our_own_or_roots_directory_will_do() {
        let check = |uid, mode| check_directory("/run/claviger".into(), uid, mode, 970);
        assert_eq!(check(970, 0o40750), Ok(()));
        assert_eq!(check(0, 0o40755), Ok(()));
        let path = || PathBuf::from("/run/claviger");
        assert_eq!(
            check(1000, 0o40700),
            Err(SocketError::DirectoryOwner {
                path: path(),
                uid: 1000
            })
        );
        for mode in [0o770, 0o707, 0o777, 0o1777] {
            assert_eq!(
                check(0, 0o40000 | mode),
                Err(SocketError::DirectoryMode { path: path(), mode })
            );
        }
    }

    #[test]
    fn row_61_a_path_over_107_bytes_is_refused() {
        let path = |len: usize| PathBuf::from(format!("/{}/kms.sock", "d".repeat(len - 10)));
        assert_eq!(check_path(&path(107)), Ok(()));
        assert_eq!(check_path(&path(108)), Err(SocketError::TooLong(path(108))));
        let last_part = |len: usize| PathBuf::from(format!("/{}", "n".repeat(len)));
        assert_eq!(check_path(&last_part(80)), Ok(()));
        assert_eq!(
            check_path(&last_part(81)),
            Err(SocketError::TooLong(last_part(81)))
        );
    }

    #[test]
    fn a_path_that_climbs_or_is_relative_is_refused() {
        for text in ["kms.sock", "/", "/run/../kms.sock", "/run/..", ""] {
            let path = PathBuf::from(text);
            assert_eq!(
                check_path(&path),
                Err(SocketError::NotPlain(path.clone())),
                "{text}"
            );
        }
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(find_group("4711"), Ok(Gid::from_raw(4711)));
        assert_eq!(find_group("root"), Ok(Gid::from_raw(0)));
        for name in ["no such group", "4294967295", "-1"] {
            assert_eq!(
                find_group(name),
                Err(SocketError::UnknownGroup(name.to_owned()))
            );
        }
    }
}
