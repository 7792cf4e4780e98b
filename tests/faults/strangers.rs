//! Rows 47, 51, 52 and 58 as other users of the host. Only root can take their part: without it these
//! tests say that they were not run.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use claviger::observer::Rejection;
use claviger::server::socket::{Socket, SocketError};
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::frames::{PING, PREFACE, SETTINGS, frame, next_frame};
use crate::plugin::{Plugin, Setup, own_uid, socket_in, until_closed};

/// Nobody's, on any host that these tests run on; nothing is done with it but to connect.
const OTHER: u32 = 54_321;
/// How the kernel shows a user that has no uid here; `nobody` has the same.
const OVERFLOW: u32 = 65_534;

/// Whether this process can act as others.
fn is_root() -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if !geteuid().is_root() {
        // A closed stderr must not fail a test.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: it needs root");
    }
    geteuid().is_root()
}

/// A plugin whose socket everybody may open, and for these users.
async fn plugin_for(allowed_uids: &[u32], connections: usize) -> Plugin {
    let dir = tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    let mut server = socket_in(dir.path());
    server.mode = 0o666;
    let mut setup = Setup::limits(|limits| limits.connections = connections);
    setup.allowed_uids = allowed_uids.to_vec();
    Plugin::start_on(Socket::make(&server).unwrap(), dir, setup).await
}

/// A connection that this user has made.
async fn connect_as(uid: u32, path: &Path) -> UnixStream {
    let path = path.to_owned();
    // The kernel keeps users by thread, and this one ends with it.
    let connecting = std::thread::spawn(move || {
        set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
        std::os::unix::net::UnixStream::connect(path).unwrap()
    });
    let stream = connecting.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

/// Whether the plugin speaks HTTP/2 on this connection.
async fn is_served(stream: &mut UnixStream) -> bool {
    // It may be closed before we say a word.
    let _ = stream.write_all(PREFACE).await;
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    let _ = stream.write_all(&frame(PING, 0, 0, &[0; 8])).await;
    next_frame(stream).await.is_some()
}

#[tokio::test]
async fn row_47_a_flood_of_one_user_leaves_a_connection_for_another() {
    if !is_root() {
        return;
    }
    let plugin = plugin_for(&[own_uid(), OTHER], 4).await;
    let mut flood = Vec::new();
    for _ in 0..10 {
        let mut stream = connect_as(OTHER, &plugin.path()).await;
        if is_served(&mut stream).await {
            flood.push(stream);
        }
    }
    assert_eq!(flood.len(), 3, "of four, one is kept for the other user");
    let mut own = plugin.connect().await;
    assert!(is_served(&mut own).await);
    assert!(!is_served(&mut plugin.connect().await).await);
    drop((flood, own));
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.rejections, [Rejection::Capacity; 8]);
}

#[tokio::test]
async fn row_51_another_user_is_closed_before_any_http2() {
    if !is_root() {
        return;
    }
    let plugin = plugin_for(&[own_uid()], 4).await;
    let mut stream = connect_as(OTHER, &plugin.path()).await;
    let _ = stream.write_all(PREFACE).await;
    assert_eq!(until_closed(&mut stream).await, b"");
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.rejections, [Rejection::Uid]);
}

#[tokio::test]
async fn row_52_a_user_who_is_unknown_here_is_denied_whatever_is_allowed() {
    if !is_root() {
        return;
    }
    let plugin = plugin_for(&[own_uid(), OVERFLOW], 4).await;
    let mut stream = connect_as(OVERFLOW, &plugin.path()).await;
    let _ = stream.write_all(PREFACE).await;
    assert_eq!(until_closed(&mut stream).await, b"");
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.rejections, [Rejection::UnknownUid]);
}

#[test]
fn row_58_a_directory_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    let path = dir.path().to_owned();
    std::os::unix::fs::chown(&path, Some(OTHER), None).unwrap();
    let refused = Socket::make(&socket_in(&path)).unwrap_err();
    let made = fs::read_dir(&path).unwrap().count();
    assert_eq!(
        (refused, made),
        (SocketError::DirectoryOwner { path, uid: OTHER }, 0)
    );
    std::os::unix::fs::chown(dir.path(), Some(own_uid()), None).unwrap();
    Socket::make(&socket_in(dir.path())).unwrap();
}
