//! The plugin's process, from start to end, whatever the host does to it (rows 53, 55, 62, 114, 117
//! and 119 of the list of faults).
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail, and speak, as tests do"
)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use claviger::client::{Client, Endpoint};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{NamedTempFile, TempDir};

/// Long enough for any machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin, killed at the end, and its log.
struct Plugin {
    child: Child,
    log: NamedTempFile,
}

impl Plugin {
    fn start(mut command: Command) -> Self {
        let log = NamedTempFile::new().unwrap();
        let out = || File::options().append(true).open(log.path()).unwrap();
        command.stdin(Stdio::null()).stdout(out()).stderr(out());
        let child = command.spawn().unwrap();
        Self { child, log }
    }

    /// As [`Plugin::start`], and waits until it has opened its keyring.
    fn started(command: Command) -> Self {
        let mut plugin = Self::start(command);
        let until = Instant::now() + PATIENCE;
        while !plugin.said().contains("keyring opened") {
            let ended = plugin.child.try_wait().unwrap();
            let waiting = ended.is_none() && Instant::now() < until;
            assert!(waiting, "{ended:?}: {}", plugin.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        plugin
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }
            assert!(Instant::now() < until, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn serve_command(dir: &Path) -> Command {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_claviger"));
    serve.args(["serve", "--dev", "--dir"]).arg(dir);
    serve
}

fn serve(dir: &Path) -> Plugin {
    Plugin::started(serve_command(dir))
}

async fn status_is_answered(dir: &Path) {
    let endpoint = Endpoint::Path(dir.join("kms.sock"));
    let client = Client::connect(endpoint, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(client.status().await.unwrap().healthz, "ok");
}

/// A connection that has begun HTTP/2 and then says nothing more.
fn hung_client(dir: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(dir.join("kms.sock")).unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    stream
}

#[tokio::test]
async fn row_53_a_hung_client_does_not_delay_the_end() {
    let dir = folder();
    let mut plugin = serve(dir.path());
    let _hung = hung_client(dir.path());
    let _silent = UnixStream::connect(dir.path().join("kms.sock")).unwrap();
    status_is_answered(dir.path()).await;
    let asked = Instant::now();
    plugin.signal(Signal::TERM);
    let ended = plugin.end();
    assert_eq!(ended.code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert!(!dir.path().join("kms.sock").exists());
}

#[tokio::test]
async fn row_55_a_second_plugin_on_the_same_socket_ends_and_the_first_serves_on() {
    let dir = folder();
    let _first = serve(dir.path());
    let mut second = Plugin::start(serve_command(dir.path()));
    assert_eq!(second.end().code(), Some(1));
    let said = second.said();
    assert!(
        said.contains("error: ") && said.contains("running"),
        "{said}"
    );
    status_is_answered(dir.path()).await;
}

/// A plugin that runs as a user without privileges, with the limits that `prlimit` sets. The program
/// is copied, since that user may not reach the one that was built.
fn serve_as_nobody(dir: &Path, limits: &[&str]) -> Option<Plugin> {
    const NOBODY: &str = "54321";
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root may start a plugin as somebody else");
        return None;
    }
    let program = dir.join("claviger");
    std::fs::copy(env!("CARGO_BIN_EXE_claviger"), &program).unwrap();
    let uid = NOBODY.parse().unwrap();
    std::os::unix::fs::chown(dir, Some(uid), Some(uid)).unwrap();
    let mut serve = Command::new("setpriv");
    serve
        .args([
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "--",
            "prlimit",
        ])
        .args(limits)
        .arg(program)
        .args(["serve", "--dev", "--dir"])
        .arg(dir);
    Some(Plugin::started(serve))
}

#[tokio::test]
async fn row_62_without_locked_memory_it_warns_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let Some(plugin) = serve_as_nobody(dir.path(), &["--memlock=0:0"]) else {
        return;
    };
    let said = plugin.said();
    assert!(said.contains("RLIMIT_MEMLOCK is too low"), "{said}");
    status_is_answered(dir.path()).await;
}

#[test]
fn row_117_an_abort_leaves_no_core_and_nobody_else_may_look_inside() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut plugin) = serve_as_nobody(dir.path(), &["--core=unlimited"]) else {
        return;
    };
    // The files of a process that is not dumpable belong to root (proc(5)).
    let environ = std::fs::metadata(format!("/proc/{}/environ", plugin.id())).unwrap();
    assert_eq!(environ.uid(), 0);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", plugin.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    plugin.signal(Signal::ABORT);
    let ended = plugin.end();
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!ended.core_dumped());
}

#[tokio::test]
async fn row_119_a_storm_of_signals_changes_nothing() {
    let dir = folder();
    let mut plugin = serve(dir.path());
    for _ in 0..200 {
        for signal in [
            Signal::HUP,
            Signal::USR1,
            Signal::USR2,
            Signal::PIPE,
            Signal::CHILD,
        ] {
            plugin.signal(signal);
        }
    }
    status_is_answered(dir.path()).await;
    plugin.signal(Signal::INT);
    assert_eq!(plugin.end().code(), Some(0));
}

#[tokio::test]
async fn row_114_a_killed_plugin_is_back_at_once_with_the_same_key() {
    let dir = folder();
    let client = || {
        Client::new(
            Endpoint::Path(dir.path().join("kms.sock")),
            Duration::from_secs(10),
        )
    };
    let mut plugin = serve(dir.path());
    let before = client().status().await.unwrap().key_id;
    for _ in 0..5 {
        plugin.signal(Signal::KILL);
        plugin.end();
        plugin = serve(dir.path());
        assert_eq!(client().status().await.unwrap().key_id, before);
    }
}

#[test]
fn no_secret_is_in_arguments_or_environment() {
    let dir = folder();
    let plugin = serve(dir.path());
    let recovery = std::fs::read_to_string(dir.path().join("recovery.key")).unwrap();
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{}/{file}", plugin.id())).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(recovery.trim()), "{file}");
    }
    let said = plugin.said();
    assert!(!said.contains(recovery.trim()) && !said.contains(&recovery[..17]));
}
