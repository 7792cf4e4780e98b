//! Rows 54 to 61: what lies at the socket's path, who else wants it, and whoever removes it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use claviger::config::{ServerConfig, SocketAddress};
use claviger::server::socket::{Socket, SocketError};
use tempfile::{TempDir, tempdir};

use crate::plugin::{Calls, Plugin, Setup, client_of, socket_in};

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().file_type().is_socket()
}

/// A plugin on a socket that was made in this directory just now.
async fn serve_in(dir: TempDir) -> Plugin {
    let socket = Socket::make(&socket_in(dir.path())).unwrap();
    Plugin::start_on(socket, dir, Setup::default()).await
}

#[tokio::test]
async fn row_54_a_socket_that_a_crash_left_behind_is_replaced() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("kms.sock");
    // Dropping a listener closes it and leaves its file, as a kill does.
    drop(UnixListener::bind(&path).unwrap());
    drop(UnixListener::bind(dir.path().join(".kms.sock.new")).unwrap());
    assert!(client_of(&path).await.is_err());
    let plugin = serve_in(dir).await;
    plugin.client().await.answer_status().await;
    assert!(!plugin.dir().join(".kms.sock.new").exists());
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_55_a_second_server_on_the_same_path_leaves_the_first_alone() {
    let plugin = Plugin::start().await;
    let inode = fs::metadata(plugin.path()).unwrap().ino();
    let second = Socket::make(&socket_in(plugin.dir())).unwrap_err();
    assert_eq!(second, SocketError::AlreadyRunning(plugin.path()));
    assert!(second.to_string().starts_with("already running"));
    assert_eq!(fs::metadata(plugin.path()).unwrap().ino(), inode);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_55_two_paths_in_one_directory_do_not_collide() {
    let plugin = Plugin::start().await;
    let other = SocketAddress::Path(plugin.dir().join("other.sock"));
    let config = ServerConfig {
        socket: other,
        ..socket_in(plugin.dir())
    };
    let second = Socket::make(&config).unwrap();
    plugin.client().await.answer_status().await;
    drop(second);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_56_a_symlink_at_the_path_is_replaced_and_its_target_untouched() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
    symlink(&target, dir.path().join("kms.sock")).unwrap();
    let plugin = serve_in(dir).await;
    assert!(is_socket(&plugin.path()));
    plugin.client().await.answer_status().await;
    let target = plugin.dir().join("target");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(mode_of(&target), 0o640);
    plugin.ends_unharmed().await;
}

#[test]
fn row_57_a_file_or_a_directory_at_the_path_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("kms.sock");
    fs::write(&path, "precious").unwrap();
    let refused = Socket::make(&socket_in(dir.path())).unwrap_err();
    assert_eq!(refused, SocketError::Occupied(path.clone()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refused = Socket::make(&socket_in(dir.path())).unwrap_err();
    assert_eq!(refused, SocketError::Occupied(path.clone()));
    assert!(path.is_dir());
}

#[test]
fn row_58_a_directory_that_others_may_write_to_is_refused() {
    let dir = tempdir().unwrap();
    for mode in [0o770, 0o707, 0o1777] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        let refused = Socket::make(&socket_in(dir.path())).unwrap_err();
        let path = dir.path().to_owned();
        assert_eq!(refused, SocketError::DirectoryMode { path, mode });
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing was made there"
        );
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    Socket::make(&socket_in(dir.path())).unwrap();
}

#[test]
fn row_58_a_symlink_on_the_way_is_refused() {
    let dir = tempdir().unwrap();
    fs::create_dir_all(dir.path().join("real/inner")).unwrap();
    symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
    for way in ["link", "link/inner"] {
        let refused = Socket::make(&socket_in(&dir.path().join(way))).unwrap_err();
        assert_eq!(refused, SocketError::Symlink(dir.path().join("link")));
    }
    let missing = dir.path().join("real/none");
    let refused = Socket::make(&socket_in(&missing)).unwrap_err();
    assert_eq!(refused, SocketError::DirectoryMissing(missing));
    fs::write(dir.path().join("file"), "").unwrap();
    let refused = Socket::make(&socket_in(&dir.path().join("file"))).unwrap_err();
    assert_eq!(refused, SocketError::NotADirectory(dir.path().join("file")));
}

fn quick_check() -> Setup {
    Setup::limits(|limits| limits.socket_check = Duration::from_millis(20))
}

#[tokio::test]
async fn row_59_a_deleted_socket_file_is_made_again() {
    let plugin = Plugin::start_with(quick_check()).await;
    let mut live = plugin.client().await;
    for times in 1..=3 {
        fs::remove_file(plugin.path()).unwrap();
        plugin.heard(|tally| tally.restored == times).await;
        assert_eq!(mode_of(&plugin.path()), 0o600);
        plugin.client().await.answer_status().await;
        live.answer_status().await;
    }
    drop(live);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_59_a_socket_whose_directory_was_deleted_is_made_again_with_it() {
    let dir = tempdir().unwrap();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let socket = Socket::make(&socket_in(&inner)).unwrap();
    let plugin = Plugin::start_on(socket, dir, quick_check()).await;
    let path = inner.join("kms.sock");
    let mut live = client_of(&path).await.unwrap();
    fs::remove_dir_all(&inner).unwrap();
    live.answer_status().await;
    fs::create_dir(&inner).unwrap();
    plugin.heard(|tally| tally.restored == 1).await;
    client_of(&path).await.unwrap().answer_status().await;
    live.answer_status().await;
    // The new directory is locked as the old one was.
    let second = Socket::make(&socket_in(&inner)).unwrap_err();
    assert_eq!(second, SocketError::AlreadyRunning(path.clone()));
    drop(live);
    plugin.stop();
    plugin.stopped().await;
    assert!(!path.exists());
}

#[test]
fn row_61_a_path_of_107_bytes_is_served_and_one_of_108_refused() {
    let dir = tempdir().unwrap();
    let in_dir = |len: usize| {
        let filler = len - dir.path().as_os_str().len() - "//kms.sock".len();
        let inner = dir.path().join("d".repeat(filler));
        fs::create_dir(&inner).unwrap();
        socket_in(&inner)
    };
    let longest = in_dir(107);
    let SocketAddress::Path(path) = &longest.socket else {
        unreachable!()
    };
    let socket = Socket::make(&longest).unwrap();
    std::os::unix::net::UnixStream::connect(path).unwrap();
    drop(socket);
    assert!(matches!(
        Socket::make(&in_dir(108)),
        Err(SocketError::TooLong(_))
    ));
}

#[test]
fn mode_and_group_are_the_configured_ones() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("kms.sock");
    let gid = rustix::process::getegid().as_raw();
    let config = ServerConfig {
        mode: 0o660,
        group: Some(gid.to_string()),
        ..socket_in(dir.path())
    };
    let socket = Socket::make(&config).unwrap();
    assert_eq!(mode_of(&path), 0o660);
    assert_eq!(fs::metadata(&path).unwrap().gid(), gid);
    drop(socket);
    assert!(!path.exists());
    let config = ServerConfig {
        group: Some("no-such-group".to_owned()),
        ..config
    };
    let refused = Socket::make(&config).unwrap_err();
    assert_eq!(
        refused,
        SocketError::UnknownGroup("no-such-group".to_owned())
    );
}

#[test]
fn the_end_removes_the_socket_file_only_if_it_is_its_own() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("kms.sock");
    let socket = Socket::make(&socket_in(dir.path())).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let _somebody_elses = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(is_socket(&path));
    assert!(
        dir.path().join(".kms.sock.lock").exists(),
        "the lock file stays for ever"
    );
}

#[tokio::test]
async fn an_abstract_socket_is_served_to_allowed_uids_once() {
    // Unique among processes and tests; nothing is left of it when the listener closes.
    let name = format!("claviger-test-{}", std::process::id());
    let dir = tempdir().unwrap();
    let socket = SocketAddress::Abstract(name.clone());
    let config = ServerConfig {
        socket,
        ..socket_in(dir.path())
    };
    let listening = Socket::make(&config).unwrap();
    let second = Socket::make(&config).unwrap_err();
    assert_eq!(
        second,
        SocketError::AlreadyRunning(format!("@{name}").into())
    );
    let plugin = Plugin::start_on(listening, dir, Setup::default()).await;
    let mut client = client_of(Path::new(&format!("\0{name}"))).await.unwrap();
    client.answer_status().await;
    drop(client);
    plugin.stop();
    plugin.stopped().await;
    Socket::make(&config).unwrap();
}
