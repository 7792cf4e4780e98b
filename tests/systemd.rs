//! Under systemd: a socket that it holds, and what it is told. systemd itself is not needed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "common/process.rs"]
mod process;
#[path = "common/serve.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod serve;
#[path = "common/web.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod web;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use claviger::client::{Client, Endpoint};
use rustix::process::Signal;

use process::{PATIENCE, Process, command, folder};
use serve::Claviger;

/// Starts the plugin with a listening socket as systemd passes it: as descriptor 3.
fn serve_on(listener: &UnixListener, dir: &Path) -> Claviger {
    const PASS: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut serve = command("sh");
    serve.args([
        "-c",
        PASS,
        "sh",
        env!("CARGO_BIN_EXE_claviger"),
        "serve",
        "--dev",
        "--dir",
    ]);
    serve
        .arg(dir)
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    Claviger::started(dir, Process::start("claviger", serve)).ready()
}

// The client must be able to hang up while the test waits for the plugin's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_socket_that_systemd_holds_loses_no_call_while_the_plugin_is_restarted() {
    let dir = folder();
    let (path, home) = (dir.path().join("systemd.sock"), dir.path().join("claviger"));
    let listener = UnixListener::bind(&path).unwrap();
    let connect = async || {
        Client::connect(Endpoint::Path(path.clone()), PATIENCE)
            .await
            .unwrap()
    };

    let mut claviger = serve_on(&listener, &home);
    let key_id = connect().await.status().await.unwrap().key_id.clone();
    assert!(
        !home.join("kms.sock").exists(),
        "it made a socket of its own"
    );
    assert!(claviger.stop(Signal::TERM).success());
    assert!(path.exists(), "it removed a socket that is not its own");

    // Nobody serves now, and still nobody is turned away.
    let waiting = connect().await;
    let waiting = tokio::spawn(async move { waiting.status().await });
    let _claviger = serve_on(&listener, &home);
    assert_eq!(waiting.await.unwrap().unwrap().key_id, key_id);
}

/// What systemd hears.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listening_at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let len = self
            .0
            .recv(&mut message)
            .expect("systemd is told something");
        String::from_utf8(message[..len].to_vec())
            .unwrap()
            .trim_end()
            .to_owned()
    }
}

fn serve_under_systemd(notify: &Path) -> Command {
    let mut serve = command(env!("CARGO_BIN_EXE_claviger"));
    serve
        .env("NOTIFY_SOCKET", notify)
        .args(["serve", "--dev", "--dir"]);
    serve
}

#[test]
fn systemd_hears_that_we_are_ready_while_the_keyring_cannot_be_opened_and_that_we_stop() {
    let dir = folder();
    let mut claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    claviger.stop(Signal::TERM);
    let (root, away) = (claviger.dir().join("root.key"), dir.path().join("root.key"));
    fs::rename(&root, &away).unwrap();

    let notify = dir.path().join("notify");
    let systemd = Systemd::listening_at(&notify);
    let mut serve = serve_under_systemd(&notify);
    serve.arg(claviger.dir());
    let mut claviger = Claviger::started(claviger.dir(), Process::start("claviger", serve));
    assert_eq!(systemd.hears(), "READY=1");
    claviger.answers("/readyz", 503);
    fs::rename(&away, &root).unwrap();
    claviger.answers("/readyz", 200);

    assert!(claviger.stop(Signal::TERM).success());
    assert_eq!(systemd.hears(), "STOPPING=1");
}

#[test]
fn systemd_s_watchdog_is_fed() {
    let dir = folder();
    let notify = dir.path().join("notify");
    let systemd = Systemd::listening_at(&notify);
    let mut serve = serve_under_systemd(&notify);
    serve
        .arg(dir.path().join("claviger"))
        .env("WATCHDOG_USEC", "100000");
    let _claviger = Process::start("claviger", serve);
    let mut heard: Vec<_> = (0..4).map(|_| systemd.hears()).collect();
    heard.sort_unstable();
    assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
}
