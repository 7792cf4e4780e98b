//! The listening socket: a file in a safe directory, an abstract name, or one that systemd passed.
//!
//! ```text
//! /run/claviger/      ours or root's, nobody else may write, no symbolic link on the way
//!   .kms.sock.lock    held as long as the process lives, never removed: it decides who serves
//!   .kms.sock.new     bound, given its mode and group, made to listen …
//!   kms.sock          … and renamed over whatever a crash left behind
//! ```
//!
//! No moment passes in which the name is absent, or in which a socket with the wrong mode has it.

mod error;
mod place;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::{ServerConfig, SocketAddress};
pub use error::SocketError;
use place::Place;

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 128;

/// A socket that listens. Dropped, it removes its file if that is still its own.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// Present where the socket is a file that we made.
    place: Option<Place>,
}

impl Socket {
    /// Takes the socket that systemd passed, or else makes one. Reads and clears systemd's
    /// environment variables, so it is to be called before there are threads.
    pub fn open(config: &ServerConfig) -> Result<Self, SocketError> {
        match passed_by_systemd()? {
            Some(listener) => Ok(Self {
                listener,
                place: None,
            }),
            None => Self::make(config),
        }
    }

    /// Makes the socket.
    pub fn make(config: &ServerConfig) -> Result<Self, SocketError> {
        match &config.socket {
            SocketAddress::Abstract(name) => Ok(Self {
                listener: listen_on_abstract(name)?,
                place: None,
            }),
            SocketAddress::Path(path) => {
                let (place, listener) = Place::occupy(path, config)?;
                Ok(Self {
                    listener,
                    place: Some(place),
                })
            }
        }
    }

    /// Makes the socket file again if somebody removed it, or its directory. Says whether the
    /// listener is another one now.
    pub(super) fn restore(&mut self) -> Result<bool, SocketError> {
        let Some(place) = self.place.as_mut().filter(|place| place.is_deserted()) else {
            return Ok(false);
        };
        self.listener = place.occupy_again()?;
        Ok(true)
    }

    /// A second handle of the listener, for the runtime.
    pub(super) fn listener(&self) -> std::io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

fn passed_by_systemd() -> Result<Option<UnixListener>, SocketError> {
    let mut passed = ListenFd::from_env();
    let refused = |why: String| SocketError::Passed(why);
    match passed.len() {
        0 => Ok(None),
        1 => {
            let listener = passed
                .take_unix_listener(0)
                .map_err(|e| refused(e.to_string()))?;
            let Some(listener) = listener else {
                return Ok(None);
            };
            let listens = rustix::net::sockopt::socket_acceptconn(&listener);
            if !listens.map_err(|e| refused(e.to_string()))? {
                return Err(refused("it does not listen".to_owned()));
            }
            listener
                .set_nonblocking(true)
                .map_err(|e| refused(e.to_string()))?;
            Ok(Some(listener))
        }
        several => Err(refused(format!(
            "{several} sockets were passed; one is served"
        ))),
    }
}

fn listen_on_abstract(name: &str) -> Result<UnixListener, SocketError> {
    let shown = || PathBuf::from(format!("@{name}"));
    let failed = SocketError::io("listening on", shown());
    let socket = stream_socket().map_err(&failed)?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(&failed)?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => return Err(SocketError::AlreadyRunning(shown())),
        bound => bound.map_err(&failed)?,
    }
    start_listening(&socket).map_err(&failed)?;
    Ok(socket.into())
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn start_listening(socket: impl AsFd) -> rustix::io::Result<()> {
    rustix::net::listen(socket, BACKLOG)
}
