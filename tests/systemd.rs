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

const AUDIT: &str = include_str!("../deploy/systemd/claviger-audit.service");
const TIMER: &str = include_str!("../deploy/systemd/claviger-audit.timer");

/// The values of a directive of the audit's unit.
fn of_audit(directive: &str) -> Vec<&'static str> {
    let lines = AUDIT.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == directive)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_audit_on_a_timer_is_a_command_that_we_have_and_fails_by_all_but_an_answer() {
    let [line] = of_audit("ExecStart")[..] else {
        panic!("one ExecStart")
    };
    let words: Vec<_> = line.split(' ').collect();
    let ["/usr/local/bin/claviger", args @ .., page] = &words[..] else {
        panic!("{line}")
    };
    let folder_of_page = Path::new(page).parent().unwrap().to_str().unwrap();
    assert_eq!(of_audit("ReadWritePaths"), [folder_of_page]);
    assert!(include_str!("../deploy/RUNBOOK.md").contains(page));

    let dir = folder();
    let output = command(env!("CARGO_BIN_EXE_claviger"))
        .args(args)
        .arg(dir.path().join("claviger.prom"))
        .args(["--endpoints", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // etcd is not there, and nothing else is wrong; cli/failure.rs has the codes.
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(of_audit("SuccessExitStatus"), ["3"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What the audit needs, and the plugin does not: files of several users, and etcd.
const OPENED: [&str; 5] = [
    "CapabilityBoundingSet=",
    "PrivateUsers=yes",
    "IPAddressDeny=any",
    "IPAddressAllow=localhost",
    "SocketBindAllow=tcp:9465",
];

#[test]
fn the_audit_is_as_shut_in_as_the_plugin() {
    let plugin = include_str!("../deploy/systemd/claviger.service");
    let (_, walls) = plugin.split_once("# Nothing else of the host.\n").unwrap();
    let (walls, _) = walls.split_once("[Install]").unwrap();
    let walls: Vec<_> = walls.lines().filter(|line| line.contains('=')).collect();
    assert!(walls.len() > 20, "{walls:?}");
    for wall in walls {
        let stands = AUDIT.lines().any(|line| line == wall);
        assert_eq!(stands, !OPENED.contains(&wall), "{wall}");
    }
    assert_eq!(of_audit("CapabilityBoundingSet"), ["CAP_DAC_OVERRIDE"]);
}

/// systemd's own verdicts. Says loudly that it was not asked where it is not installed.
#[test]
fn systemd_accepts_the_audit_and_its_timer() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("NOT TESTED: systemd-analyze is not installed");
        return;
    }
    let dir = folder();
    let service = dir.path().join("claviger-audit.service");
    let timer = dir.path().join("claviger-audit.timer");
    // It looks whether the program is there.
    let unit = AUDIT.replace("/usr/local/bin/claviger", env!("CARGO_BIN_EXE_claviger"));
    fs::write(&service, unit).unwrap();
    fs::write(&timer, TIMER).unwrap();
    let analyzed = |args: &[&str], paths: &[&Path]| {
        let mut analyze = command("systemd-analyze");
        let output = analyze.args(args).args(paths).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = analyzed(&["verify"], &[&service, &timer]);
    // It is content with directives that it does not know, but for a line about each.
    assert!(!said.contains("claviger-audit"), "{said}");
    // In tenths: an exposure of at most 2.0, of 10.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    analyzed(&security, &[&service]);
}
