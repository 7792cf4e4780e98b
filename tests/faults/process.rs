//! Faults of a whole process: its descriptors (row 48), its umask (row 60), the socket that systemd
//! passes to it. Each test runs this program again, with itself as the only test.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claviger::observer::AcceptError;
use claviger::server::socket::Socket;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tempfile::tempdir;

use crate::plugin::{Calls, Plugin, Setup, client_of, socket_in};

/// Set where a test is the only one of its process.
const ALONE: &str = "CLAVIGER_TEST_ALONE";

/// Runs an ignored test of this module as the only one of a process of its own.
fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", &format!("process::{test}")])
        .env(ALONE, "1")
        .stdin(Stdio::null());
    command
}

fn assert_passes(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

fn assert_alone() {
    assert!(
        std::env::var_os(ALONE).is_some(),
        "another test of this module runs this one"
    );
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn row_48_without_descriptors_accepting_waits_and_recovers() {
    assert_passes(alone("without_descriptors"));
}

#[tokio::test]
#[ignore = "changes the process's limits: row_48_… runs it alone"]
async fn without_descriptors() {
    assert_alone();
    let plugin = Plugin::start().await;
    let mut live = plugin.client().await;
    live.answer_status().await;
    let before = open_descriptors();

    // One descriptor is left, for the client's end of one more connection.
    let limits = getrlimit(Resource::Nofile);
    let (hoard, client) = hoard_descriptors(&plugin);
    let (began, cpu) = (Instant::now(), clock_gettime(ClockId::ProcessCPUTime));
    let tally = plugin.heard(|tally| tally.accept_errors.len() >= 8).await;
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime) - cpu).unwrap();
    assert!(
        tally
            .accept_errors
            .iter()
            .all(|error| *error == AcceptError::Emfile)
    );
    // The pauses between them are 5, 10, … 320 ms, of which the look at the socket file may cut one
    // short: at least 315 ms.
    let elapsed = began.elapsed();
    assert!(
        elapsed >= Duration::from_millis(315),
        "eight failures in {elapsed:?}"
    );
    assert!(used < elapsed / 2, "{used:?} of CPU time in {elapsed:?}");
    live.answer_status().await;

    // It recovers alone.
    setrlimit(Resource::Nofile, limits).unwrap();
    drop(hoard);
    drop(client);
    plugin.client().await.answer_status().await;
    assert!(
        open_descriptors() <= before + 2,
        "{} descriptors",
        open_descriptors()
    );
    drop(live);
    plugin.ends_unharmed().await;
}

/// Takes every descriptor but one, and that one for a connection that nobody can accept.
fn hoard_descriptors(plugin: &Plugin) -> (Vec<fs::File>, std::os::unix::net::UnixStream) {
    let limit = getrlimit(Resource::Nofile);
    let low = Some(open_descriptors() as u64 + 20);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: low,
            maximum: limit.maximum,
        },
    )
    .unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.pop();
    let client = std::os::unix::net::UnixStream::connect(plugin.path()).unwrap();
    (hoard, client)
}

#[test]
fn row_60_the_umask_does_not_change_the_sockets_mode() {
    assert_passes(alone("any_umask"));
}

#[test]
#[ignore = "changes the process's umask: row_60_… runs it alone"]
fn any_umask() {
    use std::os::unix::fs::PermissionsExt;

    assert_alone();
    for umask in [0o000, 0o022, 0o077, 0o777] {
        for mode in [0o600, 0o660, 0o666] {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let dir = tempdir().unwrap();
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
            let mut config = socket_in(dir.path());
            config.mode = mode;
            let _socket = Socket::make(&config).unwrap();
            let made = fs::metadata(dir.path().join("kms.sock"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(made & 0o7777, mode, "umask {umask:o}");
        }
    }
}

#[test]
fn a_socket_that_systemd_passes_is_served_and_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    assert_passes(activated("serves_what_is_passed", &path, listener.into()));
    assert!(path.exists(), "the file is systemd's");
}

/// Starts a test as systemd does: the descriptor is number 3, and the environment says so.
fn activated(test: &str, path: &std::path::Path, passed: OwnedFd) -> Command {
    let run = alone(test);
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null",
        ])
        .arg(run.get_program())
        .args(run.get_args())
        .env(ALONE, path)
        .stdin(passed);
    shell
}

#[tokio::test]
#[ignore = "needs descriptor 3: a_socket_that_systemd_passes_… runs it alone"]
async fn serves_what_is_passed() {
    assert_alone();
    let path = std::env::var_os(ALONE).unwrap();
    let dir = tempdir().unwrap();
    let socket = Socket::open(&socket_in(dir.path())).unwrap();
    let plugin = Plugin::start_on(socket, dir, Setup::default()).await;
    assert!(!plugin.path().exists(), "the configured path is not used");
    client_of(path.as_ref())
        .await
        .unwrap()
        .answer_status()
        .await;
    plugin.stop();
    plugin.stopped().await;
}

#[test]
fn what_is_no_listening_unix_socket_is_refused() {
    let not_a_socket = fs::File::open("/dev/null").unwrap();
    assert_passes(activated(
        "refuses_what_is_passed",
        "x".as_ref(),
        not_a_socket.into(),
    ));
    let (one_end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_passes(activated(
        "refuses_what_is_passed",
        "x".as_ref(),
        one_end.into(),
    ));
}

#[test]
#[ignore = "needs descriptor 3: what_is_no_listening_… runs it alone"]
fn refuses_what_is_passed() {
    assert_alone();
    let dir = tempdir().unwrap();
    let refused = Socket::open(&socket_in(dir.path())).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("the socket that systemd passed"),
        "{refused}"
    );
}

#[test]
fn descriptors_return_to_where_they_were() {
    assert_passes(alone("descriptors_are_given_back"));
}

#[tokio::test]
#[ignore = "counts the process's descriptors: descriptors_return_… runs it alone"]
async fn descriptors_are_given_back() {
    use tokio::io::AsyncWriteExt;

    assert_alone();
    let plugin = Plugin::start_with(Setup::limits(|limits| {
        limits.preface = Duration::from_millis(500);
    }))
    .await;
    plugin.client().await.answer_status().await;
    plugin.heard(|tally| tally.closed == 1).await;
    let before = open_descriptors();
    for noise in [
        &b""[..],
        b"noise",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI",
    ] {
        for _ in 0..20 {
            let mut stream = plugin.connect().await;
            stream.write_all(noise).await.unwrap();
        }
    }
    let over = |tally: &crate::plugin::Tally| tally.rejections.len() + tally.closed == 81;
    plugin.heard(over).await;
    assert_eq!(open_descriptors(), before);
    plugin.ends_unharmed().await;
}
