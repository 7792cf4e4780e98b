//! A loopback port for a server that cannot choose one by itself.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port that nobody else is given while this lives. A socket that never listens holds it, so the
/// server must be told to share it (SO_REUSEPORT); only our own user's processes could.
pub(crate) struct Port {
    number: u16,
    _held: OwnedFd,
}

impl Port {
    /// Takes one that is free.
    pub(crate) fn reserve() -> Self {
        let held = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        sockopt::set_socket_reuseport(&held, true).unwrap();
        bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddr::try_from(getsockname(&held).unwrap()).unwrap();
        Self {
            number: address.port(),
            _held: held,
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
