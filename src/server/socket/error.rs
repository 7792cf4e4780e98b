//! Why there is no socket.

use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// Why the socket could not be made. Its text says what was wrong, [`SocketError::advice`] what
/// helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SocketError {
    /// Not a plain absolute path.
    #[error("{path} is no absolute path without `..`", path = .0.display())]
    NotPlain(PathBuf),
    /// Longer than the kernel's address of a unix socket.
    #[error(
        "{path} is too long: a socket's path has at most 107 bytes, its last part at most 80",
        path = .0.display()
    )]
    TooLong(PathBuf),
    /// No such directory.
    #[error("the directory {path} does not exist", path = .0.display())]
    DirectoryMissing(PathBuf),
    /// Not a directory.
    #[error("{path} is not a directory", path = .0.display())]
    NotADirectory(PathBuf),
    /// Whoever may change the link decides where the socket is.
    #[error("{path} is a symbolic link", path = .0.display())]
    Symlink(PathBuf),
    /// Its owner could put another socket in our place.
    #[error("the directory {path} belongs to uid {uid}", path = path.display())]
    DirectoryOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others could put another socket in our place.
    #[error(
        "the directory {path} has mode {mode:04o}: others may write to it",
        path = path.display()
    )]
    DirectoryMode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something that is no socket, and that nobody meant to lose.
    #[error("{path} exists and is no socket", path = .0.display())]
    Occupied(PathBuf),
    /// Another process holds the lock, or the abstract name.
    #[error("already running: another process serves {path}", path = .0.display())]
    AlreadyRunning(PathBuf),
    /// No such group on this host.
    #[error("the group {0:?} does not exist")]
    UnknownGroup(String),
    /// systemd passed something else than one listening unix socket.
    #[error("the socket that systemd passed cannot be served: {0}")]
    Passed(String),
    /// The operating system refused.
    #[error("{doing} {path}: {errno}", path = path.display())]
    Io {
        /// The step, as a participle: "binding".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        errno: Errno,
    },
}

impl SocketError {
    /// What to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotPlain(_) | Self::TooLong(_) => {
                "set server.socket to a short absolute path such as /run/claviger/kms.sock"
            }
            Self::DirectoryMissing(_) => {
                "make it with mode 0750 (RuntimeDirectory=claviger under systemd)"
            }
            Self::NotADirectory(_) | Self::Symlink(_) => {
                "set server.socket to a path without symbolic links"
            }
            Self::DirectoryOwner { .. } => "give it to root or to the user that runs claviger",
            Self::DirectoryMode { .. } => "take the others' right away: chmod go-w",
            Self::Occupied(_) => "move it away, or set server.socket to another path",
            Self::AlreadyRunning(_) => "stop the other one, or set server.socket to another path",
            Self::UnknownGroup(_) => "make the group, or set server.group to its number",
            Self::Passed(_) => "use one ListenStream= with a path in the systemd socket unit",
            Self::Io { .. } => "see that the user that runs claviger may write to the directory",
        }
    }

    /// Turns the operating system's refusal of one step into an error.
    pub(super) fn io(doing: &'static str, path: PathBuf) -> impl Fn(Errno) -> Self {
        move |errno| Self::Io {
            doing,
            path: path.clone(),
            errno,
        }
    }
}
